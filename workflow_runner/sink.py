"""Actors without a body: an Output collects its items, a Preview lets them go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workflow_runner.actor import Actor
from workflow_runner.edge import Edge

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["SinkActor"]


class SinkActor(Actor):
    """Takes every item of its edge at once."""

    collected: list[Any]

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        super().__init__(run, planned, in_edges)
        self.collected = []
        if self.type.role == "output":
            run.collected[self.node_id] = self.collected

    def choose_publish(self) -> None:
        """It emits nothing that could be held."""
        self.publish = self._refuse

    async def live(self) -> None:
        keeps = self.type.role == "output"
        (edge,) = self.in_edges
        while not edge.drained:
            if edge.items:
                if keeps:
                    self.collected.extend(edge.items)
                edge.items.clear()
                edge.release_writer()
            else:
                await self.wait_for_items((edge,))
        self.check_alive()
        self.complete()
