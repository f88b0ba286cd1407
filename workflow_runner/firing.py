"""The actor of a node that fires once for each aligned set of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow_runner.aligner import Aligner, OnAny, Once, make_aligner
from workflow_runner.body import BodyActor

__all__ = ["FiringActor"]


class FiringActor(BodyActor):
    """Fires once for each aligned set of inputs; without inputs, once."""

    _aligner: Aligner | None = None

    @property
    def aligner(self) -> Aligner:
        """What makes sets of its inputs; made for the first who asks."""
        if self._aligner is None:
            self._aligner = make_aligner(self.in_edges, self.planned.sync_mode, self.node_id)
        return self._aligner

    def over(self) -> bool:
        return self.aligner.over()

    async def live(self) -> None:
        aligner = self.aligner
        if self.firing and isinstance(aligner, Once):
            aligner.fired = True
        if self.arguments is not None:
            await self.fire(None)
        while self.status == "running":
            values = aligner.take()
            if values is not None:
                await self.fire(self.planned.name_values(values))
            elif aligner.over():
                self.complete()
                await self.settle()
            else:
                await self.wait_for_items(aligner.missing(), of_each=aligner.gathers)

    body_values = BodyActor.values

    def latest(self) -> Mapping[str, Any] | None:
        """The latest value of each edge, where the mode keeps them."""
        aligner = self._aligner  # not made for this question: a cut asks it of actors that never need one
        return aligner.snapshot() if isinstance(aligner, OnAny) else None

    def restore_latest(self, latest: Mapping[str, Any] | None) -> None:
        """Take back what `latest` gave."""
        if latest is not None and isinstance(self.aligner, OnAny):
            self.aligner.restore(latest)
