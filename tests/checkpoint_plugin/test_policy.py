"""Policies that save around firings, on both databases: what is durable when a body starts, and when its output is seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import PolicyInvalid
from checkpoint_plugin.plugin import checkpoint
from checkpoint_plugin.policy import Policy
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeSnapshot, PluginOptionsInvalid
from tests.checkpoint_plugin.test_plugin import Host, checkpoints
from workflow_runner import Context, Graph, NodeFailed, Stream, WorkflowRunner, node

DURABLE: dict[str, dict[str, NodeSnapshot]] = {}
"""What the store held when a body looked, by node id; emptied before each test."""
STORE: list[str] = []


@pytest.fixture(autouse=True)
def _fresh(store_url: str) -> None:
    DURABLE.clear()
    STORE[:] = [store_url]


async def look_at(url: str) -> dict[str, NodeSnapshot]:
    """The nodes of run `r` as they are durable now."""
    store = Store(locate(url), create=False)
    try:
        snapshot = await store.restore(RunHistory("r", 1, 1), None)
        return {} if snapshot is None else {item.node_id: item for item in snapshot.nodes}
    finally:
        await store.close()


async def look(node_id: str) -> None:
    """Note what is durable now, as another process sees it."""
    DURABLE[node_id] = await look_at(STORE[0])


@node
async def first(x: int) -> int:
    await look("first")
    return x + 1


@node
async def second(x: int) -> int:
    await look("second")
    return x + 1


@node
async def third(x: int) -> int:
    await look("third")
    return x + 1


@node
async def broken(x: int) -> int:
    raise RuntimeError("broken")


def chain() -> Graph:
    graph = Graph()
    graph.output("sum", graph.add(third, x=graph.add(second, x=graph.add(first, x=0))))
    return graph


async def run(options: dict[str, Any], graph: Graph | None = None) -> list[str]:
    result = await WorkflowRunner(plugins=Host(STORE[0])).run(graph or chain(), enable={"checkpoint": options}, run_id="r")
    assert graph is not None or result.outputs == {"sum": [3]}
    return await checkpoints(STORE[0])


@pytest.mark.parametrize("events", [False, True], ids=["", "events"])
@pytest.mark.parametrize("name", ["second", "tests.checkpoint_plugin.test_policy.second"])
async def test_before_is_durable_when_the_body_starts(name: str, events: bool) -> None:
    assert await run({"before": [name], "events": events}) == ["before", "end"]
    assert DURABLE["first"] == {}
    seen = DURABLE["second"]
    assert seen["first"].status == "completed"
    assert (seen["second"].firing, seen["second"].arguments) == (1, {"x": 1})


@pytest.mark.parametrize("events", [False, True], ids=["", "events"])
@pytest.mark.parametrize("name", ["second", "tests.checkpoint_plugin.test_policy.second"])
async def test_after_is_durable_when_its_output_is_seen(name: str, events: bool) -> None:
    assert await run({"after": [name], "events": events}) == ["after", "end"]
    assert DURABLE["second"] == {}
    seen = DURABLE["third"]
    assert seen["second"].status == "completed"
    assert seen["third"].inbox[0].items == (2,)


@pytest.mark.parametrize(("number", "reasons"), [(1, 3), (2, 1), (3, 1), (4, 0)])
async def test_every_nodes_counts_bodies_that_returned(number: int, reasons: int) -> None:
    assert await run({"every_nodes": number}) == ["every_nodes"] * reasons + ["end"]
    if number == 2:
        assert DURABLE["third"]["second"].status == "completed"


async def test_an_input_is_no_body_that_returns() -> None:
    graph = Graph()
    graph.output("sum", graph.add(second, x=graph.input("x", value=0)))
    assert await run({"every_nodes": 1}, graph) == ["every_nodes", "end"]
    assert DURABLE["second"] == {}


@pytest.mark.parametrize(
    ("number", "reasons"), [(1, ["every_nodes", "after", *["every_nodes"] * 4]), (2, ["after", "every_nodes", "every_nodes"])]
)
async def test_every_nodes_goes_on_after_a_node_that_after_names(number: int, reasons: list[str]) -> None:
    assert await run({"every_nodes": number, "after": ["second"]}, chain_of(6)) == [*reasons, "end"]


def chain_of(length: int) -> Graph:
    graph = Graph()
    end: Any = 0
    for number in range(length):
        end = graph.add(second if number == 1 else third, node_id="second" if number == 1 else f"n{number}", x=end)
    graph.output("sum", end)
    return graph


async def test_every_nodes_written_behind_waits_for_nobody() -> None:
    reasons = await run({"every_nodes": 1, "durability": "async"})
    assert set(reasons) <= {"every_nodes", "end"} and reasons[-1] == "end"


async def test_both_and_a_failure() -> None:
    graph = Graph()
    graph.add(broken, x=graph.add(second, x=graph.add(first, x=0)))
    with pytest.raises(NodeFailed):
        await run({"before": ["broken"], "after": ["broken", "first"]}, graph)
    assert await checkpoints(STORE[0]) == ["after", "before", "error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"before": ["secnd"]}, "before names 'secnd'.*Did you mean 'second'"),
        ({"after": ["zzz"]}, "after names 'zzz'.*full name of its type"),
        ({"after": ["sum"]}, "has no body"),
        ({"before": ["workflow.Output"]}, "has no body"),
    ],
)
async def test_unknown_names_are_refused_before_anything_is_stored(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    STORE[0] = f"sqlite:///{tmp_path}/none/c.db"
    with pytest.raises(PolicyInvalid, match=message) as refused:
        await run(options)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "none").exists()


async def test_lanes_are_named_and_not_the_node_that_gathers_what_they_return() -> None:
    graph = Graph()
    graph.add(second, "second", x=graph.add(first, x=0), lanes=2)
    with pytest.raises(PolicyInvalid, match=r"after names 'second', which has no body.*its lanes, second/1 and so on"):
        await run({"after": ["second"]}, graph)
    with pytest.raises(PolicyInvalid, match=r"before names 'second/spread', which has no body\. Name a node that has one"):
        await run({"before": ["second/spread"]}, graph)
    await run({"after": ["second/1"]}, graph)
    assert await checkpoints(STORE[0]) == ["after", "end"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_nodes": 0}, "at least 1"),
        ({"every_nodes": True}, "at least 1"),
        ({"every_nodes": 1.5}, "at least 1"),
        ({"before": "second"}, "list of ids"),
        ({"after": [""]}, "list of ids"),
        ({"on_suspend": 1}, "true or false"),
        ({"every_firing": True, "every_nodes": 2}, "every_firing excludes every_nodes"),
        *(
            ({**excluding, name: value}, f"excludes {name}")
            for excluding in ({"explicit": True}, {"durability": "exit"})
            for name, value in {
                "every_seconds": 1,
                "every_nodes": 1,
                "every_firing": True,
                "before": ["a"],
                "after": ["a"],
            }.items()
        ),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginOptionsInvalid, match=message):
        Policy.from_options(options)


def test_what_joins_the_interval_and_what_replaces_it() -> None:
    assert Policy.from_options({"every_nodes": 3}).every_seconds is None
    assert Policy.from_options({"every_nodes": 3, "every_seconds": 2}).every_seconds == 2
    assert Policy.from_options({"before": ["a"], "after": ["a"]}).every_seconds == 5
    for options in ({"explicit": True}, {"durability": "exit"}):
        assert Policy.from_options(options).every_seconds is None, "nothing is saved by time"
    assert Policy.from_options({"explicit": True}).on_suspend


def test_a_run_that_saves_by_time_binds_no_hook_of_nodes() -> None:
    for options in ({}, {"every_seconds": 1}, {"explicit": True}, {"every_firing": True}):
        plugin = checkpoint(options)
        assert not hasattr(plugin, "before_node")
        assert not hasattr(plugin, "after_node")


async def test_options_of_the_document_are_read(tmp_path: Path) -> None:
    document = {**json.loads(chain().to_json()), "enable": {"checkpoint": {"every_nodes": 1}}}
    graph = Graph.from_document(document)
    graph.types = chain().types
    await WorkflowRunner(plugins=Host(STORE[0])).run(graph, run_id="r")
    assert await checkpoints(STORE[0]) == ["every_nodes"] * 3 + ["end"]


LATE: dict[str, int] = {}
"""Turns of the event loop after which a node says its name."""
ACTED: list[tuple[str, str]] = []
"""The key and the item of each body that acted."""


@node
async def says(name: str) -> str:
    for _ in range(LATE[name]):
        await asyncio.sleep(0)
    return name


@node(stateless=True)
async def as_they_come(a: Stream[str], b: Stream[str], context: Context) -> AsyncIterator[str]:
    async for _, item in context.arrivals(a, b):
        yield item


@node
async def acts(item: str, context: Context) -> str:
    ACTED.append((context.idempotency_key, item))
    if len(ACTED) == 1:
        raise OSError("it has acted, and its process is gone")
    return item


@pytest.mark.parametrize("options", [{"before": ["acts"]}, {"every_firing": True}])
async def test_a_key_stands_for_one_item_where_that_is_durable_before_the_body_starts(options: dict[str, Any]) -> None:
    ACTED.clear()
    graph = Graph()
    came = graph.add(as_they_come, a=graph.add(says, name="a"), b=graph.add(says, "says_b", name="b"))
    graph.output("out", graph.add(acts, item=came))
    enable = {"checkpoint": {"url": STORE[0], "on_error": False, **options}}
    LATE.update(a=0, b=50)
    with pytest.raises(NodeFailed, match="it has acted"):
        await WorkflowRunner().run(graph, enable=enable, run_id="r")
    LATE.update(a=50, b=0)
    result = await WorkflowRunner().resume("r", graph=graph, enable=enable)
    assert result.outputs == {"out": ["a", "b"]}
    assert [item for _, item in ACTED] == ["a", "a", "b"]
    assert ACTED[0] == ACTED[1]
    assert ACTED[1][0] != ACTED[2][0]
