"""The test double of the rule that items are values."""

from __future__ import annotations

from typing import Any

from hookspecs import NodeSnapshot
from tests.simulation.database import BrokenPromise, copied

__all__ = ["Witness"]


class Witness:
    """Keeps a copy of every item and state that it is shown, and asserts that the originals still equal them.

    This is the test double of the rule that items are values. It keeps the originals too, so ids stay unique.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, Any, list[str]]] = {}

    def remember(self, node: NodeSnapshot) -> None:
        """Keep what a node's cut holds."""
        self._keep(node.state, f"the state of node {node.node_id}")
        for edge in node.inbox:
            for item in edge.items:
                self._keep(item, f"an item on edge {edge.edge_id} to node {node.node_id}")
        for values in (node.arguments, node.latest):
            for handle, value in (values or {}).items():
                self._keep(value, f"what node {node.node_id} was given at {handle}")
        for edge_id, item in node.taken:
            self._keep(item, f"an item that node {node.node_id} took from edge {edge_id}")
        for item in node.collected:
            self._keep(item, f"an item that output {node.node_id} has collected")

    def check(self) -> None:
        """Compare everything kept.

        Raises:
            BrokenPromise: something changed, naming the nodes that held it.
        """
        for original, copy, places in self._kept.values():
            if original != copy:
                raise BrokenPromise(f"{', '.join(places)} was {copy!r} and is now {original!r}: items and states are values")

    def _keep(self, value: Any, where: str) -> None:
        if not isinstance(value, (list, dict, tuple)):
            return
        kept = self._kept.get(id(value))
        if kept is None:
            self._kept[id(value)] = (value, copied(value), [where])
        elif where not in kept[2]:
            kept[2].append(where)
