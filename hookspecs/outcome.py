"""How a run or a firing ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hookspecs.snapshot import Suspension

__all__ = ["Cancelled", "Completed", "Failed", "Outcome", "Suspended"]


@dataclass(frozen=True, slots=True)
class Completed:
    """It came to its end.

    Args:
        outputs: of a firing whose body returns the emitted value by handle, empty where it yields; of a run the collected
            items (a list) by output name.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """It raised.

    Args:
        error: the original exception.
        node_id: the node that raised; `None` when the fault lies outside every node (a hook, a deadlock).
        retry_seconds: of a firing that is tried again: after so many seconds.
    """

    error: BaseException
    node_id: str | None = None
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was stopped from outside before its end.

    Args:
        reason: `"signal"`, `"cancel"`, or the word that the run was stopped with; for a firing also `"failure"` of something
            else, `"suspend"` where nothing in the run can move any more, `"lost"` where a plugin ended it.
    """

    reason: str = "cancel"


@dataclass(frozen=True, slots=True)
class Suspended:
    """Nothing in it can move before an answer or a time has come.

    Args:
        suspensions: what its nodes wait for, by node id; of a firing its own.
    """

    suspensions: Mapping[str, Suspension]


Outcome = Completed | Failed | Cancelled | Suspended
