"""What happens in a run, for whoever subscribes: a progress display, a log, a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hookspecs import CheckpointRef, NodeStatus, Suspension

__all__ = [
    "CheckpointSaved",
    "EdgeChanged",
    "Event",
    "NodeChanged",
    "NodeRetried",
    "NodeSuspended",
    "Progressed",
    "RunEnded",
    "RunStarted",
]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins; `completed` nodes were finished by an earlier attempt, up to `checkpoint`, and do not run again."""

    run_id: str
    attempt: int
    nodes: int
    completed: int
    checkpoint: int | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended: `completed`, `failed`, `paused` (stopped from outside, resumable), `cancelled` (in the store) or
    `suspended` (nodes wait)."""

    run_id: str
    status: Literal["cancelled", "completed", "failed", "paused", "suspended"]
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node has a new status, or begins a firing; `firings` begun so far, of a lane the number of its item."""

    run_id: str
    node_id: str
    status: NodeStatus
    firings: int


@dataclass(frozen=True, slots=True)
class NodeRetried:
    """A try of a node raised `error`; try number `attempt` begins after `delay_seconds`."""

    run_id: str
    node_id: str
    attempt: int
    delay_seconds: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class NodeSuspended:
    """A node waits, its body is over; `suspension` says for what. It is stored in a moment, and may be answered from then on."""

    run_id: str
    node_id: str
    suspension: Suspension


@dataclass(frozen=True, slots=True)
class EdgeChanged:
    """An edge ended (no more items come) or its bound grew to `capacity` items to resolve a stall."""

    run_id: str
    edge_id: str
    status: Literal["grown", "ended"]
    capacity: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """A body reported progress: `done` of `total` (unknown: `None`), in units of its own."""

    run_id: str
    node_id: str
    done: float
    total: float | None


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is durable, `seconds` after its cut; `steps_behind` and `bytes_behind` (estimated) were emitted since."""

    run_id: str
    ref: CheckpointRef
    seconds: float = 0.0
    steps_behind: int = 0
    bytes_behind: int = 0


Event = RunStarted | RunEnded | NodeChanged | NodeRetried | NodeSuspended | EdgeChanged | Progressed | CheckpointSaved
