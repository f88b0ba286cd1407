"""The shape of a graph, of whatever kind it is: its nodes, their types, and the edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hookspecs import shorten

__all__ = ["Edge", "GraphShape", "read_shape"]

Edge = tuple[str, str, str, str]
"""Source, its handle, target, its handle."""


@dataclass(frozen=True, slots=True)
class GraphShape:
    """Nodes and edges, without what the nodes hold.

    Args:
        nodes: types by node id; empty where a node tells none.
        edges: as they stand in the graph.
    """

    nodes: Mapping[str, str]
    edges: tuple[Edge, ...]

    def to_document(self) -> dict[str, Any]:
        """The same as the document of a workflow."""
        names = ("source", "sourceHandle", "target", "targetHandle")
        return {
            "nodes": [{"id": node_id, "type": kind, "data": {}} for node_id, kind in self.nodes.items()],
            "edges": [{"id": f"e{place}", **dict(zip(names, edge, strict=True))} for place, edge in enumerate(self.edges)],
        }

    def differences(self, stored: GraphShape, known: Iterable[str]) -> list[str]:
        """Why what is stored does not fit this graph; nothing when it does. Nodes may have been added.

        Args:
            stored: the graph that was saved.
            known: nodes of which something is stored.
        """
        missing = [f"node {node_id!r} is missing" for node_id in sorted(known) if node_id not in self.nodes]
        kept = [node_id for node_id in stored.nodes if node_id in self.nodes]
        changed = [
            f"node {node_id!r} is {self.nodes[node_id]!r}, and was {stored.nodes[node_id]!r}"
            for node_id in kept
            if self.nodes[node_id] != stored.nodes[node_id]
        ]
        old, new = _between(stored.edges, stored.nodes), _between(self.edges, stored.nodes)
        lost = [f"edge {_shown(edge)} is missing" for edge in sorted(old - new)]
        added = [f"edge {_shown(edge)} is new" for edge in sorted(new - old)]
        return [*missing, *changed, *lost, *added]


def read_shape(graph: Any) -> GraphShape:
    """The shape of a document, of a graph object with `to_document`, or of anything with nodes and edges.

    Args:
        graph: nodes may be ids, mappings or objects with an id and maybe a type, or a mapping of these by id; edges
            mappings or objects with source and target and maybe handles.

    Raises:
        ValueError: it has no nodes, or a node or an edge cannot be read.
    """
    if hasattr(graph, "written_out"):  # of the runner, which stores lanes as nodes of their own
        graph, _ = graph.written_out()
    document = graph.to_document() if hasattr(graph, "to_document") else graph
    found = _field(document, "nodes")
    if found is None:
        raise ValueError("it has no nodes: give a mapping or an object with nodes and edges")
    nodes: dict[str, str] = {}
    if isinstance(found, Mapping):
        nodes = {_text(node_id, "a node's id"): _kind(node) for node_id, node in found.items()}
    else:
        for node in found:
            node_id = _text(node if isinstance(node, str) else _field(node, "id", "node_id"), "a node's id")
            if node_id in nodes:
                raise ValueError(f"node {node_id!r} is there twice")
            nodes[node_id] = _kind(node)
    edges = tuple(_edge(edge) for edge in _field(document, "edges") or ())
    return GraphShape(nodes, edges)


def _edge(edge: Any) -> Edge:
    source = _text(_field(edge, "source", "source_id"), "an edge's source")
    target = _text(_field(edge, "target", "target_id"), "an edge's target")
    source_handle, target_handle = _field(edge, "sourceHandle", "source_handle"), _field(edge, "targetHandle", "target_handle")
    return source, _handle(source_handle), target, _handle(target_handle)


def _handle(value: Any) -> str:
    """A handle as text, also where it is the number of a port; empty where the edge names none."""
    if value is None:
        return ""
    if not isinstance(value, str | int):
        raise ValueError(f"an edge's handle is text, not {shorten(value)}")
    return str(value)


def _kind(node: Any) -> str:
    kind = None if isinstance(node, str) else _field(node, "type", "node_type")
    return kind if isinstance(kind, str) else ""


def _field(item: Any, *names: str) -> Any:
    for name in names:
        found = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
        if found is not None:
            return found
    return None


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what} is text, not {shorten(value)}")
    return value


def _between(edges: Iterable[Edge], nodes: Mapping[str, str]) -> set[Edge]:
    return {edge for edge in edges if edge[0] in nodes and edge[2] in nodes}


def _shown(edge: Edge) -> str:
    source, source_handle, target, target_handle = edge
    return f"{source}{'.' * bool(source_handle)}{source_handle} → {target}{'.' * bool(target_handle)}{target_handle}"
