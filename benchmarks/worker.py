"""A participant's process: `python -m benchmarks.worker NAME` answers each request with a line of JSON.

With `--once LINE` it answers that one and ends: what a fresh process costs.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.payloads import large
from benchmarks.request import NotAvailable, Request

__all__ = ["MODULES", "answer", "clocked", "main"]

MODULES = {
    "ours": "benchmarks.ours",
    "floor": "benchmarks.floors",
    "langgraph": "benchmarks.peers.with_langgraph",
    "dbos": "benchmarks.peers.with_dbos",
    "burr": "benchmarks.peers.with_burr",
    "kedro": "benchmarks.peers.with_kedro",
    "pydantic-graph": "benchmarks.peers.with_pydantic_graph",
    "prefect": "benchmarks.peers.with_prefect",
}
"""A module has `WORK`, a function for each workload (it gives metrics), and `DISTRIBUTIONS`, whose versions are named."""

Metrics = dict[str, float]


async def clocked(work: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Seconds, and what the work gave."""
    gc.collect()
    started = time.perf_counter()
    result = await work()
    return time.perf_counter() - started, result


def answer(name: str, request: Request) -> dict[str, Any]:
    """Do what is asked.

    Returns:
        `{"metrics": …}`, `{"missing": why}` or `{"error": what}`.
    """
    try:
        module = importlib.import_module(MODULES[name])
        if request.action == "versions":
            return {"versions": {item: version(item) for item in module.DISTRIBUTIONS}}
        work = module.WORK.get(request.workload)
        if work is None:
            return {"missing": f"{name} is not measured on {request.workload}"}
        if request.workload == "W3":  # for all of them before the clock starts: to make one takes as long as to save it
            for number in range(request.size):
                large(request.mode, number)
        found = work(request)
        return {"metrics": asyncio.run(found) if asyncio.iscoroutine(found) else found}
    except (NotAvailable, ModuleNotFoundError, PackageNotFoundError) as error:
        return {"missing": f"not available: {error}"}
    except Exception as error:  # a peer that breaks is a line of the report, not the end of the other measurements
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def main() -> None:
    """Answer until the requests end. What participants print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name = sys.argv[1]
    for line in sys.argv[3:] if sys.argv[2:3] == ["--once"] else sys.stdin:
        print(json.dumps(answer(name, Request.from_line(line))), file=channel, flush=True)


if __name__ == "__main__":
    main()
