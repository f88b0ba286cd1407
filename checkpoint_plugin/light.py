"""What is encoded sooner than it is handed to a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hookspecs import NodeSnapshot, RunInfo

__all__ = ["is_light", "is_light_start"]

LIGHT_NODES: Final = 16
LIGHT_ITEMS: Final = 32
LIGHT_BYTES: Final = 16_384


def is_light(nodes: Sequence[NodeSnapshot], saved_items: Mapping[str, int]) -> bool:
    """Whether encoding takes so little time that it may be done on the event loop.

    Args:
        nodes: of a cut.
        saved_items: how many items of each output node are stored.
    """
    return len(nodes) <= LIGHT_NODES and all(_is_light_node(node, saved_items.get(node.node_id, 0)) for node in nodes)


def is_light_start(run: RunInfo) -> bool:
    """The same of what a run is started with.

    Args:
        run: the run.
    """
    nodes, edges = run.graph.get("nodes", ()), run.graph.get("edges", ())
    if len(nodes) > LIGHT_NODES or len(edges) > LIGHT_ITEMS:
        return False
    values = (*run.inputs.values(), *(node["data"] for node in nodes))
    return all(map(_is_light_value, values)) and sum(map(_size, values)) <= LIGHT_BYTES


def _is_light_node(node: NodeSnapshot, saved: int) -> bool:
    if len(node.taken) + len(node.collected) - saved > LIGHT_ITEMS:
        return False
    values: list[Any] = [node.state, *node.collected[saved:]]
    if node.arguments:
        values += node.arguments.values()
    if node.latest:
        values += node.latest.values()
    if node.taken:
        values += [item for _, item in node.taken]
    if node.suspension is not None:
        values += (node.suspension.state, dict(node.suspension.metadata), node.suspension.answer)
    for edge in node.inbox:
        if len(edge.items) > LIGHT_ITEMS:
            return False
        values += edge.items
    return all(map(_is_light_value, values))


def _is_light_value(value: Any, depth: int = 2) -> bool:
    """Whether a value is small, as far as a quick look tells; what is not plain is not light."""
    kind = type(value)
    if value is None or kind in (bool, int, float):
        return True
    if kind in (str, bytes):
        return len(value) <= LIGHT_BYTES
    if not depth or kind not in (dict, list, tuple) or len(value) > LIGHT_ITEMS:
        return False
    return all(_is_light_value(item, depth - 1) for item in (value.values() if kind is dict else value))


def _size(value: Any) -> int:
    """About how many bytes a light value has: a thousand small ones in one are large."""
    kind = type(value)
    if kind in (str, bytes):
        return len(value)
    if kind is dict:
        return sum(map(_size, value)) + sum(map(_size, value.values()))
    return sum(map(_size, value)) if kind in (list, tuple) else 1
