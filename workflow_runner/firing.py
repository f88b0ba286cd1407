"""The actor of a node that fires once for each aligned set of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workflow_runner.aligner import OnAny, Once, make_aligner
from workflow_runner.body import BodyActor
from workflow_runner.edge import Edge

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["FiringActor"]


class FiringActor(BodyActor):
    """Fires once for each aligned set of inputs; without inputs, once."""

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        super().__init__(run, planned, in_edges)
        self.aligner = make_aligner(in_edges, planned.sync_mode, planned.node_id)

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
                await self.wait_for_items(aligner.missing())

    body_values = BodyActor.values

    def latest(self) -> Mapping[str, Any] | None:
        """The latest value of each edge, where the mode keeps them."""
        return self.aligner.snapshot() if isinstance(self.aligner, OnAny) else None

    def restore_latest(self, latest: Mapping[str, Any] | None) -> None:
        """Take back what `latest` gave."""
        if isinstance(self.aligner, OnAny):
            self.aligner.restore(latest)
