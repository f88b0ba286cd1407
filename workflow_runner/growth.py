"""Which edge may hold more items when every actor waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.edge import Edge

__all__ = ["Growth"]


class Growth:
    """Lets full edges grow, the smallest first.

    Args:
        actors: of the run, as they are born and end.
        limit: items to which an edge may grow.
    """

    def __init__(self, actors: Mapping[str, Actor], limit: int) -> None:
        self._actors = actors
        self._limit = limit
        self._next: list[Edge] = []
        """Edges that were full at the last look and may grow next, the last first."""

    def grow(self) -> Edge | None:
        """Double the bound of a full edge with the smallest one; `None` where none may grow."""
        edge = self._smallest()
        if edge is None or edge.capacity >= self._limit:
            return None
        edge.capacity = min(edge.capacity * 2, self._limit)
        return edge

    def full_edges(self) -> list[Edge]:
        """Edges at which a producer waits for room, the smallest first."""
        edges = (edge for actor in self._actors.values() for edge in actor.in_edges)
        return sorted((edge for edge in edges if _is_full(edge)), key=lambda edge: edge.capacity)

    def _smallest(self) -> Edge | None:
        """A full edge with the smallest bound; `None` where none is full.

        Those of one bound come one after the other before it is looked anew: of thousands, each lets only its own producer go on.
        """
        while self._next:
            edge = self._next.pop()
            if _is_full(edge):
                return edge
        full = self.full_edges()
        if not full:
            return None
        self._next = [edge for edge in reversed(full) if edge.capacity == full[0].capacity]
        return self._next.pop()


def _is_full(edge: Edge) -> bool:
    return edge.writer is not None and edge.writer.open
