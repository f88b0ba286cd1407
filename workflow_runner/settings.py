"""What a runner decides for all its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hookspecs import shorten
from workflow_runner.failure import ON_FAILURE, OnFailure
from workflow_runner.threads import BodyThread

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a runner decides for all its runs.

    Args:
        edge_capacity: items that an edge holds before its producer waits.
        max_edge_capacity: items to which an edge may grow to resolve a stall.
        max_log: stream items that a body may take without a commit while a plugin saves.
        max_threads: plain bodies of a run written with `def` that run at once; streams and generators have their own threads.
        grace_seconds: how long a stopped run waits for its bodies.
        threads: makes the thread of a `def` body.
        on_failure: what happens to the others when a node fails; `None` for what the graph says.

    Raises:
        ValueError: one of them makes no sense.
    """

    edge_capacity: int = 64
    max_edge_capacity: int = 65_536
    max_log: int = 10_000
    max_threads: int = 64
    grace_seconds: float = 5.0
    threads: Callable[[], BodyThread] = BodyThread
    on_failure: OnFailure | None = None

    def __post_init__(self) -> None:
        for name in ("edge_capacity", "max_edge_capacity", "max_log", "max_threads"):
            if type(value := getattr(self, name)) is not int:  # a semaphore that counts down from 1.5 never comes to 0
                raise ValueError(f"{name} is a whole number, not {shorten(value)}.")
        if self.edge_capacity < 1 or self.max_edge_capacity < self.edge_capacity:
            raise ValueError(
                "edge_capacity is at least 1 and at most max_edge_capacity, not "
                f"{self.edge_capacity} and {self.max_edge_capacity}."
            )
        if self.max_log < 1:
            raise ValueError(f"max_log is at least 1, not {self.max_log}: a body could not take a single item.")
        if self.max_threads < 1:
            raise ValueError(f"max_threads is at least 1, not {self.max_threads}: a body written with `def` would never start.")
        if type(self.grace_seconds) not in (int, float) or not self.grace_seconds >= 0:
            raise ValueError(f"grace_seconds is a number of at least 0, not {shorten(self.grace_seconds)}.")
        if self.on_failure is not None and self.on_failure not in ON_FAILURE:
            raise ValueError(f"on_failure is one of {', '.join(ON_FAILURE)}, not {shorten(self.on_failure)}.")
