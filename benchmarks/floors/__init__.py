"""The same work written by hand, with nothing that is not needed for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.floors.graphs import run_graph
from benchmarks.floors.streams import run_stream
from benchmarks.floors.tables import restore, save_growing, save_large, save_nodes

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("asyncpg",)

WORK: dict[str, Callable[..., Any]] = {
    "W1": run_graph,
    "W2": run_graph,
    "W3": save_large,
    "W4": restore,
    "W5": run_stream,
    "W6": save_growing,
    "W7": save_nodes,
}
