"""Values of every kind that can be stored, and some that cannot: generated from a seed."""

from __future__ import annotations

import enum
import importlib.util
import math
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic

from checkpoint_plugin.codec import TypeRegistry

__all__ = ["EXTRAS", "Values", "alike", "make_registry"]

EXTRAS: Final = tuple(name for name in ("numpy", "pandas", "pyarrow", "PIL") if importlib.util.find_spec(name))


class Colour(enum.Enum):
    RED = 1
    BLUE = (1, 2)


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclass
class Row:
    key: Any
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cell:
    value: Any = None


class Pair(NamedTuple):
    left: Any
    right: Any


class Form(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: Any = None
    _note: Any = pydantic.PrivateAttr(default=None)


class Money:
    def __init__(self, cents: Any) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and alike(self.cents, other.cents)

    __hash__ = None  # type: ignore[assignment]


class Stranger(str):
    """A type that nobody registered."""


def make_registry() -> TypeRegistry:
    """A registry of the classes above, but for the stranger."""
    registry = TypeRegistry()
    for kind in (Colour, Right, Row, Cell, Pair, Form):
        registry.register(kind, name=f"test.{kind.__name__}")
    registry.register(Money, name="test.Money", encode=lambda money: [money.cents], decode=lambda parts: Money(*parts))
    return registry


PLAIN: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    2**63,
    2**64,
    -(2**63) - 1,
    -(10**400),
    -0.0,
    math.inf,
    math.nan,
    5e-324,
    "",
    "a\0b",
    "\ud800",
    "né\U0001f600",
    b"\xff\x00",
    bytearray(b"ab"),
    (),
    frozenset(),
    {"$type": "tuple", "value": [1]},
    {"\ud800": 1},
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, seconds=1))),
    datetime(2026, 1, 2, tzinfo=UTC),
    date(9999, 12, 31),
    time(1, 2, 3, 4),
    timedelta(days=-999999999),
    UUID(int=5),
    Decimal("-0.10"),
    Decimal("sNaN"),
    Fraction(-1, 3),
    complex(-0.0, math.nan),
    Path("/a/b"),
    PurePosixPath("a"),
    PureWindowsPath("C:/x"),
    Colour.BLUE,
    Right.READ | Right.RUN,
)


class Values:
    """Makes values.

    Args:
        seed: of all of them.
        strange: how often a part is made that cannot be stored.
    """

    def __init__(self, seed: int, strange: float = 0.0) -> None:
        self._rng = random.Random(seed)
        self._strange = strange

    def make(self, depth: int = 0) -> Any:
        """One value."""
        rng = self._rng
        if rng.random() < self._strange:
            return rng.choice([Stranger("x"), object(), OrderedDict(), len, Right(8), iter([]), Ellipsis])
        if depth > 3 or rng.random() < 0.35:
            return rng.choice(self._leaves())()
        items = [self.make(depth + 1) for _ in range(rng.randrange(5))]
        return rng.choice(self._shells())(items)

    def _leaves(self) -> list[Callable[[], Any]]:
        rng = self._rng
        leaves: list[Callable[[], Any]] = [
            lambda: rng.choice(PLAIN),
            lambda: rng.randrange(-(2**80), 2**80),
            lambda: rng.random() * 10 ** rng.randrange(-300, 300),
            lambda: "".join(chr(rng.randrange(0x11000)) for _ in range(rng.randrange(8))),
            lambda: rng.randbytes(rng.randrange(200)),
            lambda: {"$type": rng.choice(["tuple", "set", 17, None]), "value": [1], 17: "test.Row"},
        ]
        return leaves + [partial(make, rng) for name, make in LIBRARIES.items() if name in EXTRAS and rng.random() < 0.2]

    def _shells(self) -> list[Callable[[list[Any]], Any]]:
        return [
            list,
            tuple,
            lambda items: {str(place): item for place, item in enumerate(items)},
            lambda items: dict(zip(filter(is_hashable, items), reversed(items), strict=False)),
            lambda items: set(filter(is_hashable, items)),
            lambda items: frozenset(filter(is_hashable, items)),
            lambda items: Row(items[:1], items),
            lambda items: Cell(items),
            lambda items: Pair(items, items[:1]),
            self._form,
            lambda items: Money(items),
            self._deep,
        ]

    def _form(self, items: list[Any]) -> Form:
        form = Form(**{f"more{place}": item for place, item in enumerate(items[1:])}, **({"name": items} if items else {}))
        form._note = items[:1]
        return form

    def _deep(self, items: list[Any]) -> Any:
        for _ in range(self._rng.randrange(10)):
            items = [items] if self._rng.random() < 0.5 else [(items,)]
        return items


def _numpy(rng: random.Random) -> Any:
    import numpy

    dtype = rng.choice(["<i4", ">f8", "|b1", "<c8", "<U3", "|S2", "<M8[us]", "<f2", [("a", "i1"), ("b", ">f4", 2)]])
    shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
    made = numpy.frombuffer(rng.randbytes(2000), "u1").astype("i1")[: math.prod(shape)].reshape(shape)
    array = numpy.zeros(shape, dtype, order=rng.choice("CF"))
    if array.dtype.names is None:
        array[...] = made.astype(array.dtype) if array.dtype.kind not in "M" else made.astype("M8[us]")
    return array if array.ndim else array[()] if rng.random() < 0.5 else array


def _pandas(rng: random.Random) -> Any:
    import pandas

    rows = rng.randrange(4)
    columns: dict[Any, Any] = {
        "f": [rng.choice([1.5, math.nan, -0.0]) for _ in range(rows)],
        ("t", 1): pandas.Series([rng.choice([1, "x", None, (2,)]) for _ in range(rows)], dtype=object),
        3: pandas.Series([rng.choice(["a", None]) for _ in range(rows)], dtype="string"),
        "i": pandas.array([rng.choice([1, None]) for _ in range(rows)], dtype="Int16"),
        "d": pandas.date_range("2020", periods=rows, tz=rng.choice([None, "Europe/Berlin"])),
        "c": pandas.Categorical([rng.choice("ab") for _ in range(rows)]),
    }
    frame = pandas.DataFrame({name: columns[name] for name in rng.sample(list(columns), rng.randrange(1, 6))})
    return frame if rng.random() < 0.6 else frame.iloc[:, 0]


def _pyarrow(rng: random.Random) -> Any:
    import pyarrow

    return pyarrow.table({"a": [rng.choice([1, None]) for _ in range(3)], "f": [rng.choice([math.nan, -0.0])] * 3})


def _image(rng: random.Random) -> Any:
    from PIL import Image

    mode = rng.choice(["L", "RGB", "RGBA", "F", "I;16"])
    size = (rng.randrange(5), rng.randrange(5))
    bands = {"L": 1, "RGB": 3, "RGBA": 4, "F": 4, "I;16": 2}[mode]
    return Image.frombytes(mode, size, rng.randbytes(size[0] * size[1] * bands)) if all(size) else Image.new(mode, size)


LIBRARIES: Final[dict[str, Callable[[random.Random], Any]]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "pyarrow": _pyarrow,
    "PIL": _image,
}


def is_hashable(value: Any) -> bool:
    """Whether it can be a key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def alike(a: Any, b: Any) -> bool:
    """Equal and of the same type all the way down, NaN equal to itself, -0.0 not to 0.0, the order of dicts counted."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isnan(b) if math.isnan(a) else (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return alike(a.real, b.real) and alike(a.imag, b.imag)
    if isinstance(a, Decimal):
        return str(a) == str(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return alike(list(a), list(b)) and alike(list(a.values()), list(b.values()))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(alike(x, y) for y in b) for x in a)
    if isinstance(a, datetime | time):
        return a == b and a.fold == b.fold and repr(a.tzinfo) == repr(b.tzinfo)
    if isinstance(a, Row | Cell):
        return all(alike(getattr(a, name), getattr(b, name)) for name in type(a).__dataclass_fields__)
    if isinstance(a, Form):
        states = ("__dict__", "__pydantic_extra__", "__pydantic_private__", "__pydantic_fields_set__")
        return all(alike(getattr(a, name), getattr(b, name)) for name in states)
    return _alike_of_library(a, b) if type(a).__module__.partition(".")[0] in EXTRAS else bool(a == b)


def _alike_of_library(a: Any, b: Any) -> bool:
    kind = type(a).__name__
    if kind in ("DataFrame", "Series"):
        same = a.index.identical(b.index) and a.equals(b)
        columns = [(a, b)] if kind == "Series" else [(a.iloc[:, i], b.iloc[:, i]) for i in range(a.shape[1])]
        named = alike(a.name, b.name) if kind == "Series" else a.columns.identical(b.columns)
        return bool(
            same and named and all(x.dtype == y.dtype and (x.dtype != object or alike(list(x), list(y))) for x, y in columns)
        )
    if kind == "Table":
        return bool(a.schema.equals(b.schema, check_metadata=True)) and alike(a.to_pylist(), b.to_pylist())
    if kind == "Image":
        return bool(a == b)
    same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(same and a.flags.f_contiguous == b.flags.f_contiguous)
