"""What a manager gives back: a run as it was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["CheckpointData", "NodeStateSnapshot"]


@dataclass(frozen=True, slots=True)
class NodeStateSnapshot:
    """Where one node stands.

    Args:
        node_id: the node.
        status: idle, scheduled, running, paused, completed, failed or suspended.
        attempt: how often it was begun, from 1.
        outputs: its values by handle.
        error: why it failed, as text.
        resume_state: what it keeps for when it goes on.
    """

    node_id: str
    status: str
    attempt: int = 1
    outputs: Mapping[str, Any] | None = None
    error: str | None = None
    resume_state: Any = None


@dataclass(frozen=True, slots=True)
class CheckpointData:
    """A run as of its newest checkpoint.

    Args:
        run_id: the run.
        checkpoint_time: when the checkpoint was taken, aware UTC.
        node_states: every node of which something is known.
        completed_nodes: those that are completed.
        active_nodes: those that are running or suspended.
        pending_nodes: those that are scheduled.
        context_data: what was saved beside the nodes.
    """

    run_id: str
    checkpoint_time: datetime
    node_states: Mapping[str, NodeStateSnapshot] = field(default_factory=dict)
    completed_nodes: set[str] = field(default_factory=set)
    active_nodes: set[str] = field(default_factory=set)
    pending_nodes: set[str] = field(default_factory=set)
    context_data: Mapping[str, Any] = field(default_factory=dict)
