"""Inputs that come as JSON are what the nodes want that get them, or are refused before anything runs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from workflow_runner import Graph, InputInvalid, Stream, WorkflowRunner, node
from workflow_runner.inputs import convert_inputs


class Made:
    """Of this JSON has nothing."""


@dataclass
class Order:
    """Something with parts."""

    name: str
    due: date


@node
async def anything(x: Any) -> Any:
    return x


@node
async def dates(x: date) -> date:
    return x


@node
async def moments(x: datetime | time | dict[str, tuple[list[datetime], set[time]]]) -> Any:
    return x


@node
async def many_dates(x: list[date]) -> int:
    return len(x)


@node
async def listed(x: Iterable[int]) -> list[int]:
    return list(x)


@node
async def text(x: str) -> str:
    return x


@node
async def number(x: float) -> float:
    return x


@node
async def whole(x: int) -> int:
    return x


@node
async def made(x: Made) -> Any:
    return x


class Odd:
    """Of this pydantic makes nothing."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise TypeError("no schema")


@node
async def odd(x: Odd) -> Any:
    return x


@node
async def order(x: Order) -> str:
    return x.name


@node
async def stream(x: Stream[Path]) -> AsyncIterator[Path]:
    async for item in x:
        yield item


def converted(value: Any, *bodies: Any) -> Any:
    graph = Graph()
    given = graph.input("x")
    for place, body in enumerate(bodies):
        graph.output(f"{body.__name__} {place}", graph.add(body, x=given))
    return convert_inputs(WorkflowRunner().compile(graph).plan, {"x": value})["x"]


@pytest.mark.parametrize(
    ("value", "bodies", "found"),
    [
        ("2026-01-02", (dates,), date(2026, 1, 2)),
        ("2026-01-02", (dates, dates), date(2026, 1, 2)),
        ("2026-01-02", (text,), "2026-01-02"),
        (["2026-01-02"], (many_dates,), [date(2026, 1, 2)]),
        ("a/b", (stream,), Path("a/b")),
        ({"name": "n", "due": "2026-01-02"}, (order,), Order("n", date(2026, 1, 2))),
        (3, (number,), 3.0),
        (3, (number, whole), 3),
        (["x"], (anything,), ["x"]),
        ("2026-01-02", (dates, anything), date(2026, 1, 2)),
        ([3], (odd,), [3]),
        ("x", (), "x"),
    ],
)
def test_an_input_is_what_its_nodes_want(value: Any, bodies: tuple[Any, ...], found: Any) -> None:
    given = converted(value, *bodies)
    assert given == found
    assert type(given) is type(found)


@pytest.mark.parametrize(
    ("value", "body"), [("3", whole), ("yesterday", dates), (3, text), ([], order), (None, whole), ([1], made)]
)
def test_what_does_not_fit_is_refused(value: Any, body: Any) -> None:
    with pytest.raises(InputInvalid, match=f"input 'x', for 'x' of node '{body.__name__}': expected "):
        converted(value, body)


def test_one_value_cannot_be_of_two_types() -> None:
    with pytest.raises(
        InputInvalid, match=r"'x' goes to nodes that want different types: date \(node 'dates'\), str \(node 'text'\)"
    ):
        converted("2026-01-02", dates, text)


def with_default(value: Any, *bodies: Any) -> Graph:
    """A graph with one input, from a document."""
    return Graph.from_json(connected(value, *bodies).to_json())


def connected(value: Any, *bodies: Any) -> Graph:
    graph = Graph()
    given = graph.input("x", value=value)
    for body in bodies:
        graph.output(f"{body.__name__} out", graph.add(body, x=given))
    return graph


async def outputs(graph: Graph, inputs: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
    return (await WorkflowRunner(nodes=[sys.modules[__name__]]).run(graph, inputs)).outputs


async def test_a_default_is_converted_as_an_input_is() -> None:
    assert await outputs(with_default("2026-01-02", dates)) == {"dates out": [date(2026, 1, 2)]}
    assert await outputs(with_default("a/b", stream)) == {"stream out": [Path("a/b")]}
    assert await outputs(with_default({"name": "n", "due": "2026-01-02"}, order)) == {"order out": ["n"]}
    assert await outputs(with_default("2026-01-02", dates), {"x": date(2026, 2, 3)}) == {"dates out": [date(2026, 2, 3)]}


async def test_a_default_that_does_not_fit_is_refused_where_it_is_taken() -> None:
    graph = with_default(None, text)
    with pytest.raises(InputInvalid, match="the default of input 'x', for 'x' of node 'text': expected str, got None"):
        await outputs(graph)
    assert await outputs(graph, {"x": "given"}) == {"text out": ["given"]}


async def test_a_default_that_fits_by_its_type_is_taken_as_it_is() -> None:
    assert await outputs(connected(["no date"], many_dates)) == {"many_dates out": [1]}
    graph = connected(iter([1, 2]), listed)
    WorkflowRunner().validate(graph)
    assert await outputs(graph) == {"listed out": [[1, 2]]}, "nobody has read it before"


def test_an_unknown_input_is_left_to_who_knows_them_all() -> None:
    plan = WorkflowRunner().compile(Graph()).plan
    assert convert_inputs(plan, {"y": 1}) == {"y": 1}


def test_edges_that_make_a_list_are_left_to_the_node() -> None:
    graph = Graph()
    graph.output("n", graph.add(many_dates, x=[graph.input("x"), graph.input("y")]))
    assert convert_inputs(WorkflowRunner().compile(graph).plan, {"x": "2026-01-02"}) == {"x": "2026-01-02"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2027-01-02T03:04:05Z", datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2027-01-02T03:04:05-05:45", datetime(2027, 1, 2, 3, 4, 5, tzinfo=timezone(-timedelta(hours=5, minutes=45)))),
        ("2027-01-02T03:04:05", datetime(2027, 1, 2, 3, 4, 5)),
        ("03:04:05+02:00", time(3, 4, 5, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_a_time_has_a_zone_of_python(text: str, wanted: datetime | time) -> None:
    """pydantic makes one of its own, which has no tagged form: the time could not be printed, nor its run be stored."""
    graph = Graph()
    graph.output("o", graph.add(moments, x=graph.input("a")))
    plan = WorkflowRunner().compile(graph).plan
    assert repr(convert_inputs(plan, {"a": text})) == repr({"a": wanted})
    if isinstance(wanted, datetime):
        inside = {"k": [[text], ["03:04:05Z"]]}
        assert repr(convert_inputs(plan, {"a": inside})) == repr({"a": {"k": ([wanted], {time(3, 4, 5, tzinfo=UTC)})}})
