"""The methods of a runner for code without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from datetime import datetime
from inspect import CORO_CREATED, getcoroutinestate
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypedDict, Unpack

from hookspecs import CheckpointChoice, PluginHost
from workflow_runner.failure import OnFailure
from workflow_runner.runner import AnyGraph, Listener, Result, WorkflowRunner
from workflow_runner.threads import BodyThread

__all__ = ["RunnerArguments", "resume_workflow", "run_workflow"]


class RunnerArguments(TypedDict, total=False):
    """The arguments of `WorkflowRunner`, for type checkers."""

    plugins: PluginHost | None
    nodes: Iterable[str | Path | ModuleType]
    edge_capacity: int
    max_edge_capacity: int
    max_log: int
    max_threads: int
    validate: Literal["shallow", "deep"]
    grace_seconds: float
    on_event: Listener | None
    threads: Callable[[], BodyThread]
    on_failure: OnFailure | None


def run_workflow(
    graph: AnyGraph,
    inputs: Mapping[str, Any] | None = None,
    enable: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    **settings: Unpack[RunnerArguments],
) -> Result:
    """`WorkflowRunner(**settings).run(...)` for code without an event loop; see there for the arguments.

    Returns:
        How it ended.

    Raises:
        RuntimeError: an event loop runs already; nothing was started.
        Exception: else as `WorkflowRunner.run`.
    """
    return _wait_for(WorkflowRunner(**settings).run(graph, inputs, enable, run_id), "run")


def resume_workflow(
    run_id: str,
    enable: Mapping[str, Any] | None = None,
    graph: AnyGraph | None = None,
    url: str | None = None,
    accept_changed: Iterable[str] = (),
    checkpoint: CheckpointChoice = None,
    steal: bool = False,
    updates: Mapping[str, Any] | None = None,
    replay: Collection[str] = (),
    since: Mapping[str, datetime] | None = None,
    **settings: Unpack[RunnerArguments],
) -> Result:
    """`WorkflowRunner(**settings).resume(...)` for code without an event loop; see there for the arguments.

    Returns:
        How it ended.

    Raises:
        RuntimeError: an event loop runs already; nothing was started.
        Exception: else as `WorkflowRunner.resume`.
    """
    runner = WorkflowRunner(**settings)
    going_on = runner.resume(run_id, enable, graph, url, accept_changed, checkpoint, steal, updates, replay, since)
    return _wait_for(going_on, "resume")


def _wait_for(result: Coroutine[Any, Any, Result], method: str) -> Result:
    """What a method of a runner gives, in an event loop of its own."""
    try:
        return asyncio.run(result)
    except RuntimeError as error:
        if getcoroutinestate(result) != CORO_CREATED:
            raise
        result.close()  # else Python warns that nobody awaited it
        raise RuntimeError(
            f"{method}_workflow cannot begin where an event loop runs. In an async function or a notebook, write "
            f'`await WorkflowRunner().{method}(...)`; in a file of nodes, call it below `if __name__ == "__main__":`.'
        ) from error
