"""The leaf types that MessagePack lacks: each with a tag that never changes its meaning."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cache
from struct import Struct
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from checkpoint_plugin.codec.tags import MalformedValue, Tag
from checkpoint_plugin.errors import ValueNotReadable

__all__ = ["DECODERS", "ENCODERS"]


COMPLEX: Final = Struct(">dd")
DELTA: Final = Struct(">iii")
MAX_FRACTION: Final = 1 << 36
PATHS: Final[dict[str, type[pathlib.PurePath]]] = {
    "path": type(pathlib.Path()),
    "posix": pathlib.PurePosixPath,
    "windows": pathlib.PureWindowsPath,
}
"""A concrete path comes back as the concrete path of the system that reads it."""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@cache
def _zones() -> frozenset[str]:
    """The zones of the database. Only these are asked for: a name from stored bytes opens no file and imports nothing."""
    return frozenset(available_timezones())


def _moment(value: datetime | time) -> bytes:
    """ISO text, the fold, and the zone: nothing, an offset, or a name of the zone database."""
    zone = value.tzinfo
    if zone is None:
        kind = "naive"
    elif type(zone) is timezone:
        kind = "offset"
    elif type(zone) is ZoneInfo and zone.key in _zones():
        kind = f"zone {zone.key}"
    else:
        raise TypeError(f"its time zone {zone!r} is of a type that cannot be stored; use datetime.timezone or zoneinfo")
    offset = _offset(zone) if type(zone) is timezone else ""
    return _bytes(f"{kind}|{value.fold}|{offset}|{value.replace(tzinfo=None, fold=0).isoformat()}")


def _offset(zone: timezone) -> str:
    name = zone.tzname(None)
    if name != timezone(zone.utcoffset(None)).tzname(None):
        raise TypeError(f"its time zone has a name of its own ({name!r}); use an unnamed offset or zoneinfo")
    delta = zone.utcoffset(None)
    return f"{delta.days},{delta.seconds},{delta.microseconds}"


def _zone(kind: str, offset: str) -> Any:
    if kind == "naive":
        return None
    if kind == "offset":
        days, seconds, microseconds = map(int, offset.split(","))
        delta = timedelta(days, seconds, microseconds)
        return UTC if not delta else timezone(delta)
    if kind.startswith("zone "):
        if kind[5:] not in _zones():
            raise ValueNotReadable(f"its time zone {kind[5:]!r} is not known here. Install it: pip install tzdata")
        return ZoneInfo(kind[5:])
    raise MalformedValue(f"a time zone in it is of an unknown kind {kind!r}")


def _read_moment(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        kind, fold, offset, text = _text(data).split("|")
        return parse(text).replace(tzinfo=_zone(kind, offset), fold=int(fold))

    return read


def _read_delta(data: bytes) -> timedelta:
    days, seconds, microseconds = DELTA.unpack(data)
    return timedelta(days, seconds, microseconds)


def _fraction(value: Fraction) -> tuple[Tag, bytes]:
    if not _is_quick(value.numerator, value.denominator):
        raise TypeError("its numerator and denominator are too long to be reduced quickly; round it")
    return Tag.FRACTION, _bytes(f"{value.numerator:x}/{value.denominator:x}")


def _read_fraction(data: bytes) -> Fraction:
    top, bottom = (int(part, 16) for part in _text(data).split("/"))
    if not _is_quick(top, bottom):
        raise MalformedValue("a fraction in it is too long")
    return Fraction(top, bottom)


def _is_quick(top: int, bottom: int) -> bool:
    """Whether the two are reduced within a tenth of a second: the time grows with the product of their lengths."""
    return top.bit_length() * bottom.bit_length() <= MAX_FRACTION


def _path(kind: str, value: pathlib.PurePath) -> tuple[Tag, bytes]:
    text = str(value)
    if type(value)(text) != value:
        raise TypeError(f"the path {text!r} means another path when it is read again; use an absolute one")
    return Tag.PATH, _bytes(f"{kind}|{text}")


def _read_path(data: bytes) -> pathlib.PurePath:
    kind, _, text = _text(data).partition("|")
    if kind not in PATHS:
        raise MalformedValue(f"a path in it is of an unknown kind {kind!r}")
    return PATHS[kind](text)


Encode = Callable[[Any], tuple[Tag, bytes]]
ENCODERS: Final[dict[type, Encode]] = {
    bytearray: lambda value: (Tag.BYTEARRAY, bytes(value)),
    datetime: lambda value: (Tag.DATETIME, _moment(value)),
    date: lambda value: (Tag.DATE, _bytes(value.isoformat())),
    time: lambda value: (Tag.TIME, _moment(value)),
    timedelta: lambda value: (Tag.TIMEDELTA, DELTA.pack(value.days, value.seconds, value.microseconds)),
    UUID: lambda value: (Tag.UUID, value.bytes),
    Decimal: lambda value: (Tag.DECIMAL, _bytes(str(value))),
    Fraction: _fraction,
    complex: lambda value: (Tag.COMPLEX, COMPLEX.pack(value.real, value.imag)),
    PATHS["path"]: lambda value: _path("path", value),
    pathlib.PurePosixPath: lambda value: _path("posix", value),
    pathlib.PureWindowsPath: lambda value: _path("windows", value),
}
DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    Tag.SURROGATES: _text,
    Tag.BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    Tag.BYTEARRAY: bytearray,
    Tag.DATETIME: _read_moment(datetime.fromisoformat),
    Tag.DATE: lambda data: date.fromisoformat(_text(data)),
    Tag.TIME: _read_moment(time.fromisoformat),
    Tag.TIMEDELTA: _read_delta,
    Tag.UUID: lambda data: UUID(bytes=data),
    Tag.DECIMAL: lambda data: Decimal(_text(data)),
    Tag.FRACTION: _read_fraction,
    Tag.COMPLEX: lambda data: complex(*COMPLEX.unpack(data)),
    Tag.PATH: _read_path,
}
