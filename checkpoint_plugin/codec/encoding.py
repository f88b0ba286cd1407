"""Values as bytes: plain ones by MessagePack itself, everything else as its extensions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Final

import ormsgpack

from checkpoint_plugin.codec.decoding import MAX_DEPTH, VERSION, decode_parts
from checkpoint_plugin.codec.foreign import find_foreign, foreign_mend
from checkpoint_plugin.codec.leaves import ENCODERS
from checkpoint_plugin.codec.models import is_model
from checkpoint_plugin.codec.registry import TypeRegistry
from checkpoint_plugin.codec.shapes import RegisteredType, type_name
from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable

__all__ = ["encode_value", "pack_scalars"]

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
SCALARS: Final = frozenset({bool, int, float, str, type(None)})
SHORT: Final = 28
"""Characters of a text that takes no more than its row has room for."""
TEXT_ONLY: Final = frozenset({str})
LONG: Final = 65_535
FOUR_BYTES: Final = 1 << 32
TEXT_32: Final = b"\xdb"
BYTES_32: Final = b"\xc6"
"""What MessagePack has before the length of more than `LONG` bytes, and of fewer than `FOUR_BYTES`."""
Way = tuple["Way | None", str, Any]
"""A step inside a value: where it starts, its words, the index, key or member."""


def encode_value(value: Any, place: Callable[[], str], registry: TypeRegistry, limit: int) -> bytes:
    """A value's bytes.

    Args:
        value: of the known types, exactly, not of a subclass.
        place: tells where it stands, for the error.
        registry: of the user's types.
        limit: bytes that it may have at most.

    Raises:
        ValueNotStorable: naming the place, the path inside the value, and what to do.
    """
    data = _long(value)
    try:
        if data is None and _is_plain(value, 0, [limit]):
            try:
                data = VERSION + ormsgpack.packb(value, option=OPTIONS)
            except TypeError:
                pass  # an integer beyond 64 bits or a lone surrogate: these take the long way
        if data is None:
            data = VERSION + ormsgpack.packb(_Encoder(place, registry, limit).parts(value, None, 0), option=OPTIONS)
    except _NoRoom:
        raise _too_large(place, f"more than {limit:,}", limit) from None
    if len(data) > limit:
        raise _too_large(place, f"{len(data):,}", limit)
    return data


def _long(value: Any) -> bytes | None:
    """The bytes of a long text or of many bytes, copied once; `None` for other values. The library copies them again and again
    into more room."""
    kind = type(value)
    if (kind is not str and kind is not bytes) or not LONG < len(value) < FOUR_BYTES:
        return None
    try:
        data = value if kind is bytes else value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    if len(data) >= FOUR_BYTES:
        return None
    return b"".join((VERSION, BYTES_32 if kind is bytes else TEXT_32, len(data).to_bytes(4, "big"), data))


class _NoRoom(Exception):
    """Raised where a value has more parts than it may have bytes: forty lists can hold one another a billion times."""


def _too_large(place: Callable[[], str], size: str, limit: int) -> ValueNotStorable:
    why = f"it takes {size} bytes, and the limit is {limit:,}. Store it elsewhere and pass on where, or raise max_value_bytes."
    return ValueNotStorable(place(), why)


def pack_scalars(values: Sequence[Any]) -> bytes | None:
    """Small numbers and texts that MessagePack has exactly, packed as one list; `None` where a value is something else."""
    kinds = set(map(type, values))
    if not kinds <= SCALARS or (str in kinds and not all(type(v) is not str or len(v) <= SHORT for v in values)):
        return None
    try:
        packed: bytes = ormsgpack.packb(values, option=ormsgpack.OPT_PASSTHROUGH_BIG_INT)
    except TypeError:  # as above
        return None
    return packed


def _is_plain(value: Any, depth: int, room: list[int]) -> bool:
    """Whether MessagePack itself has the value exactly (but for large integers and lone surrogates).

    Args:
        value: any.
        depth: containers around it.
        room: bytes that are left for its parts, each of which takes one at least.
    """
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
    if depth:
        room[0] -= len(value) + 1
        if room[0] < 0:
            raise _NoRoom
    if LEAVES.issuperset(map(type, items)):
        return True
    for item in items:  # noqa: SIM110 - a generator would cost as much as a small value
        if type(item) not in LEAVES and not _is_plain(item, depth + 1, room):
            return False
    return True


class _Encoder:
    """Walks a value. `at` is the way to a part as linked steps: it is put into words only for an error."""

    def __init__(self, place: Callable[[], str], registry: TypeRegistry, limit: int) -> None:
        self.place = place
        self.registry = registry
        self.room = [limit]
        self.open: set[int] = set()
        self.checks = False

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
                raise self.told(at, error) from error
            return self.extension(tag, data)
        contain = CONTAINERS.get(kind)
        entry = self.registry.of(kind) if contain is None else None
        foreign = find_foreign(kind) if contain is None and entry is None else None
        if contain is None and entry is None and foreign is None:
            raise self.refusal(at, f"its type {type_name(kind)} is not one that can be stored. {_mend(kind)}")
        self.room[0] -= 1
        if self.room[0] < 0:
            raise _NoRoom
        if depth >= MAX_DEPTH:
            raise self.refusal(_beginning(at), f"it is nested deeper than {MAX_DEPTH} levels. Flatten it.")
        if id(value) in self.open:
            raise self.refusal(at, "it contains itself. Store a value without cycles.")
        self.open.add(id(value))
        try:
            if contain is not None:
                return contain(self, value, at, depth + 1)
            try:
                if entry is not None:
                    return self.registered(entry, value, at, depth + 1)
                assert foreign is not None
                return self.extension(*foreign(value, lambda step, part: self.packed(part, (at, step, None), depth + 1)))
            except TypeError as error:
                raise self.told(at, error) from error
        finally:
            self.open.discard(id(value))

    def refusal(self, at: Way | None, why: str) -> ValueNotStorable:
        return ValueNotStorable(self.place() + _words(at), why)

    def told(self, at: Way | None, error: TypeError) -> ValueNotStorable:
        """What a type says against a value, as a refusal with the path to it; that of a member has its path already."""
        return error if isinstance(error, ValueNotStorable) else self.refusal(at, f"{error}".removesuffix(".") + ".")

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

    def registered(self, entry: RegisteredType, value: Any, at: Way | None, depth: int) -> Any:
        data = _pack([entry.name, *entry.shape.take(value, lambda step, part: self.parts(part, (at, step, None), depth))])
        if entry.checked and not self.checks:
            self.check(entry, data, depth)
        return self.extension(Tag.REGISTERED, data)

    def packed(self, value: Any, at: Way | None, depth: int) -> bytes:
        """The bytes of a value that stands in another; columns of plain values are large, and need not be walked."""
        if _is_plain(value, depth, self.room[:]):
            try:
                return _pack(value)
            except TypeError:
                pass  # as in encode_value
        return _pack(self.parts(value, at, depth))

    def check(self, entry: RegisteredType, data: bytes, depth: int) -> None:
        """Refuse what a user's own functions do not give back: what comes back must be stored as the same bytes."""
        try:
            again = entry.shape.make(decode_parts(data, depth - 1, self.registry))
        except ValueNotReadable as error:
            raise TypeError(error.why) from error
        # The members were checked when they were encoded. Checked again at each level, 30 levels took a billion checks.
        self.checks = True
        try:
            parts = entry.shape.take(again, lambda step, member: self.parts(member, None, depth))
        finally:
            self.checks = False
        if _pack([entry.name, *parts]) != data:
            raise TypeError(f"what the decode=… of {type_name(entry.kind)} gives is another value to its encode=…")


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


def _beginning(at: Way | None) -> Way | None:
    """The first two steps of a way that is too long to be told."""
    steps: list[Way] = []
    while at is not None:
        steps.append(at)
        at = at[0]
    begun: Way | None = None
    for _, form, step in steps[:-3:-1]:
        begun = begun, form, step
    return begun


def _short(step: object) -> str:
    try:
        text = repr(step)
    except Exception as error:  # it is anybody's object: its repr may raise anything, and the refusal must still be told
        text = f"<{type_name(type(step))}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= STEP_LENGTH else f"{text[: STEP_LENGTH - 1]}…"


def _mend(kind: type) -> str:
    if issubclass(kind, Enum) or is_dataclass(kind) or is_model(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        return "Register it: @checkpoint_plugin.register above the class, or in the hook register_codecs."
    if (more := foreign_mend(kind)) is not None:
        return more
    if issubclass(kind, Awaitable):
        return "An `await` is missing before what gave it."
    if issubclass(kind, (Generator, AsyncGenerator)):
        return "Yield its items one by one, or store a list of them."
    for base in (*CONTAINERS, *LEAVES, *ENCODERS):
        if base is not type(None) and issubclass(kind, base):
            return f"It would come back as {base.__name__}: convert it to that, or to another plain value, first."
    return (
        "Convert it to plain values (numbers, text, bytes, lists, dicts, dates, …) first, or register it with "
        "checkpoint_plugin.register(…, encode=…, decode=…)."
    )
