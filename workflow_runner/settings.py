"""What a runner decides for all its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workflow_runner.failure import OnFailure
from workflow_runner.threads import BodyThread

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a runner decides for all its runs.

    Args:
        edge_capacity: items that an edge holds before its producer waits.
        max_edge_capacity: items to which an edge may grow to resolve a stall.
        max_log: stream items that a body may take without a commit while a plugin saves.
        max_threads: bodies written with plain `def` that run at once; streams and generators have threads of their own.
        grace_seconds: how long a stopped run waits for its bodies.
        threads: makes the thread of a `def` body.
        on_failure: what happens to the others when a node fails; `None` for what the graph says.
    """

    edge_capacity: int = 64
    max_edge_capacity: int = 65_536
    max_log: int = 10_000
    max_threads: int = 64
    grace_seconds: float = 5.0
    threads: Callable[[], BodyThread] = BodyThread
    on_failure: OnFailure | None = None
