"""What is left of a stored graph of which nodes are over: a resume of a long run plans and builds nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

from workflow_runner.builtin import INPUT, OUTPUT
from workflow_runner.graph import Graph
from workflow_runner.plan import name_edge

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
        the other ends of these, of which edges may be missing.
    """
    edges = document["edges"]
    touching = [(place, edge) for place, edge in enumerate(edges) if not (edge["source"] in over and edge["target"] in over)]
    ends = {end for _, edge in touching for end in (edge["source"], edge["target"])}
    nodes = [n for n in document["nodes"] if n["id"] not in over or n["id"] in ends or n["type"] in NAMED]
    return Graph.from_document({**document, "nodes": nodes, "edges": _named(touching, edges)})


def _named(touching: Sequence[tuple[int, Mapping[str, Any]]], edges: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Some of all edges, those without an id under the names that their places give them."""
    if all("id" in edge for _, edge in touching):
        return [edge for _, edge in touching]
    taken = {edge["id"] for edge in edges if "id" in edge}
    return [edge if "id" in edge else {**edge, "id": name_edge(place, taken)} for place, edge in touching]
