"""Kedro: a `Pipeline` on `SequentialRunner`, every output in memory."""

from __future__ import annotations

import logging
from typing import Any

from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro.runner import SequentialRunner

from benchmarks.payloads import following, kilobyte
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("kedro",)


async def run_graph(request: Request) -> dict[str, float]:
    """W1, W2."""
    logging.disable(logging.WARNING)
    if request.workload == "W1":
        steps = [node(following, f"d{number}", f"d{number + 1}", name=f"n{number}") for number in range(request.size)]
    else:
        names = [f"o{number}" for number in range(request.size)]
        steps = [node(_first, "d0", "source", name="source"), node(_count, names, "end", name="end")]
        steps += [node(_branch(number), "source", name, name=name) for number, name in enumerate(names)]
    end = f"d{request.size}" if request.workload == "W1" else "end"
    graph = pipeline(steps)
    catalog = DataCatalog({"d0": MemoryDataset(data={"text": kilobyte(0)}), end: MemoryDataset()})

    async def work() -> None:
        SequentialRunner().run(graph, catalog)

    seconds, _ = await clocked(work)
    found = catalog.load(end)
    assert (found if isinstance(found, int) else int(found["text"][:8])) == request.size
    return {"seconds": seconds}


def _first(value: dict[str, str]) -> dict[str, str]:
    return {"text": kilobyte(0)}


def _branch(number: int) -> Any:
    def branch(value: dict[str, str]) -> dict[str, str]:
        return {"text": kilobyte(number + 1)}

    return branch


def _count(*values: Any) -> int:
    return len(values)


WORK = {"W1": run_graph, "W2": run_graph}
