"""What this project needs for each workload, through its public interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.ours.manager import run_manager
from benchmarks.ours.pause import run_pause
from benchmarks.ours.runs import run_graph, run_growing, run_large
from benchmarks.ours.start import run_start
from benchmarks.ours.streams import run_stream
from benchmarks.ours.unfinished import run_unfinished

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("workflow-runner", "workflow-checkpoint", "sqlmodel", "asyncpg")

WORK: dict[str, Callable[..., Any]] = {
    "W1": run_graph,
    "W2": run_graph,
    "W3": run_large,
    "W4": run_unfinished,
    "W5": run_stream,
    "W6": run_growing,
    "W7": run_manager,
    "W8": run_pause,
    "W9": run_start,
}
