"""Inputs that come as JSON, and defaults of a graph's document, converted to what the nodes want that get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, Final

from workflow_runner.checker import AnnotationUnusable
from workflow_runner.differences import is_same
from workflow_runner.errors import InputInvalid
from workflow_runner.handle import Handle
from workflow_runner.properties import PropertyInvalid, convert_property

if TYPE_CHECKING:
    from workflow_runner.plan import Plan, PlannedNode

__all__ = ["convert_default", "convert_inputs"]

OF_JSON: Final = (str, int, float, bool, type(None), list, dict)


def convert_inputs(plan: Plan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert inputs as properties are: ISO text becomes a date where a date is wanted, but `"3"` no number.

    Args:
        plan: of the run.
        inputs: values by name, as JSON has them; unknown names stay as they are.

    Raises:
        InputInvalid: one does not fit a node that gets it.
    """
    return {name: _convert(f"input {name!r}", value, _takers(plan.inputs.get(name, ()))) for name, value in inputs.items()}


def convert_default(name: str, node: PlannedNode, over: Set[str]) -> Any:
    """The default of an input, converted as `convert_inputs` does.

    As it is where JSON has no such value, or where it fits all by its type, as items are checked.

    Args:
        name: of the input.
        node: that has the default.
        over: nodes that get it no more.

    Raises:
        InputInvalid: it does not fit a node that gets it.
    """
    value: Any = node.constants["value"]
    if type(value) not in OF_JSON:
        return value
    takers = _takers((node,), over)
    try:
        return _convert(f"the default of input {name!r}", value, takers)
    except InputInvalid:
        if all(handle.fits(value) for _, handle in takers):
            return value
        raise


def _takers(nodes: Iterable[PlannedNode], over: Set[str] = frozenset()) -> list[tuple[str, Handle]]:
    """Where an input goes: each handle once, but for those that take anything, or make a list of several edges."""
    found: dict[int, tuple[str, Handle]] = {}
    for edge in (edge for planned in nodes for edge in planned.out_edges):
        target, name = edge.target, edge.target_handle
        if name not in target.lists and target.node_id not in over:
            handle = target.type.handles[name]
            if handle.check is not None:
                found.setdefault(id(handle), (target.node_id, handle))  # thousands of nodes may be of one type
    return list(found.values())


def _convert(what: str, value: Any, takers: list[tuple[str, Handle]]) -> Any:
    found: list[Any] = []
    for node_id, handle in takers:
        try:
            found.append(convert_property(handle, value))
        except PropertyInvalid as error:
            if isinstance(error.__cause__, AnnotationUnusable):  # then the node's own check, by type, is all there is
                continue
            raise InputInvalid(f"{what}, for {handle.name!r} of node {node_id!r}: {error}.") from error
    if not found or all(is_same(found[0], other) for other in found[1:]):
        return found[0] if found else value
    if all(handle.fits(value) for _, handle in takers):  # a float here and an int there: each converts for itself
        return value
    wanted = ", ".join(f"{handle.expected} (node {node_id!r})" for node_id, handle in takers)
    raise InputInvalid(f"{what} goes to nodes that want different types: {wanted}. Give each an input of its own.")
