"""Lanes: several of one node that work side by side, written out as nodes of the graph.

A node `fetch` with three lanes stands for `fetch/spread`, which gives each item to a lane that is free, for `fetch/1` to
`fetch/3`, which are what `fetch` is, and for `fetch`, which gathers what they return in the order of the items. From then on
these are nodes as all others are: to the cut, to the store and to people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

from workflow_runner.builtin import GATHER, INPUT, SPREAD
from workflow_runner.specs import EdgeSpec, NodeSpec

__all__ = ["MOST_LANES", "compare_lanes", "write_out"]

MOST_LANES: Final = 1_000


def write_out(
    nodes: Sequence[NodeSpec], edges: Sequence[EdgeSpec]
) -> tuple[Sequence[NodeSpec], Sequence[EdgeSpec], Sequence[str]]:
    """The nodes and edges of a graph, those with lanes as what they stand for.

    Edges that were there keep their places, and so their names. A node whose lanes cannot be made stays as it is.

    Args:
        nodes: of the graph.
        edges: of the graph.

    Returns:
        Nodes, edges, and what is wrong with the lanes of some.
    """
    laned = {node.id: node for node in nodes if node.has_lanes and isinstance(node.id, str)}
    if not laned:
        return nodes, edges, ()
    problems: list[str] = []
    types = {node.id: node.type for node in nodes if isinstance(node.id, str)}
    ending: dict[str, list[EdgeSpec]] = {node_id: [] for node_id in laned}
    for edge in edges:
        if edge.target in laned:
            ending[edge.target].append(edge)
    shared: dict[str, EdgeSpec] = {}
    for node in laned.values():
        into = ending[node.id]
        streams = [edge for edge in into if types.get(edge.source) != INPUT] or into[:1]
        problem = _problem(node, streams, into, types)
        if problem is None:
            (shared[node.id],) = streams
        else:
            problems.append(f"node {node.id!r}: {problem}")
    made = _Lanes({node_id: laned[node_id] for node_id in shared}, shared)
    return made.nodes(nodes), made.edges(edges), problems


def _is_possible(lanes: object) -> bool:
    return type(lanes) is int and 1 <= lanes <= MOST_LANES


def _problem(node: NodeSpec, streams: Sequence[EdgeSpec], into: Sequence[EdgeSpec], types: Mapping[str, str]) -> str | None:
    """Why the lanes of a node cannot be made.

    Args:
        node: the node.
        streams: edges whose items its lanes would share.
        into: all edges that end at it.
        types: of the nodes of the graph, by id.
    """
    if not _is_possible(node.lanes):
        return f'"lanes" is a number from 1 to {MOST_LANES:,}, not {node.lanes!r}.'
    if not streams:
        return "its lanes share the items of an edge, and none ends here. Add one."
    if len(streams) > 1:
        return (
            f"its lanes share the items of one edge, and {len(streams)} end here. Bring them together in a node before it, or "
            "give what stays the same as a property or an input of the run."
        )
    inputs = [edge for edge in into if edge is not streams[0]]
    if inputs and node.sync_mode != "on_any":
        return (
            f"what comes from an input of the run goes to all its lanes, which {node.sync_mode} cannot do. Leave sync_mode out."
        )
    handle = streams[0].target_handle
    if any(edge.target_handle == handle for edge in inputs):
        return f"what its lanes share comes to {handle!r}, and so does an input of the run. Take that at an input of its own."
    taken = next((made for made in _names(node) if made in types), None)
    return taken and f"its lanes need the id {taken!r}, which another node has. Rename that one."


def _names(node: NodeSpec) -> Iterable[str]:
    """The ids of the nodes that it stands for, but its own."""
    return (_spread(node.id), *(_lane(node.id, number) for number in range(1, node.lanes + 1)))


def _spread(node_id: str) -> str:
    return f"{node_id}/spread"


def _lane(node_id: str, number: int) -> str:
    return f"{node_id}/{number}"


class _Lanes:
    """Writes out lanes that can be made.

    Args:
        laned: nodes with lanes, by id.
        shared: the edge of each whose items its lanes share.
    """

    def __init__(self, laned: Mapping[str, NodeSpec], shared: Mapping[str, EdgeSpec]) -> None:
        self._laned = laned
        self._shared = shared

    def nodes(self, nodes: Sequence[NodeSpec]) -> list[NodeSpec]:
        made: list[NodeSpec] = []
        for node in nodes:
            if not isinstance(node.id, str) or self._laned.get(node.id) is not node:
                made.append(node)
                continue
            made.append(NodeSpec(_spread(node.id), SPREAD))
            made += [replace(node, id=_lane(node.id, number), lanes=1) for number in _numbers(node)]
            made.append(NodeSpec(node.id, GATHER))
        return made

    def edges(self, edges: Sequence[EdgeSpec]) -> list[EdgeSpec]:
        made: list[EdgeSpec] = []
        more: list[EdgeSpec] = []  # behind the others, with names of their own: a name may come from a place
        named: Counter[tuple[str, str]] = Counter()
        for edge in edges:
            node = self._laned.get(edge.target)
            if node is None:
                made.append(edge)
            elif edge is self._shared[node.id]:
                made.append(replace(edge, target=_spread(node.id), target_handle="items"))
            else:
                made.append(replace(edge, target=_lane(node.id, 1)))
                named[node.id, edge.target_handle] += 1  # several make a list
                name = f"{edge.target_handle}/{named[node.id, edge.target_handle]}"
                for lane in (_lane(node.id, number) for number in _numbers(node)[1:]):
                    more.append(replace(edge, target=lane, id=f"{lane}/{name}"))
        for node_id, node in self._laned.items():
            handle = self._shared[node_id].target_handle
            for number in _numbers(node):
                lane = _lane(node_id, number)
                more.append(EdgeSpec(_spread(node_id), "output", lane, handle, lane))
                more.append(EdgeSpec(lane, "output", node_id, "items", f"{lane}/output"))
            more.append(EdgeSpec(_spread(node_id), "order", node_id, "order", f"{node_id}/order"))
        return [*made, *more]


def _numbers(node: NodeSpec) -> range:
    return range(1, node.lanes + 1)


def compare_lanes(
    nodes: Sequence[NodeSpec], edges: Sequence[EdgeSpec], other_nodes: Sequence[NodeSpec], other_edges: Sequence[EdgeSpec]
) -> tuple[Sequence[str], Set[str]]:
    """Nodes that two graphs, both written out, have with different numbers of lanes.

    Returns:
        A line for each, and the ids of all that they stand for.
    """
    lines: list[str] = []
    parts: set[str] = set()
    lanes, other_lanes = _count_lanes(nodes, edges), _count_lanes(other_nodes, other_edges)
    in_both = {node.id for node in nodes} & {node.id for node in other_nodes}
    for node_id in dict.fromkeys((*lanes, *other_lanes)):
        before, after = lanes.get(node_id, 1), other_lanes.get(node_id, 1)
        if before != after and node_id in in_both:
            lines.append(f"node {node_id!r}: lanes {before} became {after}")
            parts.update((node_id, _spread(node_id), *(_lane(node_id, number) for number in range(1, max(before, after) + 1))))
    return lines, parts


def _count_lanes(nodes: Sequence[NodeSpec], edges: Sequence[EdgeSpec]) -> Mapping[str, int]:
    spreads = {node.id: node.id.removesuffix("/spread") for node in nodes if node.type == SPREAD}
    return Counter(spreads[edge.source] for edge in edges if edge.source in spreads and edge.source_handle == "output")
