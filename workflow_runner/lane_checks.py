"""Whether what a plan has of lanes fits together: what is a lane, and what lies around lanes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow_runner.nodetype import NodeType
    from workflow_runner.plan import PlannedNode

__all__ = ["find_fault", "find_unfit", "lanes_of"]


def lanes_of(spread: PlannedNode) -> Sequence[PlannedNode]:
    """The lanes of a planned `workflow.Spread`."""
    return [edge.target for edge in spread.out_edges if edge.source_handle == "output"]


def find_fault(node: PlannedNode, over: Set[str]) -> str | None:
    """What is wrong with a planned `workflow.Spread` or `workflow.Gather`, if anything.

    Args:
        node: the node.
        over: nodes that are over, of which parts may be missing.
    """
    if node.node_id in over:
        return None
    if node.type.role == "spread" and node.in_edges and _is_gathered(node):
        name = node.node_id.removesuffix("/spread")
        mend = "Go on with code that returns one."  # it is of a stored graph: else it was told before lanes were written out
        faults = (find_unfit(name, lane.type, mend) or _stray(name, lane, node) for lane in lanes_of(node))
        return next((fault for fault in faults if fault is not None), None)
    lanes = [edge.source for edge in node.in_edges if edge.target_handle == "items"]
    for edge in node.in_edges:
        spread = edge.source
        if edge.target_handle == "order" and (
            spread.node_id in over or (spread.type.role == "spread" and lanes_of(spread) == lanes)
        ):
            return None
    return f'node {node.node_id!r}: {node.type.name!r} is made of "lanes", and not written by hand. Use them.'


def _is_gathered(spread: PlannedNode) -> bool:
    """Whether one node, and no other, hears in which order a planned `workflow.Spread` hands out."""
    return [edge.target.type.role for edge in spread.out_edges if edge.source_handle == "order"] == ["gather"]


def find_unfit(name: str, kind: NodeType, mend: str = 'Take "lanes" out.') -> str | None:
    """Why a node of a type can have no lanes, if so, and what to do."""
    why = _unfit(kind)
    return why and f"node {name!r}: lanes need one output for each item, and {why}. {mend}"


def _stray(name: str, lane: PlannedNode, spread: PlannedNode) -> str | None:
    """Why what comes to a single lane besides its items may not: each item of it would be one more result."""
    others = (edge.source for edge in lane.in_edges if edge.source is not spread)
    other = next((source.node_id for source in others if source.type.role != "input"), None)
    return other and (
        f"node {lane.node_id!r}: as a lane of {name!r} it takes items from that alone, not from {other!r}. Give what is its own "
        "as an input of the run."
    )


def _unfit(kind: NodeType) -> str | None:
    if kind.role != "body":
        return f"{kind.name!r} has no body"
    if kind.streams:
        return f"{kind.name!r} reads a stream"
    if kind.generates:
        return f"{kind.name!r} yields any number of them"
    return f"{kind.name!r} may leave some of its outputs out" if kind.emits_mapping else None
