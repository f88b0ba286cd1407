"""What a graph consists of: its nodes and edges, as its document has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workflow_runner.aligner import SyncMode

__all__ = ["SYNC_MODES", "EdgeSpec", "NodeSpec"]

SYNC_MODES: tuple[SyncMode, ...] = ("on_any", "zip_all", "zip_shortest")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node of a graph.

    Args:
        id: its name.
        type: the name of its type.
        data: its properties, by handle.
        sync_mode: how the items of several edges make a firing.
        failure: what overrides the failure policy of its type: `retries`, `backoff`, `timeout`, `replayable`.
        lanes: how many of it work side by side; see `lanes`.
    """

    id: str
    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    sync_mode: SyncMode = "on_any"
    failure: Mapping[str, Any] = field(default_factory=dict)
    lanes: int = 1

    @property
    def has_lanes(self) -> bool:
        """Whether it stands for several, or says so in a way that is wrong."""
        return type(self.lanes) is not int or self.lanes != 1


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """An edge of a graph.

    Args:
        source: id of the node that emits.
        source_handle: its output.
        target: id of the node that receives.
        target_handle: its input.
        id: its name; without one it is known by its place.
    """

    source: str
    source_handle: str
    target: str
    target_handle: str
    id: str | None = None
