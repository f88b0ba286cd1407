"""Errors on their way from a process to another, such as from a pool of processes that run workflows."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest

from hookspecs import HookError, PluginMissing, WorkflowError
from workflow_runner import (
    Deadlock,
    Graph,
    GraphInvalid,
    InputInvalid,
    NodeFailed,
    NodeNotWaiting,
    NodeTimeout,
    OutcomeUnknown,
    RunStopped,
    SourceChanged,
    WorkflowRunner,
    node,
    run_workflow,
)


@node
async def boom(x: int) -> int:
    raise LookupError(f"no {x}")


def run_boom(x: int) -> None:
    graph = Graph()
    graph.add(boom, node_id="b", x=x)
    run_workflow(graph, run_id="r")


def test_a_pool_of_processes_hears_how_a_run_failed() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(NodeFailed, match="no 7") as caught:
        pool.map_async(run_boom, [7]).get(timeout=30)
    assert (caught.value.run_id, caught.value.node_id) == ("r", "b")


@pytest.mark.parametrize(
    "error",
    [
        Deadlock("r", ["e0", "e1"]),
        GraphInvalid(["one", "two"]),
        HookError("plugin", "after_run", ValueError("no")),
        NodeTimeout("n", 1.5, abandoned=True),
        OutcomeUnknown("r", ["n"]),
        OutcomeUnknown("r", ["n", "m"], ["o"], {"n": {"x": [1]}}, {"m": "0f"}),
        PluginMissing("plugin", "not there"),
        RunStopped("r", "signal", durable=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_when_it_was_pickled(error: WorkflowError) -> None:
    error.add_note("and more")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_value_that_cannot_be_shown_hides_no_error() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise ValueError("no")

    told = str(OutcomeUnknown("r", ["n"], (), {"n": {"x": Shy(), "y": "a" * 100, "z": "b" * 58}}))
    assert f"('n' with x=<Shy, whose repr raises ValueError>, y='{'a' * 58}…, z='{'b' * 58}')" in told


def test_steps_are_told_as_far_as_they_are_known() -> None:
    assert " (" not in str(OutcomeUnknown("r", list("abcdef")))
    five = str(OutcomeUnknown("r", list("abcde"), (), {}, {"a": "0f"}))
    assert "('a' with idempotency key 0f), then" in five


def test_options_that_errors_advise_are_typed_as_they_stand() -> None:
    graph = Graph()
    graph.output("out", graph.input("my input"))
    with pytest.raises(InputInvalid, match="--input 'my input=JSON'"):
        WorkflowRunner().validate(graph, {})
    assert "--set 'a node=JSON'" in str(NodeNotWaiting("r", "a node", "suspended"))
    assert "--accept-changed 'a node'" in str(SourceChanged("r", "a node", "nodes.boom", 1))
