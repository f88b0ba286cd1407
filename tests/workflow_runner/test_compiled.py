"""A graph that is compiled once and run many times: checked once, and the same for every run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from hookspecs import PluginHost, RunControl, RunInfo, hookimpl
from workflow_runner import CompiledGraph, Graph, GraphInvalid, InputInvalid, WorkflowRunner, node, run_workflow
from workflow_runner.plan import Plan
from workflow_runner.planning import make_plan


@node
async def add(x: int, more: int = 0) -> int:
    await asyncio.sleep(0)
    return x + more


def adding(**default: int) -> Graph:
    graph = Graph()
    graph.output("sum", graph.add(add, x=graph.input("x", **default), more=10))
    return graph


async def test_runs_of_a_compiled_graph_have_their_own_inputs_also_at_once() -> None:
    runner = WorkflowRunner()
    compiled = runner.compile(adding(value=1))
    results = await asyncio.gather(*(runner.run(compiled, {"x": x}) for x in range(5)), runner.run(compiled))
    assert [result.outputs["sum"] for result in results] == [[10], [11], [12], [13], [14], [11]]


async def test_a_compiled_graph_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = WorkflowRunner()
    planned: list[Graph] = []

    def plan(graph: Graph, *given: Any) -> Plan:
        planned.append(graph)
        return make_plan(graph, *given)

    monkeypatch.setattr("workflow_runner.runner.make_plan", plan)
    compiled = runner.compile(adding())
    for x in range(3):
        await runner.run(compiled, {"x": x})
    assert len(planned) == 1
    await runner.run(adding(), {"x": 1})
    assert len(planned) == 2


async def test_what_is_done_to_the_graph_later_does_not_change_what_was_compiled() -> None:
    runner, graph = WorkflowRunner(), adding(value=1)
    compiled = runner.compile(graph)
    graph.output("other", graph.add(add, x=3))
    graph.enable["nothing"] = True
    result = await runner.run(compiled)
    assert result.outputs == {"sum": [11]}
    assert [n["id"] for n in compiled.document["nodes"]] == ["x", "add", "sum"]


@node
async def show(value: Any, numbers: list[int]) -> list[Any]:
    return [value, numbers]


@pytest.mark.parametrize("reads", [Graph, Graph.to_document], ids=["graph", "document"])
async def test_what_is_done_to_its_properties_and_options_later_does_not_change_it(reads: Any) -> None:
    tool, numbers = object(), [1, 2]
    value: dict[str, Any] = {"deep": ({"list": numbers}, tool), "set": {1}}
    value["itself"] = value
    options = {"every": [1]}
    graph = Graph(enable={"listener": options})
    graph.output("out", graph.add(show, failure={"retries": 1}, value=value, numbers=numbers))
    compiled = WorkflowRunner(nodes=[__name__]).compile(graph if reads is Graph else reads(graph))
    for changed in (numbers, options["every"]):
        changed.append(10)
    value["set"].add(2)
    del value["itself"]
    graph.nodes[0].failure["retries"] = 2  # type: ignore[index]
    assert compiled.document["nodes"][0]["failure"] == compiled.graph.nodes[0].failure == {"retries": 1}
    for data in (compiled.document["nodes"][0]["data"], compiled.plan.nodes["show"].constants):
        assert data["numbers"] == [1, 2]
        assert data["value"]["deep"] == ({"list": [1, 2]}, tool)
        assert data["value"]["set"] == {1}
        assert data["value"]["itself"]["itself"] is data["value"]["itself"]
    assert compiled.graph.enable == {"listener": {"every": [1]}}


def test_what_stands_in_several_places_of_a_property_is_copied_once() -> None:
    """Twice at each of forty levels would be a billion times."""
    value: Any = [1]
    for _ in range(14):
        value = (value, value)
    graph = Graph()
    graph.add(show, value=value, numbers=[])
    copied = WorkflowRunner().compile(graph).plan.nodes["show"].constants["value"]
    assert copied == value
    for _ in range(14):
        first, second = copied
        assert first is second
        copied = first


async def test_a_document_is_compiled_and_another_runner_runs_it() -> None:
    compiled = WorkflowRunner().compile(
        {
            "nodes": [{"id": "x", "type": "workflow.Input"}, {"id": "out", "type": "workflow.Output"}],
            "edges": [{"source": "x", "target": "out", "targetHandle": "value"}],
        }
    )
    assert isinstance(compiled, CompiledGraph)
    assert (await WorkflowRunner().run(compiled, {"x": 3})).outputs == {"out": [3]}
    with pytest.raises(InputInvalid, match="'x' is missing"):
        WorkflowRunner().validate(compiled, {})
    with pytest.raises(InputInvalid, match="no input 'y'"):
        await WorkflowRunner().run(compiled, {"x": 1, "y": 2})


def test_what_is_wrong_with_a_graph_is_told_when_it_is_compiled() -> None:
    graph = Graph()
    graph.add("workflow.Output", "end", value=None)
    with pytest.raises(GraphInvalid, match="takes an edge"):
        WorkflowRunner().compile(graph)


async def test_hooks_of_each_run_get_the_document_with_what_its_runner_says() -> None:
    heard: list[Mapping[str, Any]] = []

    class Listener:
        @hookimpl
        async def before_run(self, run: RunInfo, control: RunControl) -> None:
            heard.append(run.graph)

    def runner(**settings: Any) -> WorkflowRunner:
        return WorkflowRunner(plugins=PluginHost().register(Listener(), "listener"), **settings)

    graph = adding(value=1)
    compiled = runner().compile(graph)
    for settings in ({"on_failure": "finish_independent"}, {}):
        await runner(**settings).run(compiled)
    document = graph.to_document()
    assert heard == [{**document, "on_failure": "finish_independent"}, document]


def test_it_runs_without_an_event_loop_of_ones_own() -> None:
    assert run_workflow(WorkflowRunner().compile(adding()), {"x": 1}).outputs == {"sum": [11]}
