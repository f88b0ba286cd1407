"""W4: a run whose nodes are all completed but one is loaded and goes on."""

from __future__ import annotations

import os

from benchmarks.ours.graphs import chain
from benchmarks.ours.nodes import FILLING
from benchmarks.request import Request
from benchmarks.worker import clocked
from workflow_runner import NodeFailed, WorkflowRunner

__all__ = ["run_unfinished"]

MODULE = "benchmarks.ours.nodes"


async def run_unfinished(request: Request) -> dict[str, float]:
    """Measure it, from opening the store to the end of the run."""
    runner = WorkflowRunner(nodes=[MODULE])
    if request.action == "fill":
        os.environ[FILLING] = "1"
        try:
            await runner.run(chain(request.size, unfinished=True), enable={"checkpoint": {"url": request.store}}, run_id="filled")
        except NodeFailed:
            return {"seconds": 0.0}
        finally:
            del os.environ[FILLING]
        raise AssertionError("the last node did not fail")
    seconds, result = await clocked(lambda: runner.resume("filled", url=request.store))
    assert int(result.outputs["end"][0]["text"][:8]) == request.size
    return {"seconds": seconds}
