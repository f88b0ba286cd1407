"""How a plain node's items become sets of arguments: `on_any`, `zip_all`, `zip_shortest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from workflow_runner.arrivals import ArrivalOrder
from workflow_runner.edge import Edge
from workflow_runner.errors import NodeProtocolError

__all__ = ["Aligner", "OnAny", "Once", "OneEdge", "SyncMode", "Values", "Zip", "make_aligner"]

SyncMode = Literal["on_any", "zip_all", "zip_shortest"]
Values = list[Any]
"""One value of each edge, in the order of the edges."""


class Aligner:
    """Takes sets of values off a node's edges. What does not make a set yet stays in the edges, within their bounds."""

    gathers = False
    """Whether a set takes an item of each of the edges that are missing."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.edges = edges

    def take(self) -> Values | None:
        """The next set, `None` while there is none."""
        raise AssertionError

    def over(self) -> bool:
        """Whether no further set can come."""
        raise AssertionError

    def missing(self) -> tuple[Edge, ...]:
        """The edges whose next item (or end) could change the answer."""
        return tuple(edge for edge in self.edges if not edge.ended)


class Once(Aligner):
    """A node without edges fires once."""

    def __init__(self, edges: Sequence[Edge] = ()) -> None:
        super().__init__(())
        self.fired = False

    def take(self) -> Values | None:
        if self.fired:
            return None
        self.fired = True
        return []

    def over(self) -> bool:
        return self.fired


class OneEdge(Aligner):
    """One edge: every item fires, whatever the mode."""

    def take(self) -> Values | None:
        edge = self.edges[0]
        return [edge.pop()] if edge.items else None

    def over(self) -> bool:
        edge = self.edges[0]
        return edge.ended and not edge.items


class Zip(Aligner):
    """One item of each edge. Unequal lengths are an error, unless `shortest`."""

    def __init__(self, edges: Sequence[Edge], node_id: str, *, shortest: bool) -> None:
        super().__init__(edges)
        self.node_id = node_id
        self.shortest = shortest

    def take(self) -> Values | None:
        for edge in self.edges:
            if not edge.items:
                return None
        return [edge.pop() for edge in self.edges]

    def over(self) -> bool:
        drained = [edge for edge in self.edges if edge.drained]
        if not drained:
            return False
        if self.shortest:
            return True
        longer = [edge for edge in self.edges if edge.items]
        if longer:
            raise NodeProtocolError(
                f"node {self.node_id!r}: zip_all needs inputs of equal length, but {_names(drained)} ended "
                f"while {_names(longer)} still had items. Make them equal, or use sync_mode zip_shortest."
            )
        return len(drained) == len(self.edges)

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        return not any(edge.drained for edge in self.edges)  # else one item more is one too many

    def missing(self) -> tuple[Edge, ...]:
        return _without_items(self.edges)


class OnAny(Aligner):
    """Each item fires with the latest of the other edges, once every edge has had one.

    Until then arrivals wait in the edges, in order. The first set takes the first item of each edge, then every waiting
    and later item fires once, in arrival order: so the number of firings does not depend on timing.
    """

    def __init__(self, edges: Sequence[Edge], order: ArrivalOrder) -> None:
        super().__init__(edges)
        self.order = order
        self.latest: dict[Edge, Any] | None = None

    def take(self) -> Values | None:
        if self.latest is None:
            for edge in self.edges:
                if not edge.items:
                    return None
            self.latest = {edge: edge.pop() for edge in self.edges}
        elif self.order:
            edge = self.order[0]
            self.latest[edge] = edge.pop()
        else:
            return None
        return list(self.latest.values())

    def over(self) -> bool:
        if self.latest is None:
            return any(edge.drained for edge in self.edges)
        return not self.order and all(edge.ended for edge in self.edges)

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        return self.latest is None

    def missing(self) -> tuple[Edge, ...]:
        return super().missing() if self.latest is not None else _without_items(self.edges)

    def snapshot(self) -> Mapping[str, Any] | None:
        """The latest values by edge id."""
        return None if self.latest is None else {edge.edge_id: value for edge, value in self.latest.items()}

    def restore(self, latest: Mapping[str, Any]) -> None:
        """Take back what `snapshot` gave."""
        self.latest = {edge: latest[edge.edge_id] for edge in self.edges}


def make_aligner(edges: Sequence[Edge], mode: SyncMode, node_id: str) -> Aligner:
    """The aligner of a plain node."""
    if not edges:
        return Once()
    if len(edges) == 1:
        return OneEdge(edges)
    if mode == "on_any":
        order = edges[0].order
        assert order is not None
        return OnAny(edges, order)
    return Zip(edges, node_id, shortest=mode == "zip_shortest")


def _without_items(edges: Sequence[Edge]) -> tuple[Edge, ...]:
    """Those that have none and have not ended."""
    return tuple(edge for edge in edges if not edge.items and not edge.ended)


def _names(edges: Sequence[Edge]) -> str:
    return ", ".join(repr(edge.edge_id) for edge in edges)
