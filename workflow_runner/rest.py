"""What is left of a stored graph of which nodes are over: a resume of a long run plans and builds nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

from hookspecs import GraphColumns, name_edge
from workflow_runner.builtin import INPUT, OUTPUT
from workflow_runner.graph import Graph

__all__ = ["rest_of"]

NAMED: Final = frozenset({INPUT, OUTPUT})
"""Types that the run's inputs and outputs are known by, over or not."""


def rest_of(document: Mapping[str, Any], over: Set[str]) -> Graph:
    """The nodes that are not over, and what touches them.

    Args:
        document: of a whole graph, as `Graph.to_document` gave it.
        over: ids of nodes that are over.

    Returns:
        A graph with the other nodes, all their edges under the names that they have in the whole graph, and the nodes at
        the other ends of these, of which edges may be missing. The whole graph where the document has another form.
    """
    columns = GraphColumns.of(document)
    if columns is None:
        return Graph.from_document(document)
    left = columns.left(over)
    touching = columns.touching(left)
    wanted = {*left, *columns.ends(touching), *columns.of_types(NAMED)}
    nodes = [columns.node(place) for place in sorted(wanted)]
    return Graph.from_document({**columns.other, "nodes": nodes, "edges": _named(touching, columns)})


def _named(places: Sequence[int], columns: GraphColumns) -> list[dict[str, Any]]:
    """The edges at some places, those without an id under the names that their places give them."""
    edges = [columns.edge(place) for place in places]
    if all("id" in edge for edge in edges):
        return edges
    taken = frozenset(columns.edge_ids)
    return [edge if "id" in edge else {**edge, "id": name_edge(place, taken)} for place, edge in zip(places, edges, strict=True)]
