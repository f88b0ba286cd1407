"""Tagged JSON: plain Python values as JSON that gives back an equal value of the same type.

What JSON has stays as it is; what it lacks becomes `{"$type": NAME, "value": …}`, and so does a dict that could be
taken for one. The set of types is closed: nothing in a document can name code.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from hookspecs.errors import TaggedValueError

__all__ = ["dumps_tagged", "from_tagged", "loads_tagged", "to_tagged"]

TAG: Final = "$type"
MAX_DEPTH: Final = 200
"""Nested containers, written and read: each is up to three levels of JSON, and Python stops at 1,000 calls."""

MAX_PLAIN_BITS: Final = 14_000
"""Python refuses to read or write more than 4,300 digits (14,284 bits)."""

MAX_FRACTION: Final = 1 << 36
"""Bits of a numerator times those of its denominator: reducing them takes time by that, here a tenth of a second."""

SURROGATE_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""Two code points that JSON's escapes would give back as one."""

PLAIN: Final = frozenset({bool, type(None)})
"""Types whose values are their own form, as are those of ASCII text: most values of a document, so looked at first."""

ENCODER: Final = json.JSONEncoder(allow_nan=False)

Place = tuple["Place | None", object]


def to_tagged(value: object) -> Any:
    """The JSON-able form of a value.

    Args:
        value: `None`, bool, int, float, complex, str, bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal,
            Fraction, Path, and list, tuple, set, frozenset and dict of these. Subclasses are other types.

    Returns:
        Dicts, lists and scalars for `json.dumps`; sets in an order that depends only on their items.

    Raises:
        TaggedValueError: naming the type and where it is.
    """
    return _encode(value, None, 0)


def from_tagged(document: object) -> Any:
    """The value that `to_tagged` was given.

    Args:
        document: as `json.loads` gives it.

    Raises:
        TaggedValueError: an unknown or malformed tag, naming where it is.
    """
    return _decode(document, None, 0)


def dumps_tagged(value: object, *, indent: int | None = None) -> str:
    """JSON text of a value: pure ASCII, on one line without `indent`, never a NaN token.

    Raises:
        TaggedValueError: as `to_tagged`.
    """
    document = to_tagged(value)
    return ENCODER.encode(document) if indent is None else json.dumps(document, allow_nan=False, indent=indent)


def loads_tagged(text: str) -> Any:
    """The value behind a text of `dumps_tagged`.

    Raises:
        TaggedValueError: it is not JSON, or as `from_tagged`.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaggedValueError(f"this is not JSON: {error}. Give what dumps_tagged wrote.") from error
    return from_tagged(document)


# Encoding.


def _encode(value: Any, place: Place | None, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return value if not SURROGATE_PAIR.search(value) else _tag("str", _base64(value.encode("utf-8", "surrogatepass")))
    if kind is int:
        return value if value.bit_length() <= MAX_PLAIN_BITS else _tag("int", hex(value))
    if kind is float:
        return value if math.isfinite(value) else _tag("float", repr(value))
    if depth >= MAX_DEPTH:
        raise TaggedValueError(f"{_where(place)}: nested deeper than {MAX_DEPTH} levels, or inside itself. Flatten the value.")
    if kind is dict:
        return _encode_dict(value, place, depth + 1)
    if kind is list:
        return _encode_items(value, place, depth + 1)
    if kind is tuple:
        return _tag("tuple", _encode_items(value, place, depth + 1))
    if kind is set or kind is frozenset:
        return _tag(kind.__name__, sorted(_encode_items(value, place, depth + 1), key=_sort_key))
    encoder = SCALAR_ENCODERS.get(kind)
    if encoder is None:
        raise TaggedValueError(
            f"{_where(place)}: {kind.__module__}.{kind.__qualname__} has no tagged JSON form. "
            "Use plain Python values: numbers, text, bytes, dates, lists, dicts."
        )
    try:
        return encoder(value)
    except ValueError as error:
        raise TaggedValueError(f"{_where(place)}: {error}") from error


def _encode_items(items: Any, place: Place | None, depth: int) -> list[Any]:
    return [
        item if type(item) in PLAIN or (type(item) is str and item.isascii()) else _encode(item, (place, index), depth)
        for index, item in enumerate(items)
    ]


def _encode_dict(value: dict[Any, Any], place: Place | None, depth: int) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is not str or key == TAG or not (key.isascii() or SURROGATE_PAIR.search(key) is None):
            return _tag("dict", _encode_pairs(value, place, depth))
        plain = type(item) in PLAIN or (type(item) is str and item.isascii())
        encoded[key] = item if plain else _encode(item, (place, key), depth)
    return encoded


def _encode_pairs(value: dict[Any, Any], place: Place | None, depth: int) -> list[Any]:
    pairs = []
    for key, item in value.items():
        inside = (place, key)
        pairs.append([_encode(key, inside, depth), _encode(item, inside, depth)])
    return pairs


def _encode_moment(value: datetime | time) -> dict[str, Any]:
    name, zone = type(value).__name__, value.tzinfo
    tagged = _tag(name, value.isoformat())
    if type(zone) is ZoneInfo and zone.key is not None:
        tagged = _tag(name, value.replace(tzinfo=None).isoformat()) | {"zone": zone.key}
    elif zone is not None and type(zone) is not timezone:
        raise ValueError(
            f"a {name} in a {type(zone).__name__} has no tagged JSON form. Use datetime.timezone or zoneinfo.ZoneInfo."
        )
    elif zone is not None and zone.utcoffset(None) and abs(zone.utcoffset(None)) < timedelta(seconds=1):
        # Python reads such an offset as none.
        raise ValueError(f"a {name} in a zone that is less than a second from UTC has no tagged JSON form. Use whole seconds.")
    return tagged | {"fold": 1} if value.fold else tagged


def _encode_fraction(value: Fraction) -> dict[str, Any]:
    _check_quick(value.numerator, value.denominator)
    return _tag("fraction", [hex(value.numerator), hex(value.denominator)])


def _check_quick(top: int, bottom: int) -> None:
    if top.bit_length() * bottom.bit_length() > MAX_FRACTION:
        raise ValueError("the numerator and denominator of a fraction are too long to be reduced quickly. Round it.")


def _tag(name: str, value: object) -> dict[str, Any]:
    return {TAG: name, "value": value}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _sort_key(encoded: object) -> str:
    return json.dumps(encoded, sort_keys=True)


def _where(place: Place | None) -> str:
    keys: list[object] = []
    while place is not None:
        place, key = place
        keys.append(key)
    return "value" + "".join(f"[{key!r}]" for key in reversed(keys))


SCALAR_ENCODERS: Final[Mapping[type, Callable[[Any], dict[str, Any]]]] = {
    bytes: lambda value: _tag("bytes", _base64(value)),
    bytearray: lambda value: _tag("bytearray", _base64(bytes(value))),
    complex: lambda value: _tag("complex", [repr(value.real), repr(value.imag)]),
    date: lambda value: _tag("date", value.isoformat()),
    datetime: _encode_moment,
    time: _encode_moment,
    timedelta: lambda value: _tag("timedelta", [value.days, value.seconds, value.microseconds]),
    Decimal: lambda value: _tag("decimal", str(value)),
    Fraction: _encode_fraction,
    UUID: lambda value: _tag("uuid", str(value)),
    type(Path()): lambda value: _tag("path", _encode(str(value), None, 0)),
}


# Decoding.


def _decode(document: Any, place: Place | None, depth: int) -> Any:
    kind = type(document)
    if document is None or kind is str or kind is int or kind is bool or kind is float:
        return document
    if depth >= MAX_DEPTH:
        raise TaggedValueError(f"{_where(place)}: nested deeper than {MAX_DEPTH} levels. Flatten the value.")
    if kind is list:
        return _decode_items(document, place, depth + 1)
    if kind is not dict:
        raise TaggedValueError(f"{_where(place)}: {kind.__name__} is not JSON. Give what json.loads gave.")
    if TAG not in document:
        decoded = {}
        for key, item in document.items():
            decoded[key] = _decode(item, (place, key), depth + 1)
        return decoded
    name, value = document[TAG], document.get("value")
    try:
        if isinstance(name, str):
            if (container := CONTAINERS.get(name)) is not None:
                _only(document, "value")
                return container(_decode_items(_list(value), place, depth + 1))
            if name == "dict":
                _only(document, "value")
                return _decode_pairs(_list(value), place, depth + 1)
            if name in ("datetime", "time"):
                _only(document, "value", "zone", "fold")
                return _decode_moment(name, document)
            if (decoder := SCALAR_DECODERS.get(name)) is not None:
                _only(document, "value")
                return decoder(value)
    except TaggedValueError:
        raise
    except (ValueError, TypeError, KeyError, ArithmeticError, OSError) as error:
        raise TaggedValueError(f'{_where(place)}: not a valid "{name}": {error}. Give what to_tagged gave.') from error
    raise TaggedValueError(
        f'{_where(place)}: the "{TAG}" {name!r} is unknown. Known are {", ".join(KNOWN_TAGS)}; '
        f'a dict of yours with that key is {{"{TAG}": "dict", "value": [[key, value], …]}}.'
    )


def _decode_items(items: list[Any], place: Place | None, depth: int) -> list[Any]:
    decoded = []
    for index, item in enumerate(items):
        decoded.append(_decode(item, (place, index), depth))
    return decoded


def _decode_pairs(pairs: list[Any], place: Place | None, depth: int) -> dict[Any, Any]:
    decoded = {}
    for index, pair in enumerate(pairs):
        key, item = _list(pair)
        decoded[_decode(key, (place, index), depth)] = _decode(item, (place, index), depth)
    return decoded


def _decode_moment(name: str, document: Mapping[str, Any]) -> datetime | time:
    text = _text(document["value"])
    moment: datetime | time = datetime.fromisoformat(text) if name == "datetime" else time.fromisoformat(text)
    if "zone" in document:
        moment = moment.replace(tzinfo=ZoneInfo(_text(document["zone"])))
    return moment.replace(fold=1) if document.get("fold") else moment


def _only(document: Mapping[str, Any], *allowed: str) -> None:
    if "value" not in document:
        raise ValueError('it has no "value"')
    if unknown := set(document) - {TAG, *allowed}:
        raise ValueError(f"unknown keys {sorted(unknown)}")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"text expected, found {type(value).__name__}")


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    raise TypeError(f"a list expected, found {type(value).__name__}")


def _bytes(value: object) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _path(value: object) -> Path:
    is_tagged = isinstance(value, dict) and value.get(TAG) == "str"  # anything else might hold a path in a path, without end
    return Path(_text(_decode(value, None, 0) if is_tagged else value))


def _float(value: object) -> float:
    text = _text(value)
    if text in ("nan", "inf", "-inf"):
        return float(text)
    raise ValueError("nan, inf or -inf expected")


def _complex(value: object) -> complex:
    real, imaginary = _list(value)
    return complex(float(_text(real)), float(_text(imaginary)))


def _fraction(value: object) -> Fraction:
    numerator, denominator = _list(value)
    top, bottom = int(_text(numerator), 16), int(_text(denominator), 16)
    _check_quick(top, bottom)
    return Fraction(top, bottom)


def _timedelta(value: object) -> timedelta:
    days, seconds, microseconds = _list(value)
    return timedelta(days, seconds, microseconds)


CONTAINERS: Final[Mapping[str, Callable[[list[Any]], Any]]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
SCALAR_DECODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "bytearray": lambda value: bytearray(_bytes(value)),
    "bytes": _bytes,
    "complex": _complex,
    "date": lambda value: date.fromisoformat(_text(value)),
    "decimal": lambda value: Decimal(_text(value)),
    "float": _float,
    "fraction": _fraction,
    "int": lambda value: int(_text(value), 16),
    "path": _path,
    "str": lambda value: _bytes(value).decode("utf-8", "surrogatepass"),
    "timedelta": _timedelta,
    "uuid": lambda value: UUID(_text(value)),
}
KNOWN_TAGS: Final = tuple(sorted({*CONTAINERS, *SCALAR_DECODERS, "dict", "datetime", "time"}))
