"""Inputs that come as JSON, converted to what the nodes want that get them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow_runner.checker import AnnotationUnusable, Mismatch
from workflow_runner.differences import is_same
from workflow_runner.errors import InputInvalid
from workflow_runner.handle import Handle
from workflow_runner.plan import Plan
from workflow_runner.properties import PropertyInvalid, convert_property

__all__ = ["convert_inputs"]


def convert_inputs(plan: Plan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert inputs as properties are: ISO text becomes a date where a date is wanted, but `"3"` no number.

    Args:
        plan: of the run.
        inputs: values by name, as JSON has them; unknown names stay as they are.

    Raises:
        InputInvalid: one does not fit a node that gets it.
    """
    return {name: _convert(name, value, _takers(plan, name)) for name, value in inputs.items()}


def _takers(plan: Plan, name: str) -> list[tuple[str, Handle]]:
    """Where an input goes, but for handles that take anything, or make a list of several edges."""
    edges = [edge for planned in plan.inputs.get(name, ()) for edge in planned.out_edges]
    handles = [
        (edge.target.node_id, edge.target.type.handles[edge.target_handle])
        for edge in edges
        if edge.target_handle not in edge.target.lists
    ]
    return [(node_id, handle) for node_id, handle in handles if handle.check is not None]


def _convert(name: str, value: Any, takers: list[tuple[str, Handle]]) -> Any:
    found: list[Any] = []
    for node_id, handle in takers:
        try:
            found.append(convert_property(handle, value))
        except PropertyInvalid as error:
            if isinstance(error.__cause__, AnnotationUnusable):  # then the node's own check, by type, is all there is
                continue
            raise InputInvalid(f"input {name!r}, for {handle.name!r} of node {node_id!r}: {error}.") from error
    if not found or all(is_same(found[0], other) for other in found[1:]):
        return found[0] if found else value
    if all(_fits(handle, value) for _, handle in takers):  # a float here and an int there: each converts for itself
        return value
    wanted = ", ".join(f"{handle.expected} (node {node_id!r})" for node_id, handle in takers)
    raise InputInvalid(f"input {name!r} goes to nodes that want different types: {wanted}. Give each an input of its own.")


def _fits(handle: Handle, value: Any) -> bool:
    assert handle.check is not None
    try:
        handle.check(value)
    except Mismatch:
        return False
    return True
