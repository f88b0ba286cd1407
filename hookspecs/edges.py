"""The names of edges: a runner saves under them what waits on an edge, and a plugin finds it again."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

__all__ = ["name_edge", "name_edges"]


def name_edge(place: int, taken: Container[str]) -> str:
    """The name of an edge without an id: by its place, which a resume keeps, as it runs the stored graph.

    Args:
        place: among the edges of the graph.
        taken: the ids that are given; no other name can be the same.
    """
    name = f"e{place}"
    while name in taken:
        name = f"{name}'"
    return name


def name_edges(edges: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of all edges of a graph: their ids, or as `name_edge` where they have none.

    Args:
        edges: of the graph's document, in order.
    """
    ids = [edge.get("id") for edge in edges]
    taken = {edge_id for edge_id in ids if isinstance(edge_id, str)}
    return [edge_id if isinstance(edge_id, str) and edge_id else name_edge(place, taken) for place, edge_id in enumerate(ids)]
