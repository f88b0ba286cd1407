"""Registered types: exact, or refused; looked up by name, never imported."""

from __future__ import annotations

import asyncio
import enum
import functools
import subprocess
import sys
from collections import namedtuple
from collections.abc import AsyncIterator, Callable
from dataclasses import InitVar, dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pydantic
import pytest

from checkpoint_plugin.codec import Codec, MalformedValue, TypeRefused, TypeRegistry, decode, encode
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable

T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    BLUE = (1, 2)
    CRIMSON = 1  # noqa: PIE796  an alias


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    A = "a"


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4
    BOTH = 3


class Open(enum.Enum):
    ONE = 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        made: Any = object.__new__(cls)
        made._name_, made._value_ = f"other {value}", value
        return made


class Loose(enum.IntFlag):
    A = 1
    B = 2


class Mode(enum.IntFlag):
    """Bits of which some have a name only together."""

    READ = 1
    GROUP = 0b1100
    ALL = 0b1101
    OTHERS = 0b110000


@dataclass
class Price:
    amount: int
    currency: Any = "EUR"


@dataclass(frozen=True, slots=True)
class Row:
    price: Any
    tags: list[str] = field(default_factory=list)
    kind: ClassVar[str] = "row"


@dataclass
class Area:
    width: int
    unit: InitVar[str]
    area: int = field(init=False)

    def __post_init__(self, unit: str) -> None:
        self.area = self.width * self.width

    @functools.cached_property
    def doubled(self) -> int:
        return 2 * self.area


class Point(NamedTuple):
    x: int
    y: Any = 0


Pair = namedtuple("Pair", "a b")


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    number: int = 1
    rows: list[Any] = []
    _seen: int = pydantic.PrivateAttr(default=4)
    _note: str = pydantic.PrivateAttr()

    @functools.cached_property
    def size(self) -> int:
        return len(self.rows)


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Box(pydantic.BaseModel, Generic[T]):
    content: T


@pydantic.dataclasses.dataclass
class Checked:
    a: int = pydantic.Field(default=3)
    b: list[int] = pydantic.Field(default_factory=list)


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    __hash__ = None  # type: ignore[assignment]


def make_registry() -> TypeRegistry:
    registry = TypeRegistry()
    for kind in (Colour, Level, Word, Right, Loose, Mode, Open, Price, Row, Area, Point, Pair, Order, Numbers, Box[int], Checked):
        registry.register(kind)
    registry.register(Money, encode=lambda money: money.cents, decode=Money)
    return registry


REGISTRY = make_registry()


def place() -> str:
    return "outputs"


def again(value: Any) -> Any:
    data = encode(value, place, REGISTRY)
    back = decode(data, REGISTRY)
    assert encode(back, place, REGISTRY) == data
    return back


def order() -> Order:
    made = Order(rows=[Point(1)], more={1: 2})  # type: ignore[call-arg]
    made._seen = 9
    return made


VALUES: list[Any] = [
    Colour.RED,
    Colour.BLUE,
    Level.LOW,
    Word.A,
    Right.READ,
    Right.BOTH,
    Right.READ | Right.RUN,
    Right(0),
    ~Right.READ,
    Loose.A | Loose.B,
    Mode.READ | Mode.GROUP,
    Mode.GROUP | Mode.OTHERS,
    Mode.READ | Mode.OTHERS,
    Price(1),
    Price(-1, Price(2, None)),
    Row(Price(1), ["a"]),
    Area(3, "m"),
    Point(1, (2, 3)),
    Pair({1}, Colour.RED),
    order(),
    Order(number=2),
    Numbers([1, 2]),
    Box[int](content=1),
    Checked(5),
    Money(3),
    {Colour.RED: {Point(1)}, Point(2): [Row(Word.A)]},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_they_come_back_equal_and_of_their_own_class(value: Any) -> None:
    back = again([value])[0]
    assert type(back) is type(value)
    assert back == value


def test_members_of_an_enum_are_the_members() -> None:
    assert again(Colour.CRIMSON) is Colour.RED
    assert again(Right.READ | Right.RUN) is Right.READ | Right.RUN


def test_computed_fields_come_back_as_they_were_and_caches_are_made_again() -> None:
    area = Area(3, "m")
    area.area = 77
    assert area.doubled == 154
    back = again(area)
    assert back.area == 77
    assert "doubled" not in vars(back)
    assert back.doubled == 154


def test_private_attributes_extra_values_and_what_was_set_come_back() -> None:
    back = again(order())
    assert (back._seen, back.more, back.model_fields_set) == (9, {1: 2}, {"rows", "more"})
    assert not hasattr(back, "_note")
    back._note = "x"
    assert again(back)._note == "x"
    assert again(Order()).model_fields_set == set()


def test_no_code_of_the_class_runs() -> None:
    ran = []

    class Loud(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def check(cls, x: int) -> int:
            ran.append("validator")
            return x

    @dataclass
    class Louder:
        x: int

        def __post_init__(self) -> None:
            ran.append("post_init")

    registry = TypeRegistry()
    registry.register(Loud)
    registry.register(Louder)
    values = [Loud(x=1), Louder(1)]
    data = encode(values, place, registry)
    ran.clear()
    assert decode(data, registry) == values
    assert ran == []


def refusal(value: Any, registry: TypeRegistry = REGISTRY) -> str:
    with pytest.raises(ValueNotStorable) as caught:
        encode(value, place, registry)
    return str(caught.value)


def test_the_path_goes_through_fields() -> None:
    assert refusal({"rows": [Row(0)] * 17 + [Row(Price(1, object()))]}).startswith("outputs['rows'][17].price.currency cannot")
    assert refusal(order().model_copy(update={"rows": [{"k": object()}]})).startswith("outputs.rows[0]['k'] cannot")
    assert refusal([Point(1, object())]).startswith("outputs[0].y cannot")


def with_attribute(value: Any, name: str, held: object) -> Any:
    object.__setattr__(value, name, held)
    return value


class Child(Price):
    pass


class Sub(Point):
    pass


def unset() -> Any:
    value = Price(1)
    del value.amount
    return value


def without_private() -> Any:
    value = Order()
    del value._seen
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Child(1), "Child is not one that can be stored. Register it"),
        (Sub(1), "Sub is not one that can be stored. Register it"),
        (with_attribute(Price(1), "note", 1), "its attribute 'note' is no field"),
        (unset(), "its field 'amount' is not set"),
        (Mode(0b101), "its flags 0x5 are not all members"),
        (Loose(8), "its flags 0x8 are not all members"),
        (Open(8), "'other 8' is none of the members of"),
        (Order.model_construct(), "cannot be stored"),
        (without_private(), "private attribute '_seen' was deleted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_not_come_back_exactly_is_refused(value: Any, words: str) -> None:
    if isinstance(value, Order) and words == "cannot be stored":
        del value.__dict__["number"]
        words = "its field 'number' is not set"
    assert words in refusal([value])


@dataclass
class Page(Generic[T]):
    items: list[T]


def test_a_generic_dataclass_is_made_without_its_types() -> None:
    registry = TypeRegistry()
    registry.register(Page)
    page = Page([1])
    assert decode(encode(page, place, registry), registry) == page
    message = refusal(Page[int]([1]), registry)
    assert f"it remembers that it was made as {__name__}.Page[int]" in message
    assert "Leave out what stands in the brackets" in message


async def given() -> int:
    return 1


async def yielded() -> AsyncIterator[int]:
    yield 1


async def test_what_was_not_awaited_or_iterated_says_so() -> None:
    coroutine = given()
    assert "An `await` is missing" in refusal([coroutine])
    task = asyncio.ensure_future(coroutine)
    assert "An `await` is missing" in refusal([task])
    await task
    for generator in ((letter for letter in "ab"), yielded()):
        assert "Yield its items" in refusal({"items": generator})


def test_what_is_unregistered_is_told_how_to_register_it() -> None:
    message = refusal({"a": Price(1)}, TypeRegistry())
    assert message == (
        f"outputs['a'] cannot be stored: its type {__name__}.Price is not one that can be stored. "
        "Register it: @checkpoint_plugin.register above the class, or in the hook register_codecs."
    )
    with pytest.raises(ValueNotReadable) as caught:
        decode(encode([Price(1)], place, REGISTRY), TypeRegistry())
    assert f"its type '{__name__}.Price' is not registered here" in str(caught.value)
    assert "checkpoint_plugin.register(" in str(caught.value)


def older(kind: type, written: Any, newer: type) -> Callable[[], Any]:
    """Reads what an older version of a class wrote with a newer one."""
    registry, today = TypeRegistry(), TypeRegistry()
    registry.register(kind, name="shop.Thing")
    today.register(newer, name="shop.Thing")
    data = encode(written, place, registry)
    return lambda: decode(data, today)


def test_fields_that_were_added_have_their_defaults() -> None:
    newer = make_dataclass("Thing", [("new", Any, field(default_factory=list)), ("amount", int), ("currency", str)], kw_only=True)
    assert older(Price, Price(5), newer)() == newer(new=[], amount=5, currency="EUR")
    wider = namedtuple("wider", "x y z", defaults=["z"])
    assert older(Point, Point(1, 2), wider)() == wider(1, 2, "z")
    model = pydantic.create_model("Thing", content=(int, ...), more=(list[int], pydantic.Field(default_factory=list)))
    back = older(Box[int], Box[int](content=4), model)()
    assert (back, back.model_fields_set) == (model(content=4), {"content"})
    bigger = pydantic.dataclasses.dataclass(make_dataclass("Thing", [("amount", int), ("currency", str), ("z", int, 4)]))
    assert older(Price, Price(5), bigger)().z == 4


@pytest.mark.parametrize(
    ("kind", "value", "newer", "words"),
    [
        (Price, Price(1), make_dataclass("Thing", [("amount", int)]), "has no field 'currency' any more"),
        (Point, Point(1), namedtuple("Thing", "x"), "has no field 'y' any more"),
        (Box[int], Box[int](content=1), pydantic.create_model("Thing"), "has no field 'content' any more"),
        (Order, Order(), pydantic.create_model("Thing", number=(int, 1), rows=(list[int], [])), "no private attribute '_seen'"),
        (Price, Price(1), make_dataclass("Thing", ["amount", "currency", "new"]), "Thing is newer than the value"),
        (Colour, Colour.BLUE, enum.Enum("Thing", ["RED"]), "has no member 'BLUE' any more"),
    ],
    ids=["dataclass", "tuple", "model", "private", "added", "enum"],
)
def test_what_is_gone_is_named(kind: type, value: Any, newer: type, words: str) -> None:
    with pytest.raises(ValueNotReadable) as caught:
        older(kind, value, newer)()
    assert words in str(caught.value)


def test_a_value_of_another_shape_is_malformed() -> None:
    with pytest.raises(MalformedValue):
        older(Colour, Colour.BLUE, Price)()
    with pytest.raises((MalformedValue, ValueNotReadable)):
        older(Price, Price(1), Colour)()


def test_functions_of_the_user_are_checked_before_anything_is_stored() -> None:
    registry = TypeRegistry()
    registry.register(Money, encode=lambda money: {"cents": money.cents}, decode=lambda parts: Money(0))
    assert Codec(registry).decode(Codec(registry).encode(Money(0), place)) == Money(0)
    assert "is another value" in refusal([Money(1)], registry)
    registry = TypeRegistry()
    registry.register(Money, encode=lambda money: money.cents, decode=lambda parts: parts)
    assert "gave int. Let it give exactly its own class" in refusal(Money(1), registry)
    registry = TypeRegistry()
    registry.register(Money, encode=lambda money: money.gone, decode=Money)
    assert "raised AttributeError" in refusal(Money(1), registry)
    registry = TypeRegistry()
    registry.register(Money, encode=lambda money: object(), decode=Money)
    assert "outputs cannot be stored: its type object" in refusal(Money(1), registry)


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def speechless(*arguments: Any) -> Any:
    raise Speechless


def test_an_error_of_the_user_whose_text_cannot_be_had_is_told_all_the_same() -> None:
    registry = TypeRegistry()
    registry.register(Money, encode=speechless, decode=Money)
    assert "raised Speechless: (its text cannot be had: RuntimeError)" in refusal(Money(1), registry)
    registry = TypeRegistry()
    registry.register(Money, encode=lambda money: money.cents, decode=speechless)
    assert "raised Speechless: (its text cannot be had: RuntimeError)" in refusal(Money(1), registry)
    newer = make_dataclass("Thing", ["amount", "currency", ("new", int, field(default_factory=speechless))])
    with pytest.raises(ValueNotReadable, match=r"raised Speechless: \(its text cannot be had"):
        older(Price, Price(1), newer)()


class WithNew:
    def __new__(cls) -> WithNew:
        return object.__new__(cls)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "can be stored already"),
        (object, "encode=… and decode=…"),
        (dataclass(type("Listed", (list,), {})), "built-in base"),
        (dataclass(WithNew), "__new__"),
        (1, "is not a class"),
    ],
    ids=["int", "object", "listed", "new", "instance"],
)
def test_classes_that_cannot_be_exact_are_refused(kind: Any, words: str) -> None:
    with pytest.raises(TypeRefused, match=words):
        TypeRegistry().register(kind)


def test_a_name_has_one_owner() -> None:
    registry = TypeRegistry()
    registry.register(Price, name="x")
    with pytest.raises(TypeRefused, match="belongs to"):
        registry.register(Colour, name="x")
    with pytest.raises(TypeRefused, match="printable"):
        registry.register(Colour, name="")
    with pytest.raises(TypeRefused, match="belong together"):
        registry.register(Money, encode=str)


def test_a_class_that_is_defined_again_takes_over_and_the_older_is_refused() -> None:
    def define() -> type:
        @dataclass
        class Again:
            x: int

        return Again

    registry = TypeRegistry()
    old, new = registry.register(define()), registry.register(define())
    assert decode(encode(new(1), place, registry), registry) == new(1)
    assert "Again is not one that can be stored" in refusal(old(1), registry)


def test_a_registry_asks_its_parent() -> None:
    child = TypeRegistry(REGISTRY)
    assert decode(encode(Price(1), place, child), child) == Price(1)
    child.register(Price, name="price", formerly=[f"{__name__}.Price"])
    assert b"price" in encode(Price(1), place, child)
    assert decode(encode(Price(1), place, REGISTRY), child) == Price(1)
    with pytest.raises(ValueNotReadable):
        decode(encode(Price(1), place, child), REGISTRY)


def test_one_text_is_no_list_of_older_names() -> None:
    with pytest.raises(TypeRefused, match=r"formerly is a list of names, not the text 'old\.Price'"):
        TypeRegistry().register(Price, formerly="old.Price")


def test_the_limit_on_a_value() -> None:
    codec = Codec(TypeRegistry(), max_value_bytes=1_000)
    assert codec.decode(codec.encode("x" * 900, place)) == "x" * 900
    for value in ("x" * 1_000, ("x" * 1_000,)):
        with pytest.raises(ValueNotStorable, match=r"outputs cannot be stored: it takes 1,0\d\d bytes, and the limit is 1,000"):
            codec.encode(value, place)


@pytest.mark.parametrize("make", [lambda x: [x, x], lambda x: (x, x), lambda x: {"a": x, "b": x}, lambda x: {1: x, 2: x}])
def test_a_value_without_end_is_refused_before_it_is_written_out(make: Callable[[Any], Any]) -> None:
    value: Any = "x"
    for _ in range(60):  # 2**60 parts, in 60 containers
        value = make(value)
    codec = Codec(TypeRegistry(), max_value_bytes=10_000)
    with pytest.raises(ValueNotStorable, match="outputs cannot be stored: it takes more than 10,000 bytes, and the limit"):
        codec.encode(value, lambda: "outputs")
    small: Any = "x"
    for _ in range(8):
        small = make(small)
    assert codec.decode(codec.encode(small, str)) == small


def test_values_that_are_read_back_can_hold_one_another() -> None:
    deep: Any = "leaf"
    for _ in range(60):
        deep = Money(deep)
    assert decode(encode(deep, place, REGISTRY), REGISTRY).cents.cents.cents is not None  # once this took 2 ** 60 checks


@pytest.mark.parametrize(
    "shell", [Price, Point, lambda item: Numbers.model_construct([item]), Money, lambda item: Order.model_construct(rows=[item])]
)
def test_what_is_stored_at_the_deepest_can_be_read(shell: Callable[[Any], Any]) -> None:
    deep: Any = "leaf"
    for _ in range(49):
        deep = shell(deep)
    with pytest.raises(ValueNotStorable, match="nested deeper"):  # noqa: PT012  the depth at which it is refused is the shell's
        for _ in range(60):
            data = encode(deep, place, REGISTRY)
            assert encode(decode(data, REGISTRY), place, REGISTRY) == data
            deep = shell(deep)


PROGRAM = """
from __future__ import annotations
import dataclasses, sys
import checkpoint_plugin
assert "ormsgpack" not in sys.modules and "pydantic" not in sys.modules and "sqlalchemy" not in sys.modules

@checkpoint_plugin.register
@dataclasses.dataclass
class Thing:
    x: int

@checkpoint_plugin.register(name="named")
@dataclasses.dataclass
class Named:
    x: int

def write():
    from checkpoint_plugin.codec import encode
    return encode([Thing(1), Named(2)], str).hex()

if __name__ == "__main__":
    import multiprocessing
    if "spawn" in sys.argv:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(write))
    else:
        print(write())
"""


def test_the_name_of_a_script_is_that_of_its_file_however_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PROGRAM)
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, cwd=tmp_path)
    written = run([sys.executable, "shop.py"]).stdout.strip()
    read = f"import shop\nfrom checkpoint_plugin.codec import decode\nprint(decode(bytes.fromhex('{written}')))"
    assert run([sys.executable, "-c", read]).stdout == "[Thing(x=1), Named(x=2)]\n"
    assert run([sys.executable, "-m", "shop"]).stdout.strip() == written
    assert run([sys.executable, "shop.py", "spawn"]).stdout.strip() == written
