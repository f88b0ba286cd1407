"""What two graphs differ in, and when two values are the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hookspecs import TaggedValueError, to_tagged
from workflow_runner.specs import EdgeSpec, NodeSpec

__all__ = ["differences", "is_same"]


class _Nothing:
    def __repr__(self) -> str:
        return "not set"


_NOTHING = _Nothing()


def differences(
    nodes: Sequence[NodeSpec], edges: Sequence[EdgeSpec], other_nodes: Sequence[NodeSpec], other_edges: Sequence[EdgeSpec]
) -> list[str]:
    """What other nodes and edges have otherwise, one line each; ids of edges do not count."""
    lines: list[str] = []
    mine, others = {n.id: n for n in nodes}, {n.id: n for n in other_nodes}
    lines += [f"node {i!r} is gone" for i in mine if i not in others]
    lines += [f"node {i!r} is new" for i in others if i not in mine]
    for i, node in mine.items():
        changed = others.get(i)
        if changed is None:
            continue
        if changed.type != node.type:
            lines.append(f"node {i!r}: type {node.type!r} became {changed.type!r}")
        if changed.sync_mode != node.sync_mode:
            lines.append(f"node {i!r}: sync_mode {node.sync_mode!r} became {changed.sync_mode!r}")
        for key in sorted({*node.data, *changed.data}, key=str):
            before, after = node.data.get(key, _NOTHING), changed.data.get(key, _NOTHING)
            if not is_same(before, after):
                lines.append(f"node {i!r}: property {key!r} was {before!r} and is {after!r}")
    lines += _edge_differences(edges, other_edges)
    return lines


def _edge_differences(mine: Sequence[EdgeSpec], others: Sequence[EdgeSpec]) -> list[str]:
    # Per target handle the order counts: a list handle collects in the order of its edges.
    def by_target(edges: Sequence[EdgeSpec]) -> dict[tuple[str, str], list[tuple[str, str]]]:
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for edge in edges:
            found.setdefault((edge.target, edge.target_handle), []).append((edge.source, edge.source_handle))
        return found

    def tell(sources: Sequence[tuple[str, str]]) -> str:
        return ", ".join(map(".".join, sources)) or "nowhere"

    before, after = by_target(mine), by_target(others)
    return [
        f"edges into {target}.{handle}: from {tell(before.get((target, handle), []))} "
        f"became from {tell(after.get((target, handle), []))}"
        for target, handle in sorted({*before, *after})
        if before.get((target, handle)) != after.get((target, handle))
    ]


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same type: 1, 1.0 and True differ, and NaN equals itself."""
    try:
        return bool(_comparable(one) == _comparable(other))
    except TaggedValueError:  # something in them is of a type that is registered for the store
        pass
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    try:
        return one is other or _is_equal(one, other)
    except Exception:  # it is anybody's comparison
        return False


def _is_equal(one: Any, other: Any) -> bool:
    """Whether two values of a type that the runner does not know are equal: of arrays and tables `==` gives no one answer."""
    if hasattr(one, "dtype") and hasattr(one, "tobytes"):  # an array or a number of numpy: as exactly as it is stored
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    equals = getattr(one, "equals", None)  # a table, where what is missing equals itself
    return bool(one == other) if equals is None else bool(equals(other))


def _comparable(value: Any) -> Any:
    """A value such that 1, 1.0 and True differ, and NaN equals itself.

    Raises:
        TaggedValueError: it has no tagged form.
    """
    return value if value is _NOTHING else json.dumps(to_tagged(value), sort_keys=True)
