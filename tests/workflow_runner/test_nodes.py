"""How nodes are written, and what a body is given."""

from __future__ import annotations

import asyncio
import functools
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import field
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import pytest
from typing_extensions import TypeAliasType

from workflow_runner import (
    Context,
    Graph,
    GraphInvalid,
    ItemTypeError,
    Node,
    NodeDefinitionError,
    NodeFailed,
    NodeProtocolError,
    Stream,
    ThreadContext,
    WorkflowRunner,
    node,
)
from workflow_runner.actor import Actor
from workflow_runner.checker import Mismatch, make_checker
from workflow_runner.errors import NodeModuleError
from workflow_runner.registry import load_node_module


async def outputs(graph: Graph, **settings: Any) -> dict[str, list[Any]]:
    return (await WorkflowRunner(**settings).run(graph)).outputs


async def failure(graph: Graph, **settings: Any) -> tuple[str, BaseException]:
    with pytest.raises(NodeFailed) as caught:
        await WorkflowRunner(**settings).run(graph)
    assert caught.value.__cause__ is not None
    return caught.value.node_id, caught.value.__cause__


@node
async def give(value: Any) -> Any:
    return value


@node
async def each(values: list) -> AsyncIterator[Any]:  # type: ignore[type-arg]
    for value in values:
        yield value


@node
async def nothing(x: int) -> None:
    """Emits None."""


@node(outputs=("word", "count"))
def split(text: str) -> dict[str, Any]:
    return {"word": text.split()[0], "count": len(text.split())} if text else {}


@node(outputs=("a", "b"))
async def extra(x: int) -> dict[str, int]:
    return {"a": 1, "c": 2}


@node(outputs=("a",))
async def no_mapping(x: int) -> Any:
    return 3


class Resize(Node):
    width: int
    height: int = 3

    async def process(self, context: Context) -> int:
        context.commit((context.state or 0) + 1)
        firings: int = context.state
        return self.width * self.height * firings


class Shout(Node, type="shout.it", outputs=("loud",)):
    text: str

    def process(self) -> dict[str, str]:
        return {"loud": self.text.upper()}


async def test_functions_and_classes() -> None:
    graph = Graph()
    words = graph.add(split, text=graph.add(each, values=["one two", "", "three"]))
    graph.output("word", words["word"])
    graph.output("count", words["count"])
    graph.output("none", graph.add(nothing, x=1))
    graph.output("size", graph.add(Resize, width=graph.add(each, node_id="w", values=[1, 2])))
    graph.output("loud", graph.add(Shout, text="a")["loud"])
    assert await outputs(graph) == {"word": ["one", "three"], "count": [2, 1], "none": [None], "size": [3, 12], "loud": ["A"]}
    assert {spec.type for spec in graph.nodes} >= {f"{__name__}.split", f"{__name__}.Resize", "shout.it"}


class Scaled(Node):
    factor: int = 2
    width: int

    async def process(self, context: Context, more: int = 1) -> int:
        return self.factor * self.width * more


async def test_a_field_with_a_default_may_stand_before_one_that_must_be_given() -> None:
    graph = Graph()
    graph.output("size", graph.add(Scaled, width=3))
    assert await outputs(graph) == {"size": [6]}
    graph.add(Scaled, node_id="lacks", factor=3)
    with pytest.raises(GraphInvalid, match="node 'lacks': input 'width' is missing"):
        await outputs(graph)


async def test_a_decorated_function_stays_a_function() -> None:
    assert await give(3) == 3
    assert split("x y") == {"word": "x", "count": 2}


async def test_a_frozen_instance_for_each_firing() -> None:
    class Sneaky(Node):
        x: int

        async def process(self) -> int:
            self.x = 5  # type: ignore[misc]
            return 1

    graph = Graph()
    graph.add(Sneaky, node_id="s", x=1)
    assert (await failure(graph))[0] == "s"


class Gather(Node):
    x: int
    seen: list[int] = field(default_factory=list)

    async def process(self) -> list[int]:
        self.seen.append(self.x)
        return self.seen


async def test_a_default_that_a_factory_makes_is_a_new_one_for_each_firing() -> None:
    graph = Graph()
    graph.output("seen", graph.add(Gather, x=graph.add(each, values=[1, 2])))
    for _ in range(2):
        assert await outputs(graph) == {"seen": [[1], [2]]}


class Count(Node):
    x: int
    more: Stream[int] = field(default_factory=list)  # type: ignore[arg-type]

    async def process(self) -> int:
        return len(self.more)  # type: ignore[arg-type]


async def test_a_default_that_a_factory_makes_stands_for_a_stream_too() -> None:
    graph = Graph()
    graph.output("count", graph.add(Count, x=1))
    assert await outputs(graph) == {"count": [0]}


class Area(Node):
    width: int
    area: int = field(init=False)
    unit: str = field(init=False, default="cm2")

    def __post_init__(self) -> None:
        object.__setattr__(self, "area", self.width**2)

    async def process(self) -> str:
        return f"{self.area} {self.unit}"


async def test_a_field_that_the_class_makes_itself_is_no_input() -> None:
    graph = Graph()
    graph.output("area", graph.add(Area, width=3))
    assert await outputs(graph) == {"area": ["9 cm2"]}
    graph.add(Area, node_id="wrong", width=3, unit="m2")
    with pytest.raises(GraphInvalid, match="unknown property 'unit'"):
        await outputs(graph)


@pytest.mark.parametrize(("broken", "text"), [(extra, "unknown output 'c'"), (no_mapping, "int (3)")])
async def test_mappings_of_outputs_are_checked(broken: Any, text: str) -> None:
    graph = Graph()
    graph.add(broken, node_id="n", x=1)
    node_id, cause = await failure(graph)
    assert node_id == "n"
    assert isinstance(cause, NodeProtocolError)
    assert text in str(cause)


def test_what_cannot_be_a_node_is_refused_by_name() -> None:
    with pytest.raises(NodeDefinitionError, match=r"star.*\*?rest|'rest'"):

        @node
        async def star(*rest: int) -> None: ...

    with pytest.raises(NodeDefinitionError, match="takes a function"):
        node(3)  # type: ignore[call-overload]
    with pytest.raises(NodeDefinitionError, match=r"only a `def` body is given a ThreadContext\. Annotate 'told' with Context"):

        @node
        async def awaits(told: ThreadContext) -> None: ...

    with pytest.raises(NodeDefinitionError, match=r"process: only a `def` body is given a ThreadContext"):

        class Awaits(Node):
            async def process(self, context: ThreadContext) -> None: ...

    for outputs in ("word", ("word", "word"), ("word", ""), ("word", 2)):
        with pytest.raises(NodeDefinitionError, match="text: outputs are different names"):

            @node(outputs=outputs)  # type: ignore[arg-type]
            async def text() -> None: ...

    with pytest.raises(NodeDefinitionError, match=r"Called\.process is not a method"):

        class Called(Node):
            process = len

    with pytest.raises(NodeDefinitionError, match=r"Asks\.process takes self and the context\. Make other parameters fields"):

        class Asks(Node):
            async def process(self, context: Context, more: int) -> None: ...

    with pytest.raises(NodeDefinitionError, match=r"Unknown: the annotations name something that is not defined .*'Nowhere'"):

        class Unknown(Node):
            x: Nowhere  # type: ignore[name-defined]  # noqa: F821

            async def process(self) -> None: ...

    with pytest.raises(NodeDefinitionError, match=r"is not a node\. Decorate the function"):
        Graph().add(len)


class Bodiless(Node):
    x: int

    async def proces(self) -> int:
        return self.x


class Whole(Bodiless):
    async def process(self) -> int:
        return self.x


@pytest.mark.parametrize(
    ("item", "mend"),
    [(Bodiless, "async def process"), (Bodiless(x=1), "async def process"), (Whole(x=1), r"add\(Whole, \.\.\.\)")],
    ids=["no body", "instance without body", "instance"],
)
def test_a_class_that_is_added_wrongly_is_told_how_to_add_it(item: Any, mend: str) -> None:
    with pytest.raises(NodeDefinitionError, match=f"is not a node.*{mend}"):
        Graph().add(item)


# Items and annotations.


@node
async def want_float(x: float) -> Any:
    return x


@node
async def want_ints(x: list[int]) -> Any:
    return x


@node
async def want_choice(x: Literal["a", "b"] | None) -> Any:
    return x


@node
async def want_one(x: Literal[1]) -> Any:
    return x


@node
async def want_a_list(x: list) -> Any:  # type: ignore[type-arg]
    return x


@node
async def want_ints_or_nothing(x: list[int] | None = None) -> Any:
    return x


@pytest.mark.parametrize("wants", [want_ints, want_a_list, want_ints_or_nothing])
@pytest.mark.parametrize("validate", ["shallow", "deep"])
async def test_a_list_of_any_kind_is_made_of_several_edges(wants: Any, validate: Literal["shallow", "deep"]) -> None:
    graph = Graph()
    graph.output("out", graph.add(wants, x=[graph.add(give, value=2), graph.add(give, value=1)]))
    assert await outputs(graph, validate=validate) == {"out": [[2, 1]]}


@pytest.mark.parametrize("validate", ["shallow", "deep"])
async def test_an_int_becomes_a_float_and_nothing_else_changes(validate: Literal["shallow", "deep"]) -> None:
    same = [1, 2] if validate == "deep" else [1, "2"]
    graph = Graph()
    graph.output("f", graph.add(want_float, x=graph.add(give, node_id="g1", value=3)))
    graph.output("l", graph.add(want_ints, x=graph.add(give, node_id="g2", value=same)))
    graph.output("c", graph.add(want_choice, x=graph.add(each, values=["a", None])))
    found = await outputs(graph, validate=validate)
    assert type(found["f"][0]) is float
    assert found["l"][0] == same
    assert found["c"] == ["a", None]


@pytest.mark.parametrize(
    ("wants", "value"),
    [
        (want_float, "x"),
        (want_float, True),
        (want_float, 10**400),
        (want_ints, (1,)),
        (want_choice, "c"),
        (want_one, True),
        (want_one, 1.0),
    ],
)
async def test_an_item_of_another_type_fails_the_receiver(wants: Any, value: Any) -> None:
    graph = Graph()
    graph.add(wants, node_id="n", x=graph.add(give, value=value))
    node_id, cause = await failure(graph)
    assert (node_id, type(cause)) == ("n", ItemTypeError)
    assert "handle 'x': expected" in str(cause)


@node
async def reads_ints(x: Stream[int]) -> None:
    async for _ in x:
        pass


@node(stateless=True)
async def reads_ints_one_by_one(x: Stream[int]) -> None:
    async for _ in x:
        pass


@pytest.mark.parametrize("body", [reads_ints, reads_ints_one_by_one])
@pytest.mark.parametrize("retries", [0, 1], ids=["nothing is remembered", "each item is remembered"])
async def test_an_item_of_another_type_fails_the_body_that_reads_it(body: Any, retries: int) -> None:
    graph = Graph()
    graph.add(body, node_id="n", failure={"retries": retries}, x=graph.add(each, values=[1, 2, 3, "4"]))
    node_id, cause = await failure(graph)
    assert (node_id, type(cause)) == ("n", ItemTypeError)


@node
async def want_them_one_by_one(x: AsyncIterator[int]) -> None: ...


@pytest.mark.parametrize(
    ("wants", "advice"),
    [
        (want_ints, "One edge brings the list itself, only several make one of a value each."),
        (want_them_one_by_one, r"A body that reads the items of an edge takes a Stream\[...\]."),
        (want_float, "Change what is sent there, or the annotation."),
    ],
)
async def test_an_item_where_several_were_meant_is_told_how_to_ask_for_them(wants: Any, advice: str) -> None:
    graph = Graph()
    graph.add(wants, node_id="n", x=[graph.add(each, values=["a", "b"])])
    _, cause = await failure(graph)
    assert re.search(rf"got str \('a'\). {advice}", str(cause))


def price_of_a_shop() -> type:
    """A class that is defined anew at each call, as by a cell that is run again."""

    class Price: ...

    return Price


async def test_an_item_of_a_class_that_was_defined_twice_is_told_so() -> None:
    older, newer = price_of_a_shop(), price_of_a_shop()

    async def want_price(x: Any) -> None: ...

    want_price.__annotations__["x"] = older
    graph = Graph()
    graph.add(node(want_price), node_id="n", x=graph.add(give, value=newer()))
    _, cause = await failure(graph)
    assert "expected Price, got Price" in str(cause)
    assert "It is of another class of that name" in str(cause)


async def test_deep_validation_looks_inside() -> None:
    graph = Graph()
    graph.add(want_ints, node_id="n", x=graph.add(give, value=[1, "2"]))
    await outputs(graph)
    _, cause = await failure(graph, validate="deep")
    assert isinstance(cause, ItemTypeError)
    assert str(cause).endswith("got list ([1, '2']). Change what is sent there, or the annotation.")
    graph = Graph()
    graph.add(want_ints, node_id="n", x=[graph.add(give, "a", value=1), graph.add(give, "b", value="2")])  # a list that we make
    await outputs(graph)
    assert isinstance((await failure(graph, validate="deep"))[1], ItemTypeError)


@node
async def adds_all(x: int, xs: Iterable[int]) -> int:
    return x + sum(xs)


async def test_a_property_that_is_iterated_is_there_for_every_firing() -> None:
    graph = Graph()
    graph.output("out", graph.add(adds_all, x=graph.add(several, n=3), xs=[1, 2, 3]))
    assert await outputs(graph) == {"out": [6, 7, 8]}
    for wrong in ("a", [1, "b"]):
        graph = Graph()
        graph.add(adds_all, x=1, xs=wrong)
        with pytest.raises(GraphInvalid, match="property 'xs': expected"):
            WorkflowRunner().validate(graph)


@node
async def lists_both(days: Iterable[date], letters: Iterable[str]) -> Any:
    return list(days), letters


async def test_what_is_iterated_in_a_property_is_converted_and_a_text_stays_one() -> None:
    graph = Graph()
    graph.output("out", graph.add(lists_both, days=["2027-01-02", "2027-01-03"], letters="ab"))
    assert await outputs(graph) == {"out": [([date(2027, 1, 2), date(2027, 1, 3)], "ab")]}


class Speaks(Protocol):
    def speak(self) -> str: ...


@node
async def odd_annotation(x: Speaks) -> None: ...


def test_an_annotation_of_which_pydantic_makes_nothing_is_a_wrong_graph() -> None:
    graph = Graph()
    graph.add(odd_annotation, "odd", x={"a": 1})
    with pytest.raises(GraphInvalid, match="node 'odd', property 'x': values cannot be converted to Speaks"):
        WorkflowRunner().validate(graph)


@node
async def odd_inside(x: list[Speaks]) -> None: ...


def test_an_annotation_of_which_pydantic_makes_nothing_cannot_be_checked_deeply() -> None:
    graph = Graph()
    for name in "ab":
        graph.add(odd_inside, name, x=graph.add(give, value=1))
    WorkflowRunner().validate(graph)
    with pytest.raises(GraphInvalid, match=r"type '.*\.odd_inside': .*Speaks\], nor checked deeply") as found:
        WorkflowRunner(validate="deep").validate(graph)
    assert len(found.value.problems) == 1, "it is told once for all nodes of the type"


@node
async def several(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@node
async def typed(when: datetime, where: Path, n: int, rows: list[float]) -> Any:
    return when, where, n, rows


async def test_properties_are_converted_like_json() -> None:
    graph = Graph.from_document(
        {
            "nodes": [
                {
                    "id": "t",
                    "type": f"{__name__}.typed",
                    "data": {"when": "2026-01-02T03:04:05", "where": "/x", "n": 3, "rows": [1, 2.5]},
                },
                {"id": "o", "type": "workflow.Output"},
            ],
            "edges": [{"source": "t", "target": "o", "targetHandle": "value"}],
        }
    )
    found = await outputs(graph, nodes=[sys.modules[__name__]])
    assert found["o"] == [(datetime(2026, 1, 2, 3, 4, 5), Path("/x"), 3, [1.0, 2.5])]
    bad = Graph()
    bad.add(typed, when="2026-01-02", where="x", n="3", rows=[])
    with pytest.raises(GraphInvalid, match="property 'n': expected int, got '3'"):
        await outputs(bad)


# Streams.


@node
async def running(items: Stream[int], context: Context, start: int = 0) -> AsyncIterator[int]:
    total = context.state or start
    async for x in items:
        total += x
        yield total
        context.commit(total)


@node
async def first_two(items: Stream[int]) -> list[int]:
    taken = []
    async for x in items:
        taken.append(x)
        if len(taken) == 2:
            break
    return taken


@node
async def merged(a: Stream[int], b: Stream[int], context: Context) -> list[tuple[str, int]]:
    return [pair async for pair in context.arrivals(a, b)]


CLOSED: list[str] = []


@node
async def endless(context: Context) -> AsyncIterator[int]:
    try:
        for i in range(1_000_000):
            yield i
    finally:
        CLOSED.append(context.node_id)


async def test_streams_are_read_in_order() -> None:
    graph = Graph()
    source = graph.add(each, values=[1, 2, 3])
    graph.output("r", graph.add(running, items=source, start=graph.add(give, value=10)))
    graph.output("m", graph.add(merged, a=source, b=graph.add(each, node_id="e2", values=[7])))
    found = await outputs(graph)
    assert found["r"] == [11, 13, 16]
    assert sorted(found["m"][0]) == [("a", 1), ("a", 2), ("a", 3), ("b", 7)]
    assert [x for handle, x in found["m"][0] if handle == "a"] == [1, 2, 3]


@node
async def join(first: Stream[str], second: Stream[str] | None = None, context: Context | None = None) -> str:
    assert context is not None
    words = [word async for word in first]
    return context.node_id + ":" + "".join(words if second is None else [*words, *[word async for word in second]])


class Join(Node):
    first: Annotated[Stream[str], "read first"]
    second: Annotated[Stream[str], "then second"] | None = None

    def process(self, context: Context) -> str:
        return context.node_id + ":" + "".join(self.first if self.second is None else [*self.first, *self.second])


@pytest.mark.parametrize("kind", [join, Join])
async def test_a_stream_may_be_left_out(kind: Any) -> None:
    graph = Graph()
    one, two = graph.add(each, values=["a", "b"]), graph.add(each, values=["c", "d"])
    graph.output("one", graph.add(kind, node_id="n1", first=one))
    graph.output("both", graph.add(kind, node_id="n2", first=one, second=two))
    assert await outputs(graph) == {"one": ["n1:ab"], "both": ["n2:abcd"]}


Letter = TypeVar("Letter")
Letters = TypeAliasType("Letters", Stream[str])
Many = TypeAliasType("Many", list[Letter], type_params=(Letter,))
Itself = TypeAliasType("Itself", Letter, type_params=(Letter,))
Teller = TypeAliasType("Teller", Context)


async def test_an_alias_is_what_it_stands_for() -> None:
    @node
    async def spell(letters: Letters, teller: Teller) -> str:
        return teller.node_id + ":" + "".join([letter async for letter in letters])

    @node
    async def put(words: Many[str], last: Itself[str]) -> str:
        return " ".join([*words, last])

    graph = Graph()
    words = [graph.add(spell, node_id=name, letters=graph.add(each, values=[name, "x"])) for name in "ab"]
    graph.output("all", graph.add(put, words=words, last="z"))
    assert await outputs(graph) == {"all": ["a:ax b:bx z"]}
    assert make_checker(Many[str]) is not None
    with pytest.raises(Mismatch):
        make_checker(Itself[str])(1)  # type: ignore[misc]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax came with Python 3.12")
def test_type_parameters_and_type_statements(tmp_path: Path) -> None:
    file = tmp_path / "generics.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from workflow_runner import Node, Stream, node\n"
        "type Rows[T] = Stream[T]\n"
        "@node\n"
        "async def first[T: int](items: Rows[T], others: list[T]) -> T: ...\n"
        "class Keep[K](Node):\n"
        "    item: K\n"
        "    async def process(self): return self.item\n"
        "class KeepText(Keep[str]):\n"
        "    note: Keep\n"
    )
    _, module = load_node_module(file)
    assert module.first.__node_type__.streams
    assert list(module.KeepText.__node_type__.handles) == ["item", "note"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax came with Python 3.12")
def test_an_alias_of_what_is_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "unknown.py"
    file.write_text("from workflow_runner import node\ntype Money = Decimal\n@node\nasync def pay(x: Money | None): ...\n")
    with pytest.raises(NodeModuleError, match=r"'Decimal' is not defined\. Import it there"):
        load_node_module(file)


async def test_a_generator_without_a_consumer_left_is_closed() -> None:
    CLOSED.clear()
    graph = Graph()
    graph.output("two", graph.add(first_two, items=graph.add(endless)))
    assert await outputs(graph) == {"two": [[0, 1]]}
    assert CLOSED == ["endless"]


async def test_a_generator_in_a_thread_that_is_closed_for_want_of_consumers_may_commit_as_it_cleans_up() -> None:
    kept: list[Any] = []

    @node
    def count_until_nobody_listens(context: ThreadContext) -> Iterator[int]:
        try:
            yield from range(10_000)
        finally:
            context.commit({"closed": True})
            kept.append(context.state)

    graph = Graph()
    graph.output("out", graph.add(first_two, items=graph.add(count_until_nobody_listens)))
    assert (await outputs(graph))["out"] == [[0, 1]]
    assert kept == [{"closed": True}]


async def test_a_generator_that_never_had_one_runs_to_its_end() -> None:
    seen: list[int] = []

    @node
    async def lonely(n: int) -> AsyncIterator[int]:
        for i in range(n):
            seen.append(i)
            yield i

    graph = Graph()
    graph.add(lonely, n=200)
    await outputs(graph)
    assert len(seen) == 200


@pytest.mark.parametrize(("values", "text"), [([], "without any"), ([1, 2], "brought a second")])
async def test_a_plain_input_of_a_streaming_node_takes_one_item(values: list[int], text: str) -> None:
    graph = Graph()
    graph.add(running, node_id="r", items=graph.add(each, values=[1]), start=graph.add(each, node_id="e2", values=values))
    node_id, cause = await failure(graph)
    assert (node_id, type(cause)) == ("r", NodeProtocolError)
    assert "handle 'start'" in str(cause)
    assert text in str(cause)


@node
async def one_by_one(items: Stream[int]) -> AsyncIterator[int]:
    async for item in items:
        yield item


@node(retries=1)
async def logged(items: Stream[int], context: Context) -> AsyncIterator[int]:
    async for item in items:
        yield item
        context.commit()


@node(stateless=True, retries=1)
async def stateless(items: Stream[int]) -> AsyncIterator[int]:
    async for item in items:
        yield item


@node
async def as_they_come(items: Stream[int], context: Context) -> AsyncIterator[int]:
    async for _, item in context.arrivals(items):
        yield item


@node
def in_a_thread(items: Stream[int]) -> Iterator[int]:
    yield from items


@node
async def of_one(items: int) -> int:
    return items


@node
async def with_another(items: int, more: int = 0) -> int:
    return items


@pytest.mark.parametrize("body", [one_by_one, logged, stateless, as_they_come, in_a_thread, of_one, with_another])
@pytest.mark.parametrize("more", [False, True])
async def test_who_takes_an_item_makes_room_for_its_producer(body: Any, more: bool) -> None:
    """No edge may grow here, so a producer that is not woken would wait for ever."""
    graph, values = Graph(), list(range(20))
    feeds: dict[str, Any] = {"more": graph.add(each, node_id="more", values=values)} if body is with_another else {}
    items = graph.add(each, values=values)
    taken = graph.add(body, sync_mode="zip_all" if feeds else "on_any", items=items, **feeds)
    if more:  # a second edge, and none is written straight on
        graph.output("more", items)
    graph.output("taken", taken)
    found = await outputs(graph, edge_capacity=2, max_edge_capacity=2)
    assert found == ({"taken": values, "more": values} if more else {"taken": values})


@node
async def two_readers(items: Stream[int]) -> Any:
    return await asyncio.gather(anext(items), anext(items))


async def test_two_tasks_must_not_read_one_stream() -> None:
    @node
    async def late(x: int) -> AsyncIterator[int]:
        await asyncio.sleep(0.01)
        yield x

    graph = Graph()
    graph.add(two_readers, node_id="t", items=graph.add(late, x=1))
    node_id, cause = await failure(graph)
    assert node_id == "t"
    assert "by two tasks at once" in str(cause)


async def test_a_read_that_times_out_loses_nothing() -> None:
    @node
    async def slow(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0.01)
            yield i

    @node
    async def patient(items: Stream[int]) -> list[int]:
        taken: list[int] = []
        while True:
            try:
                async with asyncio.timeout(0.001):
                    taken.append(await anext(items))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return taken

    graph = Graph()
    graph.output("all", graph.add(patient, items=graph.add(slow, n=3)))
    assert await outputs(graph) == {"all": [[0, 1, 2]]}


# Threads.


@node
def thread_name(x: int) -> str:
    return threading.current_thread().name


@node
def thread_numbers(n: int, context: Context) -> Iterator[int]:
    for i in range(context.state or 0, n):
        yield i
        context.commit(i + 1)


@node
def thread_total(items: Stream[int], context: ThreadContext) -> Iterator[int]:
    total = context.state or 0
    for x in items:
        total += x
        yield total
        context.commit(total)
    assert context.checkpoint() is None
    context.progress(1, 2)
    assert context.idempotency_key


@node
def thread_boom(x: int) -> int:
    raise LookupError("in a thread")


async def test_def_bodies_run_in_threads() -> None:
    graph = Graph()
    graph.output("name", graph.add(thread_name, x=1))
    graph.output("total", graph.add(thread_total, items=graph.add(thread_numbers, n=4)))
    found = await outputs(graph)
    assert found["name"] != [threading.current_thread().name]
    assert found["total"] == [0, 1, 3, 6]


@node
def meets_in_a_thread(a: Stream[int], b: Stream[int], context: ThreadContext) -> Iterator[tuple[str, int]]:
    yield from context.arrivals(a, b)


async def test_a_body_in_a_thread_reads_several_streams_in_arrival_order() -> None:
    graph = Graph()
    ends = graph.add(several, "short", n=2), graph.add(several, "long", n=3)
    graph.output("out", graph.add(meets_in_a_thread, a=ends[0], b=ends[1]))
    found = (await outputs(graph))["out"]
    assert [item for handle, item in found if handle == "a"] == [0, 1]
    assert [item for handle, item in found if handle == "b"] == [0, 1, 2]
    assert len(found) == 5


async def test_a_body_in_a_thread_may_catch_what_its_context_raises() -> None:
    @node
    def asks_wrongly(x: int, context: ThreadContext) -> str:
        try:
            context.suspend("may I?", metadata="none")  # type: ignore[arg-type]
        except TypeError as error:
            return str(error)
        return "taken"

    graph = Graph()
    graph.output("told", graph.add(asks_wrongly, x=1))
    assert "are a mapping, not 'none'" in (await outputs(graph))["told"][0]


async def test_an_error_in_a_thread_is_the_cause() -> None:
    graph = Graph()
    graph.add(thread_boom, node_id="t", x=1)
    node_id, cause = await failure(graph)
    assert (node_id, repr(cause)) == ("t", "LookupError('in a thread')")


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("yields", [True, False])
async def test_a_thread_that_raises_what_cancels_others_has_ended_and_is_waited_for_no_more(
    error: type[BaseException], yields: bool
) -> None:
    @node
    def raises(x: int) -> int:
        raise error

    @node
    def yields_and_raises(x: int) -> Iterator[int]:
        yield x
        raise error

    graph = Graph()
    graph.output("out", graph.add(yields_and_raises if yields else raises, node_id="t", x=1))
    async with asyncio.timeout(10):
        node_id, cause = await failure(graph)
    assert (node_id, type(cause)) == ("t", error)


def traced(function: Any) -> Any:
    """A decorator that does not care how what it wraps is called."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


@node
@traced
async def hidden(x: int) -> int:
    return x


@node
@traced
async def hidden_items(x: int) -> AsyncIterator[int]:
    yield x


@pytest.mark.parametrize(("kind", "what"), [(hidden, "coroutine object hidden"), (hidden_items, "async_generator object hidden")])
async def test_an_async_body_that_a_decorator_hides_is_refused(kind: Any, what: str) -> None:
    graph = Graph()
    graph.add(kind, node_id="n", x=1)
    node_id, error = await failure(graph)
    assert node_id == "n"
    assert isinstance(error, NodeProtocolError)
    assert what in str(error)


def test_a_decorator_above_node_is_refused(tmp_path: Path) -> None:
    wrapped = traced(give)
    with pytest.raises(NodeDefinitionError, match=r"give: .* Write @node above it\."):
        Graph().add(wrapped, value=1)
    Graph().add(node(wrapped), value=1)
    source = "from tests.workflow_runner.test_nodes import node, traced\n@traced\n@node\ndef twice(x): return x\n"
    (tmp_path / "wrapped.py").write_text(source)
    runner = WorkflowRunner(nodes=[tmp_path / "wrapped.py"])
    with pytest.raises(NodeDefinitionError, match="twice: another decorator"):
        runner.validate({"nodes": [{"id": "a", "type": "wrapped.twice", "data": {"x": 1}}]})


@pytest.mark.parametrize("failure", [{}, {"timeout": 30}], ids=["", "timeout"])
async def test_no_more_bodies_in_threads_run_at_once_than_may(failure: dict[str, Any]) -> None:
    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []

    @node
    def counts(n: int) -> int:
        with lock:
            running.append(n)
            most.append(len(running))
        time.sleep(0.01)
        with lock:
            running.remove(n)
        return n

    graph = Graph()
    for number in range(6):
        graph.output(f"o{number}", graph.add(counts, n=number, failure=failure))
    assert await outputs(graph, max_threads=2) == {f"o{number}": [number] for number in range(6)}
    assert len(most) == 6 and max(most) <= 2


async def test_many_streaming_threads_do_not_starve_each_other() -> None:
    graph = Graph()
    end: Any = graph.add(thread_numbers, n=3)
    for _ in range(70):
        end = graph.add(thread_total, items=end)
    graph.output("end", end)
    assert len((await outputs(graph, max_threads=1))["end"]) == 3


# The context.


async def test_keys_differ_between_steps_and_nodes() -> None:
    keys: list[str] = []

    @node
    async def key(x: int, context: Context) -> None:
        keys.append(context.idempotency_key)

    @node
    async def keys_of(items: Stream[int], context: Context) -> None:
        async for _ in items:
            keys.append(context.idempotency_key)

    graph = Graph()
    source = graph.add(each, values=[1, 2, 3])
    graph.add(key, x=source)
    graph.add(key, node_id="other", x=source)
    graph.add(keys_of, items=source)
    await outputs(graph)
    assert len(keys) == len(set(keys)) == 9


async def test_calls_of_on_durable_are_added_to_those_of_the_step_and_not_copied_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[Any] = []
    stage = Actor.stage

    def note(actor: Actor, call: Callable[[], object]) -> None:
        stage(actor, call)
        held.append(actor.durable_calls)

    monkeypatch.setattr(Actor, "stage", note)

    @node
    async def never_commits(context: Context) -> AsyncIterator[int]:
        for i in range(5):
            context.on_durable(lambda: None)
            yield i

    graph = Graph()
    graph.output("out", graph.add(never_commits))
    assert await outputs(graph) == {"out": [0, 1, 2, 3, 4]}
    assert [calls is held[0] for calls in held] == [True] * 5
    assert len(held[0]) == 5


async def test_on_durable_is_called_when_the_step_is_final_with_nothing_enabled() -> None:
    calls: list[str] = []

    @node
    async def notes(x: int, context: Context) -> None:
        context.on_durable(lambda: calls.append("durable"))
        calls.append("body")
        assert await context.checkpoint() is None

    graph = Graph()
    graph.add(notes, x=1)
    await outputs(graph)
    assert calls == ["body", "durable"]


@pytest.mark.parametrize("retries", [0, 1], ids=["nothing is remembered", "each item is remembered"])
async def test_a_read_of_a_node_that_commits_by_itself_makes_no_calls(retries: int) -> None:
    @node(retries=retries)
    async def commits_pairs(items: Stream[int], context: Context) -> AsyncIterator[tuple[int, list[int]]]:
        called: list[int] = []
        async for x in items:
            yield x, [*called]
            context.on_durable(partial(called.append, x))
            if x % 2:
                context.commit()

    graph = Graph()
    graph.output("out", graph.add(commits_pairs, items=graph.add(each, values=[0, 1, 2, 3])))
    assert (await outputs(graph))["out"] == [(0, []), (1, []), (2, [0, 1]), (3, [0, 1])]


@node(stateless=True)
async def calls_after_each(items: Stream[int], context: Context) -> AsyncIterator[tuple[int, list[int]]]:
    called: list[int] = []
    async for x in items:
        yield x, [*called]
        context.on_durable(partial(called.append, x))


@node(stateless=True)
async def calls_after_each_arrival(items: Stream[int], context: Context) -> AsyncIterator[tuple[int, list[int]]]:
    called: list[int] = []
    async for _, x in context.arrivals(items):
        yield x, [*called]
        context.on_durable(partial(called.append, x))


@node(stateless=True)
def calls_after_each_in_a_thread(items: Stream[int], context: ThreadContext) -> Iterator[tuple[int, list[int]]]:
    called: list[int] = []
    for x in items:
        yield x, [*called]
        context.on_durable(partial(called.append, x))


@pytest.mark.parametrize("retries", [0, 1], ids=["nothing is remembered", "each item is remembered"])
@pytest.mark.parametrize("body", [calls_after_each, calls_after_each_arrival, calls_after_each_in_a_thread])
async def test_a_read_of_a_stateless_node_makes_the_calls_of_the_one_before_with_nothing_enabled(body: Any, retries: int) -> None:
    graph = Graph()
    graph.output("told", graph.add(body, items=graph.add(each, values=[0, 1, 2]), failure={"retries": retries}))
    assert (await outputs(graph))["told"] == [(0, []), (1, [0]), (2, [0, 1])]
