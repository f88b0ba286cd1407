"""Actors without a body: an Output collects its items, a Preview lets them go."""

from __future__ import annotations

from workflow_runner.actor import Actor

__all__ = ["SinkActor"]


class SinkActor(Actor):
    """Takes every item of its edge at once."""

    def choose_publish(self) -> None:
        """It emits nothing that could be held."""

    async def live(self) -> None:
        keeps = self.type.role == "output"
        (edge,) = self.in_edges
        items = edge.items
        while not edge.drained:
            if items:
                if keeps:
                    self.collected.extend(items)
                items.clear()
                edge.release_writer()
                if not edge.ended:
                    continue
            else:
                await self.wait_for_items((edge,))
        self.check_alive()
        self.complete()
