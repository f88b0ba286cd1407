"""What is encoded sooner than it is handed to a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hookspecs import NodeSnapshot, RunInfo

__all__ = ["is_light", "is_light_start"]

LIGHT_NODES: Final = 16
LIGHT_ITEMS: Final = 32
LIGHT_BYTES: Final = 32_768
"""Of all values together: a thousand small ones in one are large."""
HEAVY: Final = 1 << 40
"""What a quick look does not see through counts for."""


def is_light(nodes: Sequence[NodeSnapshot], saved_items: Mapping[str, int], context: Any = None) -> bool:
    """Whether encoding takes so little time that it may be done on the event loop.

    Args:
        nodes: of a cut.
        saved_items: how many items of each output node are stored.
        context: what is saved beside the nodes.
    """
    if len(nodes) > LIGHT_NODES:
        return False
    return sum([_weigh(node, saved_items.get(node.node_id, 0)) for node in nodes], _bytes(context)) <= LIGHT_BYTES


def is_light_start(run: RunInfo) -> bool:
    """The same of what a run is started with.

    Args:
        run: the run.
    """
    nodes, edges = run.graph.get("nodes", ()), run.graph.get("edges", ())
    if len(nodes) > LIGHT_NODES or len(edges) > LIGHT_ITEMS:
        return False
    return sum(map(_bytes, (*run.inputs.values(), *(node["data"] for node in nodes)))) <= LIGHT_BYTES


def _weigh(node: NodeSnapshot, saved: int) -> int:
    if len(node.taken) + len(node.collected) - saved > LIGHT_ITEMS:
        return HEAVY
    values: list[Any] = [node.state, *node.collected[saved:]]
    if node.arguments:
        values += node.arguments.values()
    if node.latest:
        values += node.latest.values()
    if node.taken:
        values += [item for _, item in node.taken]
    if node.suspension is not None:
        values += (node.suspension.state, dict(node.suspension.metadata), node.suspension.answer)
        values += [answer for _, answer in node.suspension.earlier]
    for edge in node.inbox:
        if len(edge.items) > LIGHT_ITEMS:
            return HEAVY
        values += edge.items
    return sum(map(_bytes, values))


def _bytes(value: Any, depth: int = 2) -> int:
    """About how many bytes a value has, as far as a quick look tells; what is not plain is heavy."""
    kind = type(value)
    if kind in (str, bytes):
        return len(value)
    if value is None or kind in (bool, float):
        return 1
    if kind is int:
        return 1 + (int(value).bit_length() >> 3)
    if not depth or kind not in (dict, list, tuple) or len(value) > LIGHT_ITEMS:
        return HEAVY
    if kind is dict:
        return sum([_bytes(key, 0) + _bytes(item, depth - 1) for key, item in value.items()])
    return sum([_bytes(item, depth - 1) for item in value])
