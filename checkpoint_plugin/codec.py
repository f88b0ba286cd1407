"""Values as bytes and back: a closed set of types, each exactly itself after the round trip.

The bytes are MessagePack. What it lacks is an extension: a one-byte tag from `tags` and the encoding of plain parts.
Nothing in the bytes can name code, and they depend on nothing but the value: sets are written sorted by encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import error as StructError
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.errors import ValueNotStorable
from checkpoint_plugin.tags import DECODERS, ENCODERS, MalformedValue, Tag

__all__ = ["MalformedValue", "decode", "encode"]

VERSION: Final = b"\x01"
MAX_DEPTH: Final = 100
STEP_LENGTH: Final = 80
"""Characters of a key that an error shows."""
OPTIONS: Final = (
    ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_BIG_INT
)
LEAVES: Final = frozenset({type(None), bool, int, float, str, bytes})
TEXT_ONLY: Final = frozenset({str})
Way = tuple["Way | None", str, Any]
"""A step inside a value: where it starts, its words, the index, key or member."""


def encode(value: Any, place: Callable[[], str]) -> bytes:
    """A value's bytes.

    Args:
        value: of the known types, exactly, not of a subclass.
        place: tells where it stands, for the error.

    Raises:
        ValueNotStorable: naming the place, the path inside the value, and what to do.
    """
    if _is_plain(value, 0):
        try:
            return VERSION + ormsgpack.packb(value, option=OPTIONS)
        except TypeError:
            pass  # an integer beyond 64 bits or a lone surrogate: these take the long way
    return VERSION + ormsgpack.packb(_Encoder(place).parts(value, None, 0), option=OPTIONS)


def decode(data: bytes) -> Any:
    """The value of bytes that `encode` gave.

    Raises:
        MalformedValue: they are something else.
    """
    if data[:1] != VERSION:
        raise MalformedValue(f"its format {data[:1].hex() or 'nothing'} is unknown here")
    return _unpack(data[1:], 0)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether MessagePack itself has the value exactly (but for large integers and lone surrogates)."""
    kind = type(value)
    if kind in LEAVES:
        return True
    if depth >= MAX_DEPTH:
        return False
    if kind is list:
        items = value
    elif kind is dict and TEXT_ONLY.issuperset(map(type, value)):
        items = value.values()
    else:
        return False
    if LEAVES.issuperset(map(type, items)):
        return True
    return all(_is_plain(item, depth + 1) for item in items)


class _Encoder:
    """Walks a value. `at` is the way to a part as linked steps: it is put into words only for an error."""

    def __init__(self, place: Callable[[], str]) -> None:
        self.place = place
        self.open: set[int] = set()

    def parts(self, value: Any, at: Way | None, depth: int) -> Any:
        """The value as something that MessagePack has, extensions included."""
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is int and not -(2**63) <= value < 2**64:
            return self.extension(Tag.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        if kind in LEAVES:
            return value
        encoder = ENCODERS.get(kind)
        if encoder is not None:
            try:
                tag, data = encoder(value)
            except TypeError as error:
                raise self.refusal(at, f"{error}.") from error
            return self.extension(tag, data)
        if kind not in CONTAINERS:
            raise self.refusal(at, f"its type {_name(kind)} is not one that can be stored. {_mend(kind)}")
        if depth >= MAX_DEPTH:
            raise self.refusal(None, f"it is nested deeper than {MAX_DEPTH} levels. Flatten it.")
        if id(value) in self.open:
            raise self.refusal(at, "it contains itself. Store a value without cycles.")
        self.open.add(id(value))
        try:
            return CONTAINERS[kind](self, value, at, depth + 1)
        finally:
            self.open.discard(id(value))

    def refusal(self, at: Way | None, why: str) -> ValueNotStorable:
        return ValueNotStorable(self.place() + _words(at), why)

    def text(self, value: str) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return self.extension(Tag.SURROGATES, value.encode("utf-8", "surrogatepass"))
        return value

    def extension(self, tag: Tag, data: bytes) -> Any:
        return ormsgpack.Ext(tag, data)

    def items(self, values: Any, at: Way | None, depth: int) -> list[Any]:
        return [self.parts(item, (at, "[{}]", place), depth) for place, item in enumerate(values)]

    def list(self, value: Any, at: Way | None, depth: int) -> Any:
        return self.items(value, at, depth)

    def tuple(self, value: Any, at: Way | None, depth: int) -> Any:
        return self.extension(Tag.TUPLE, _pack(self.items(value, at, depth)))

    def mapping(self, value: Any, at: Way | None, depth: int) -> Any:
        if TEXT_ONLY.issuperset(map(type, value)) and all(_is_utf8(key) for key in value):
            return {key: self.parts(item, (at, "[{}]", key), depth) for key, item in value.items()}
        pairs = [
            [self.parts(key, (at, " key {}", key), depth), self.parts(item, (at, "[{}]", key), depth)]
            for key, item in value.items()
        ]
        return self.extension(Tag.DICT, _pack(pairs))

    def set(self, value: Any, at: Way | None, depth: int) -> Any:
        tag = Tag.SET if type(value) is set else Tag.FROZENSET
        packed = sorted(_pack(self.parts(item, (at, " member {}", item), depth)) for item in value)
        return self.extension(tag, _pack(packed))


Contain = Callable[[_Encoder, Any, Way | None, int], Any]
CONTAINERS: Final[dict[type, Contain]] = {
    list: _Encoder.list,
    tuple: _Encoder.tuple,
    dict: _Encoder.mapping,
    set: _Encoder.set,
    frozenset: _Encoder.set,
}


def _pack(parts: Any) -> bytes:
    return ormsgpack.packb(parts, option=OPTIONS)


SHELLS: Final = frozenset({Tag.TUPLE, Tag.DICT, Tag.SET, Tag.FROZENSET})


class _Part:
    """An extension as it was found, not yet read."""

    __slots__ = ("data", "tag")

    def __init__(self, tag: int, data: bytes) -> None:
        self.tag = tag
        self.data = data


NESTED: Final = frozenset({list, dict, _Part})


def _unpack(data: bytes, depth: int) -> Any:
    # Extensions are read after ormsgpack has returned, never from inside it: 100 extensions that each hold 1,000
    # lists made its recursion overflow the stack of the process.
    found: list[_Part] = []

    def keep(tag: int, inner: bytes) -> _Part:
        part = _Part(tag, inner)
        found.append(part)
        return part

    try:
        value = ormsgpack.unpackb(data, ext_hook=keep)
    except ValueError as error:
        raise MalformedValue(f"it is not what was written ({error})") from error
    return _resolve(value, depth) if found else value


def _resolve(value: Any, depth: int) -> Any:
    """The value with its extensions read, containers changed in place."""
    kind = type(value)
    if kind not in NESTED:
        return value
    if kind is _Part:
        return _read(value.tag, value.data, depth)
    if depth >= MAX_DEPTH:
        raise MalformedValue("it is nested too deeply")
    for place, item in enumerate(value) if kind is list else list(value.items()):
        if type(item) in NESTED:
            value[place] = _resolve(item, depth + 1)
    return value


def _read(tag: int, data: bytes, depth: int) -> Any:
    """The value of an extension."""
    if tag in SHELLS and depth >= MAX_DEPTH:
        raise MalformedValue("it is nested too deeply")
    try:
        match tag:
            case Tag.TUPLE:
                return tuple(_expect_list(_unpack(data, depth)))
            case Tag.DICT:
                pairs = _expect_list(_unpack(data, depth - 1))  # a pair is no level of its own
                if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
                    raise MalformedValue("a mapping in it has no pairs")
                return {key: item for key, item in pairs}  # noqa: C416  a list of lists is not what dict() takes to mypy
            case Tag.SET:
                return {_unpack(item, depth + 1) for item in _expect_list(_unpack(data, depth))}
            case Tag.FROZENSET:
                return frozenset(_unpack(item, depth + 1) for item in _expect_list(_unpack(data, depth)))
            case Tag.SURROGATES:
                return data.decode("utf-8", "surrogatepass")
            case Tag.BIG_INT:
                return int.from_bytes(data, "big", signed=True)
        decoder = DECODERS.get(tag)
        if decoder is None:
            raise MalformedValue(f"it has a part of an unknown kind {tag}")
        return decoder(data)
    except (ValueError, TypeError, ArithmeticError, StructError) as error:
        raise MalformedValue(f"it is not what was written ({error})") from error


def _expect_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedValue("a container in it is malformed")
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(at: Way | None) -> str:
    steps: list[str] = []
    while at is not None:
        at, form, step = at
        steps.append(form.format(_short(step)))
    return "".join(reversed(steps))


def _short(step: object) -> str:
    try:
        text = repr(step)
    except Exception as error:  # it is anybody's object: its repr may raise anything, and the refusal must still be told
        text = f"<{_name(type(step))}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= STEP_LENGTH else f"{text[: STEP_LENGTH - 1]}…"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__


def _mend(kind: type) -> str:
    for base in (*CONTAINERS, *LEAVES, *ENCODERS):
        if base is not type(None) and issubclass(kind, base):
            return f"It would come back as {base.__name__}: convert it to that, or to another plain value, first."
    return "Convert it to plain values (numbers, text, bytes, lists, dicts, dates, …) first."
