from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from hookspecs import TaggedValueError, dumps_tagged, from_tagged, loads_tagged, to_tagged


class Colour(IntEnum):
    RED = 1


class Text(str):
    pass


class Elsewhere(tzinfo):
    def utcoffset(self, moment: datetime | None, /) -> timedelta:
        return timedelta(hours=1)

    def dst(self, moment: datetime | None, /) -> None:
        return None

    def tzname(self, moment: datetime | None, /) -> None:
        return None


VALUES: list[Any] = [
    None,
    True,
    0,
    -(2**70),
    2**20_000,
    1.0,
    -0.0,
    1e300,
    math.inf,
    -math.inf,
    "",
    "NUL \0, lone \ud800 and \udc80, two that make a pair \ud83d\ude00, one \U0001f600",
    b"\0\xff",
    bytearray(b"abc"),
    [],
    [1, [2.5, "x", None]],
    (),
    (1, (2, [3])),
    {1, 2, 3},
    set(),
    frozenset({(1, 2), "a"}),
    {"a": 1, "b": [1]},
    {1: "a", (2, 3): "b", None: 4, 1.5: {}},
    {"$type": "tuple", "value": [1]},
    {"$type": 5},
    {"\ud83d\ude00": 1},
    ["\ud83d\ude00"],
    {"pair": "\ud83d\ude00"},
    datetime(2026, 1, 2, 3, 4, 5, 678),
    datetime(2026, 1, 2, tzinfo=UTC),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3, minutes=-30, seconds=1))),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(seconds=-1, microseconds=-1))),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    date(1, 1, 1),
    time(23, 59, 59, 999_999),
    time(1, tzinfo=UTC),
    timedelta(days=-1, microseconds=1),
    timedelta.max,
    UUID(int=7),
    Decimal("-0.00"),
    Decimal("1E+1000"),
    Decimal("Infinity"),
    Fraction(-(2**70), 3),
    complex(-0.0, math.inf),
    Path("../a b/\udcff"),
    Path(),
    [float("inf"), {"x": (Decimal(1), {b"k": frozenset({Fraction(1, 2)})})}],
]


def same(left: Any, right: Any) -> bool:
    """Equal and of the same type, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b) for pair, other in zip(left.items(), right.items(), strict=True) for a, b in zip(pair, other, strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float | complex | Decimal):
        return repr(left) == repr(right)
    if isinstance(left, datetime):
        return bool(left == right) and left.fold == right.fold and type(left.tzinfo) is type(right.tzinfo)
    return bool(left == right)


@pytest.mark.parametrize(
    "value", [pytest.param(value, id=f"{place}-{type(value).__name__}") for place, value in enumerate(VALUES)]
)
def test_a_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    text = dumps_tagged(value)
    assert text.isascii()
    assert same(loads_tagged(text), value)


def test_nan_and_a_signalling_nan_come_back() -> None:
    assert math.isnan(loads_tagged(dumps_tagged(math.nan)))
    assert loads_tagged(dumps_tagged(Decimal("sNaN12"))).compare_total(Decimal("sNaN12")) == 0


def test_the_shapes_that_the_interface_fixes() -> None:
    assert to_tagged(math.nan) == {"$type": "float", "value": "nan"}
    assert to_tagged((1, 2)) == {"$type": "tuple", "value": [1, 2]}
    assert to_tagged(b"abc") == {"$type": "bytes", "value": "YWJj"}
    assert to_tagged({1: 2}) == {"$type": "dict", "value": [[1, 2]]}
    assert to_tagged({"$type": 1}) == {"$type": "dict", "value": [["$type", 1]]}
    assert to_tagged(2**70) == 2**70
    assert dumps_tagged({"a": "é"}) == '{"a": "\\u00e9"}'
    assert dumps_tagged({"a": "é"}, indent=1) == '{\n "a": "\\u00e9"\n}'


def test_no_nan_token_is_ever_written() -> None:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    json.loads(dumps_tagged([math.nan, math.inf, -math.inf, complex(math.nan, 0)]), parse_constant=refuse)


def test_the_order_of_a_set_does_not_reach_the_text() -> None:
    words = [f"word {number}" for number in range(50)]
    assert dumps_tagged(set(words)) == dumps_tagged({*words[::-1]})
    assert to_tagged({"b", "a"}) == {"$type": "set", "value": ["a", "b"]}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "value:"),
        ({"orders": [0, {"price": object()}]}, "value['orders'][1]['price']:"),
        ({(1, object()): 1}, "value[(1, "),
        (Colour.RED, "value:"),
        (Text("x"), "value:"),
        ([OrderedDict()], "value[0]:"),
        (datetime(2026, 1, 1, tzinfo=Elsewhere()), "Elsewhere"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=1))), "less than a second from UTC"),
        (time(1, tzinfo=timezone(timedelta(microseconds=-1))), "less than a second from UTC"),
        (range(3), "value:"),
    ],
)
def test_what_has_no_form_is_refused_with_its_place(value: object, place: str) -> None:
    with pytest.raises(TaggedValueError) as caught:
        to_tagged(value)
    assert place in str(caught.value)


def test_a_value_inside_itself_and_a_very_deep_one_are_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for value in (ring, deep):
        with pytest.raises(TaggedValueError, match="deeper than 200 levels"):
            to_tagged(value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: {1: value},
        lambda value: {"a": value},
        lambda value: (value,),
        lambda value: [value],
        lambda value: frozenset({value}),
    ],
)
def test_the_deepest_value_that_is_taken_comes_back(wrap: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(200):
        value = wrap(value)
    assert same(loads_tagged(dumps_tagged(value)), value)
    for more in (1, 1_000):
        for _ in range(more):
            value = wrap(value)
        with pytest.raises(TaggedValueError, match="deeper than 200 levels"):
            to_tagged(value)


@pytest.mark.parametrize("levels", [1, 900])
def test_a_path_holds_no_path(levels: int) -> None:
    text = '{"$type": "path", "value": ' * levels + '{"$type": "path", "value": "a"}' + "}" * levels
    with pytest.raises(TaggedValueError, match='not a valid "path": text expected, found dict'):
        loads_tagged(text)


@pytest.mark.parametrize("levels", [201, 499, 900])
def test_a_document_that_is_too_deep_is_refused(levels: int) -> None:
    plain: Any = 1
    tagged: Any = 1
    for _ in range(levels):
        plain, tagged = [plain], {"$type": "tuple", "value": [tagged]}
    for document in (plain, tagged):
        with pytest.raises(TaggedValueError, match="deeper than 200 levels"):
            from_tagged(document)


@pytest.mark.parametrize(
    "document",
    [
        {"$type": "os.system", "value": "true"},
        {"$type": "tuple"},
        {"$type": "tuple", "value": 1},
        {"$type": "tuple", "value": "ab"},
        {"$type": "set", "value": {"a": 1}},
        {"$type": "tuple", "value": [], "more": 1},
        {"$type": ["tuple"], "value": []},
        {"$type": "float", "value": "1.5"},
        {"$type": "bytes", "value": "not base64!"},
        {"$type": "bytes", "value": "YW!Jj"},
        {"$type": "bytes"},
        {"$type": "bytes", "value": "YWJj", "zone": "UTC"},
        {"$type": "datetime"},
        {"$type": "datetime", "value": "2026-01-01T00:00:00", "more": 1},
        {"$type": "dict", "value": [], "more": 1},
        {"$type": "dict", "value": {"ab": 1}},
        {"$type": "dict", "value": ["ab"]},
        {"$type": "complex", "value": "12"},
        {"$type": "date", "value": "yesterday"},
        {"$type": "datetime", "value": "2026-01-01T00:00:00", "zone": "../../etc/passwd"},
        {"$type": "datetime", "value": "2026-01-01T00:00:00", "zone": "Europe"},
        {"$type": "datetime", "value": "2026-01-01T00:00:00", "zone": "Nowhere/City"},
        {"$type": "decimal", "value": "one"},
        {"$type": "fraction", "value": ["0x1", "0x0"]},
        {"$type": "uuid", "value": "1"},
        {"$type": "dict", "value": [[1]]},
        {"$type": "dict", "value": [[[1], 2]]},
        {"$type": "set", "value": [[1]]},
        {"$type": "timedelta", "value": [10**12, 0, 0]},
    ],
)
def test_a_malformed_document_is_refused_with_its_place(document: object) -> None:
    with pytest.raises(TaggedValueError, match=r"value\['a'\]\[0\]"):
        from_tagged({"a": [document]})


def test_a_fraction_that_takes_long_to_reduce_is_refused_both_ways() -> None:
    top, bottom = 2**300_000 + 1, 2**300_000
    with pytest.raises(TaggedValueError, match="too long to be reduced"):
        from_tagged({"$type": "fraction", "value": [hex(top), hex(bottom)]})
    with pytest.raises(TaggedValueError, match=r"value\['a'\].*too long to be reduced"):
        to_tagged({"a": Fraction(top, bottom)})
    long = Fraction(2**100_000 + 1, 2**100_000)
    assert from_tagged(to_tagged(long)) == long


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TaggedValueError, match="not JSON"):
        loads_tagged("{")
    with pytest.raises(TaggedValueError, match="set is not JSON"):
        from_tagged({1})
    with pytest.raises(TaggedValueError):
        loads_tagged("[" * 100_000)
