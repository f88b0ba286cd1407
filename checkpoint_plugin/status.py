"""The statuses of runs and nodes, which may follow which, and the one definition of a run that can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from hookspecs import NodeStatus, RunStatus

__all__ = [
    "EXECUTED",
    "INCOMPLETE",
    "NODE_STATUSES",
    "NODE_STEPS",
    "RESUMABLE",
    "RUN_STATUSES",
    "RUN_STEPS",
    "can_be_resumed",
]

RUN_STATUSES: Final[frozenset[str]] = frozenset(get_args(RunStatus))
NODE_STATUSES: Final[frozenset[str]] = frozenset(get_args(NodeStatus))
RESUMABLE: Final = frozenset({"scheduled", "running", "suspended", "paused", "failed", "recovering"})
"""A run of any of these can be resumed once it has a checkpoint; a completed or cancelled one never."""
EXECUTED: Final = ("running", "recovering")
"""How a run stands that a process executes, or a recovery is about to: the latter also where its process was only asleep."""
INCOMPLETE: Final = frozenset({"scheduled", "running", "suspended", "paused", "recovering"})
"""A run of any of these has not come to an end of any kind."""

_ENDS: Final = frozenset({"completed", "failed", "cancelled"})
_WAITS: Final = frozenset({"suspended", "paused", "scheduled", "recovering"})
RUN_STEPS: Final[Mapping[str, frozenset[str]]] = {
    "scheduled": frozenset({"running", "paused", "recovering", "failed", "cancelled"}),
    "running": _ENDS | _WAITS,
    "suspended": frozenset({"running", "suspended", "paused", "scheduled", "recovering", "failed", "cancelled"}),
    "paused": frozenset({"running", "scheduled", "recovering", "failed", "cancelled"}),
    "recovering": _ENDS | frozenset({"running", "suspended", "paused", "scheduled"}),
    "failed": frozenset({"running", "scheduled", "recovering", "cancelled"}),
    "completed": frozenset(),
    "cancelled": frozenset(),
}
"""What a run may become. A completed or cancelled run stays what it is; one that runs may be said to run again."""
NODE_STEPS: Final[Mapping[str, frozenset[str]]] = {
    "idle": frozenset({"scheduled", "running"}),
    "scheduled": frozenset({"idle", "running", "paused", "failed"}),
    "running": frozenset({"scheduled", "paused", "suspended", "completed", "failed"}),
    "paused": frozenset({"scheduled", "running", "failed"}),
    "suspended": frozenset({"scheduled", "running", "paused", "failed"}),
    "failed": frozenset({"scheduled", "running"}),
    "completed": frozenset({"scheduled"}),
}
"""What a node may become. A completed one can only be scheduled anew, never go on."""


def can_be_resumed(status: str, has_checkpoint: bool) -> bool:
    """Whether a run of this status can be resumed.

    Args:
        status: of the run.
        has_checkpoint: whether there is one to go on from.
    """
    return status in RESUMABLE and has_checkpoint
