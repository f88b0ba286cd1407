"""`docs/graphs.md` tells every key of a document, every built-in type, argument of a runner and event, and its graph runs."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import signal
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from workflow_runner import Context, Event, Graph, GraphChanged, RunStopped, WorkflowRunner, node
from workflow_runner.builtin import BUILTIN_TYPES
from workflow_runner.specs import SYNC_MODES

PAGE = (Path(__file__).parents[2] / "docs" / "graphs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
DOCUMENT = json.loads(BLOCKS[0][1])


def table(first: str) -> list[list[str]]:
    """The cells of the table whose first heading is this."""
    rows = PAGE.partition(f"\n\n| {first} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


async def test_the_document_and_the_python_are_the_same_graph() -> None:
    module = ModuleType("shop")
    namespace: dict[str, Any] = module.__dict__
    exec(compile(BLOCKS[1][1], "graphs.md", "exec"), namespace)
    runner = WorkflowRunner(nodes=[module])
    document = {**DOCUMENT, "enable": {}}
    namespace["graph"].enable.clear()
    for graph in (document, namespace["graph"]):
        assert (await runner.run(graph)).outputs == {"line": ["one: 2"]}
        assert (await runner.run(graph, {"text": "three"})).outputs == {"line": ["three: 1"]}


@pytest.mark.parametrize(("order", "line"), [(1, "1"), (1000, "1000, checked")])
async def test_ways_that_part_meet_again_whichever_is_taken(order: int, line: str) -> None:
    module = ModuleType("ways")
    [program] = [text for _, text in BLOCKS if "arrivals" in text]
    exec(compile(program, "graphs.md", "exec"), module.__dict__)
    assert (await WorkflowRunner().run(module.graph, {"order": order})).outputs == {"orders": [line]}


@pytest.mark.plugin
async def test_a_run_that_a_node_begins_is_found_again(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_URL", store_url)
    module = ModuleType("parents")
    [program] = [text for _, text in BLOCKS if "RunHeld" in text]
    exec(compile(program, "graphs.md", "exec"), module.__dict__)
    graph = Graph(enable={"checkpoint": {"before": ["a"]}})
    graph.output("line", graph.add(module.child, node_id="a", order=7))
    runner = WorkflowRunner()
    done = {"line": ["order 7 is on its way"]}
    assert (await runner.run(graph, run_id="r")).outputs == done
    # Back to before the node: the same step finds the run that it began.
    assert (await runner.resume("r", graph=graph, checkpoint=1)).outputs == done


@node
async def asks(order: int, context: Context) -> str:
    return str(await context.suspend(f"order {order}?"))


@pytest.mark.plugin
async def test_a_run_that_a_node_begins_and_that_suspends_is_answered_first(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_URL", store_url)
    module = ModuleType("parents")
    [program] = [text for _, text in BLOCKS if "RunHeld" in text]
    exec(compile(program, "graphs.md", "exec"), module.__dict__)
    module.__dict__["ship"] = asks
    graph = Graph(enable={"checkpoint": True})
    graph.output("line", graph.add(module.child, node_id="a", order=7))
    runner = WorkflowRunner()
    waiting = (await runner.run(graph, run_id="r")).suspensions["a"].reason
    assert (await runner.resume("r", graph=graph, updates={"a": None})).suspensions["a"].reason == waiting  # too soon
    child_graph = Graph()
    child_graph.output("line", child_graph.add(asks, order=7))
    await runner.resume(waiting.split()[1], graph=child_graph, updates={"asks": "yes"})
    assert (await runner.resume("r", graph=graph, updates={"a": None})).outputs == {"line": ["yes"]}


def version(module: ModuleType, word: str, *, wider: bool) -> Graph:
    """A version of a program whose node `ask` says a word, and whose graph has another node where it is the wider one."""

    @node(type="shop.ask")
    async def ask(context: Context) -> str:
        return f"{word}: {await context.suspend('which?')}"

    @node(type="shop.shout")
    async def shout(text: str) -> str:
        return text.upper()

    vars(module).update(ask=ask, shout=shout)
    graph = Graph()
    asked: Any = graph.add(ask, node_id="ask")
    graph.output("line", graph.add(shout, text=asked) if wider else asked)
    return graph


@pytest.mark.plugin
async def test_a_run_of_an_older_version_goes_on_with_its_graph_and_the_new_code(store_url: str) -> None:
    module, enable = ModuleType("shop"), {"checkpoint": {"url": store_url}}
    await WorkflowRunner().run(version(module, "old", wider=False), run_id="r", enable=enable)
    newer = version(module, "new", wider=True)
    runner = WorkflowRunner(nodes=[module])
    with pytest.raises(GraphChanged, match=r"node 'shout' is new(.|\n)*in Python without graph=, and with nodes="):
        await runner.resume("r", graph=newer, updates={"ask": "this"}, enable=enable)
    done = await runner.resume("r", updates={"ask": "this"}, enable=enable)
    assert done.outputs == {"line": ["new: this"]}


@node
async def ends_its_program() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(30)


async def test_the_program_that_hears_sigterm_stops_its_run() -> None:
    [program] = [text for _, text in BLOCKS if "signal.SIGTERM" in text]
    graph = Graph()
    graph.add(ends_its_program)
    namespace: dict[str, Any] = {"graph": graph}
    exec(compile(program, "graphs.md", "exec"), namespace)
    with pytest.raises(RunStopped, match="signal"):
        await namespace["main"]()


def test_every_key_is_there() -> None:
    told = {name for row in table("key") for name in names(row[0])}
    whole = Graph.from_document(DOCUMENT | {"on_failure": "fail_fast"})
    document = whole.to_document()
    written = {*document, *(key for part in ("nodes", "edges") for item in document[part] for key in item)}
    assert told == written | {"failure", "lanes", "tagged"}
    assert "sourceHandle" not in DOCUMENT["edges"][0]
    assert document["edges"][0]["sourceHandle"] == "output"


def test_every_mode_and_built_in_type_is_there() -> None:
    assert [names(row[0])[0] for row in table("`sync_mode`")] == list(SYNC_MODES)
    assert [names(row[0])[0] for row in table("type")] == list(BUILTIN_TYPES)


def test_every_argument_of_a_runner_is_there_with_its_default() -> None:
    told = {names(row[0])[0]: row[1].strip("`") for row in table("argument of `WorkflowRunner`")}
    parameters = inspect.signature(WorkflowRunner).parameters
    assert list(told) == list(parameters)
    for name, default in told.items():
        if name != "threads":
            assert default.replace('"', "'") == repr(parameters[name].default), name


def test_every_event_is_there_with_what_it_tells() -> None:
    assert {names(row[0])[0]: names(row[1]) for row in table("event")} == {
        event.__name__: [item.name for item in fields(event)] for event in get_args(Event)
    }
