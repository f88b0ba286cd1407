"""W5: small items through three nodes, with nothing enabled, with the explicit policy, with a checkpoint each second."""

from __future__ import annotations

from typing import Any

from benchmarks.ours.graphs import pipeline
from benchmarks.ours.runs import prepare
from benchmarks.request import Request
from benchmarks.worker import clocked
from workflow_runner import WorkflowRunner

__all__ = ["run_stream"]

POLICIES: dict[str, dict[str, Any]] = {"explicit": {"explicit": True}, "seconds": {"every_seconds": 1}}


async def run_stream(request: Request) -> dict[str, float]:
    """Measure it, with the store connected, as in W1."""
    graph = pipeline(request.size, streaming="streaming" in request.variant)
    enable: dict[str, Any] = {}
    if request.mode != "off":
        enable = {"checkpoint": {**POLICIES[request.mode], "url": request.store}}
    async with WorkflowRunner() as runner:
        await prepare(request.store, runner)
        seconds, result = await clocked(lambda: runner.run(graph, enable=enable))
    assert len(result.outputs["end"]) == request.size
    return {"seconds": seconds}
