"""Bytes as values again. Nothing in the bytes can name code: a name is looked up in the registry, and nowhere else."""

from __future__ import annotations

import gc
from collections.abc import Callable
from struct import error as StructError
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.codec.foreign import EXTRAS, read_foreign
from checkpoint_plugin.codec.leaves import DECODERS
from checkpoint_plugin.codec.registry import TypeRegistry
from checkpoint_plugin.codec.tags import MalformedValue, Tag
from checkpoint_plugin.errors import ValueNotReadable

__all__ = ["MAX_DEPTH", "VERSION", "decode_outline", "decode_parts", "decode_value"]

VERSION: Final = b"\x01"
MAX_DEPTH: Final = 100
LARGE: Final = 1 << 16
"""Bytes from which on the garbage collector waits until they are read."""


class _Part:
    """An extension as it was found, not yet read."""

    __slots__ = ("data", "tag")

    def __init__(self, tag: int, data: bytes) -> None:
        self.tag = tag
        self.data = data


NESTED: Final = frozenset({list, dict, _Part})
UNREAD: Final = object()
"""Stands in an outline for a value that needs a type or a library."""


def decode_value(data: bytes, registry: TypeRegistry) -> Any:
    """The value of bytes that `encode_value` gave.

    Args:
        data: the bytes.
        registry: of the user's types.

    Raises:
        MalformedValue: they are something else.
        ValueNotReadable: a type or a library that they need is not here.
    """
    return _decode(data, _Decoder(registry))


def decode_outline(data: bytes) -> Any:
    """As `decode_value`, without registered values and those of libraries: `UNREAD` stands in the place of each.

    Args:
        data: the bytes.

    Raises:
        MalformedValue: they are something else.
    """
    return _decode(data, _Outliner(TypeRegistry()))


def decode_parts(data: bytes, depth: int, registry: TypeRegistry) -> list[Any]:
    """The parts of a registered value that stands at a depth, without its name."""
    return _Decoder(registry).members(data, depth)[1:]


def _decode(data: bytes, decoder: _Decoder) -> Any:
    if data[:1] != VERSION:
        raise MalformedValue(f"its format {data[:1].hex() or 'nothing'} is unknown here")
    value, nested = _unpack(data[1:])
    return decoder.resolve(value, 0) if nested else value


def _unpack(data: bytes) -> tuple[Any, bool]:
    """What MessagePack makes of packed bytes, and whether it holds extensions."""
    # Extensions are read after ormsgpack has returned, never from inside it: 100 extensions that each hold 1,000
    # lists made its recursion overflow the stack of the process.
    found: list[_Part] = []

    def keep(tag: int, inner: bytes) -> _Part:
        part = _Part(tag, inner)
        found.append(part)
        return part

    # What is made here is no garbage yet, and has no cycles: a graph of 10,000 nodes would be walked through twice over.
    paused = len(data) > LARGE and gc.isenabled()
    if paused:
        gc.disable()
    try:
        return ormsgpack.unpackb(data, ext_hook=keep), bool(found)
    except ValueError as error:
        raise MalformedValue(f"it is not what was written ({error})") from error
    finally:
        if paused:
            gc.enable()


class _Decoder:
    """Reads one value."""

    __slots__ = ("registry",)

    def __init__(self, registry: TypeRegistry) -> None:
        self.registry = registry

    def unpack(self, data: bytes, depth: int) -> Any:
        """The value of packed bytes that stand at a depth."""
        value, nested = _unpack(data)
        return self.resolve(value, depth) if nested else value

    def resolve(self, value: Any, depth: int) -> Any:
        """The value with its extensions read, containers changed in place."""
        kind = type(value)
        if kind not in NESTED:
            return value
        if kind is _Part:
            return self.read(value.tag, value.data, depth)
        if depth >= MAX_DEPTH:
            raise MalformedValue("it is nested too deeply")
        for place, item in enumerate(value) if kind is list else list(value.items()):
            if type(item) in NESTED:
                value[place] = self.resolve(item, depth + 1)
        return value

    def read(self, tag: int, data: bytes, depth: int) -> Any:
        """The value of an extension."""
        try:
            shell = SHELLS.get(tag)
            if shell is not None:
                if depth >= MAX_DEPTH:
                    raise MalformedValue("it is nested too deeply")
                return shell(self, data, depth)
            decoder = DECODERS.get(tag)
            if decoder is None:
                raise MalformedValue(f"it has a part of an unknown kind {tag}")
            return decoder(data)
        except (ValueError, TypeError, ArithmeticError, StructError) as error:
            raise MalformedValue(f"it is not what was written ({error})") from error

    def tuple(self, data: bytes, depth: int) -> Any:
        return tuple(_expect_list(self.unpack(data, depth)))

    def mapping(self, data: bytes, depth: int) -> Any:
        pairs = _expect_list(_unpack(data)[0])
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise MalformedValue("a mapping in it has no pairs")
        return {self.resolve(key, depth + 1): self.resolve(item, depth + 1) for key, item in pairs}

    def set(self, data: bytes, depth: int) -> Any:
        return {self.unpack(item, depth + 1) for item in _expect_list(self.unpack(data, depth))}

    def frozenset(self, data: bytes, depth: int) -> Any:
        return frozenset(self.unpack(item, depth + 1) for item in _expect_list(self.unpack(data, depth)))

    def registered(self, data: bytes, depth: int) -> Any:
        name, *parts = self.members(data, depth)
        entry = self.registry.named(name) if isinstance(name, str) else None
        if entry is None:
            raise ValueNotReadable(
                f"its type {name!r} is not registered here. Import the module that registers it first (give a file of nodes "
                "with --nodes), or register it: checkpoint_plugin.register(TheClass, name=…), or the hook register_codecs."
            )
        return entry.shape.make(parts)

    def members(self, data: bytes, depth: int) -> list[Any]:
        """The name of a registered value, then its parts."""
        # The fields are no level of their own, but an extension always is: else a chain of them had no depth at all.
        return [self.resolve(part, depth + 1 if type(part) is _Part else depth) for part in _expect_list(_unpack(data)[0])]


class _Outliner(_Decoder):
    """Reads what every process can read."""

    __slots__ = ()

    def read(self, tag: int, data: bytes, depth: int) -> Any:
        return UNREAD if tag in TYPED else super().read(tag, data, depth)


def _foreign(tag: Tag) -> Read:
    """How the value of a library is read, which may hold values of ours."""
    return lambda decoder, data, depth: read_foreign(tag, data, lambda part: decoder.unpack(part, depth + 1))


TYPED: Final = frozenset({Tag.REGISTERED, *EXTRAS})
Read = Callable[[_Decoder, bytes, int], Any]
SHELLS: Final[dict[int, Read]] = {
    Tag.TUPLE: _Decoder.tuple,
    Tag.DICT: _Decoder.mapping,
    Tag.SET: _Decoder.set,
    Tag.FROZENSET: _Decoder.frozenset,
    Tag.REGISTERED: _Decoder.registered,
    **{tag: _foreign(tag) for tag in EXTRAS},
}
"""Extensions that may hold other values, so that their depth counts."""


def _expect_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedValue("a container in it is malformed")
    return value
