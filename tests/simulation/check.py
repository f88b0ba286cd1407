"""Whether the outputs of a run follow from each other: every node's outputs from its inputs, as they were collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hookspecs import NodeSnapshot
from tests.simulation.cases import Case, Member, Port, firings
from tests.simulation.lab import member_of
from tests.simulation.models import KINDS, Columns, Kind

__all__ = ["Firings", "Known", "expected_firings", "final_firings", "firings_of", "known_items", "of_member", "problems_of"]

Firings = tuple[int, int]
"""Of a node in a cut: how many are final, and how many are to come of what it holds."""
NONE: Final[Firings] = (0, 0)
Known = Mapping[Port, Sequence[Any]]
"""What came from every output."""


def problems_of(case: Case, outputs: Mapping[str, Sequence[Any]]) -> list[str]:
    """What is wrong with the outputs of a completed run; nothing is looked up in the runner."""
    known = known_items(case, outputs)
    problems = []
    for member in case.members:
        if member.observed and (problem := _problem(member, known)) is not None:
            problems.append(f"node {member.node_id}: {problem}")
    return problems


def known_items(case: Case, outputs: Mapping[str, Sequence[Any]]) -> Known:
    """The items of every output: as collected, and derived where nobody collected them."""
    known: dict[Port, Sequence[Any]] = {}
    for member in case.members:
        kind = KINDS[member.kind]
        derived: Columns = {} if member.observed else _derive(member, kind, known)
        for handle in kind.outputs:
            known[member.node_id, handle] = outputs[f"{member.node_id}.{handle}"] if member.observed else derived[handle]
    return known


def expected_firings(case: Case, known: Known) -> dict[str, int]:
    """How often each node fires in a run without interruption."""
    counts = {}
    for member in case.members:
        plain = KINDS[member.kind].role == "plain"
        counts[member.node_id] = firings([len(known[port]) for port in member.slots], member.sync_mode) if plain else 1
    return counts


def firings_of(node: NodeSnapshot) -> Firings:
    """How many firings of a node are final in a cut, and how many there are to come of what it holds."""
    under_way = node.arguments is not None
    return node.firing - under_way, under_way + sum(len(edge.items) for edge in node.inbox)


def final_firings(member: Member, firings: Mapping[str, Firings]) -> int:
    """How many firings of a member were final in a cut, by those of the nodes of the run.

    The number of a lane's firing is that of its item, so of lanes it is what was handed to them, without what they hold.
    """
    if member.lanes == 1:
        return firings.get(member.node_id, NONE)[0]
    lanes = (f"{member.node_id}/{number}" for number in range(1, member.lanes + 1))
    return firings.get(f"{member.node_id}/spread", NONE)[0] - sum(firings.get(lane, NONE)[1] for lane in lanes)


def of_member(member: Member, counts: Mapping[str, int]) -> int:
    """What was counted of a member, or of its lanes."""
    return sum(count for node_id, count in counts.items() if member_of(node_id) == member.node_id)


def _derive(member: Member, kind: Kind, known: Known) -> Columns:
    """What a deterministic node emits."""
    if kind.model is not None:
        return kind.model(member.node_id, member.data, {handle: known[ports[0]] for handle, ports in member.sources.items()})
    assert kind.step is not None
    columns: Columns = {handle: [] for handle in kind.outputs}
    state = None
    for arguments in zip(*(known[port] for port in member.slots), strict=False):
        state, emissions = kind.step(member.node_id, member.data, state, arguments)
        for emission in emissions:
            for handle, value in emission.items():
                columns[handle].append(value)
    return columns


def _problem(member: Member, known: Known) -> str | None:
    kind = KINDS[member.kind]
    found = {handle: list(known[member.node_id, handle]) for handle in kind.outputs}
    if kind.verify is not None:
        streams = {handle: known[ports[0]] for handle, ports in member.sources.items()}
        return kind.verify(member.node_id, member.data, streams, found)
    if kind.step is not None and member.sync_mode == "on_any" and len(member.slots) > 1:
        return None if _some_order(member, kind, known, found) else f"no order of its inputs gives {found}"
    expected = _derive(member, kind, known)
    return None if expected == found else f"expected {expected}, found {found}"


def _some_order(member: Member, kind: Kind, known: Known, found: Columns) -> bool:
    """Whether some arrival order explains the outputs of an `on_any` node.

    The first firing takes the first item of each slot; every further one takes one more item of one slot.
    """
    assert kind.step is not None
    slots = [known[port] for port in member.slots]
    if not all(slots):
        return not any(found.values())
    last = tuple(len(items) - 1 for items in slots)
    places: set[tuple[tuple[int, ...], int, str]] = set()
    stack: list[tuple[tuple[int, ...], int, Any]] = [((0,) * len(slots), 0, None)]
    (handle,) = kind.outputs
    while stack:
        at, emitted, state = stack.pop()
        if (at, emitted, repr(state)) in places:
            continue
        places.add((at, emitted, repr(state)))
        arguments = [items[i] for items, i in zip(slots, at, strict=True)]
        state, emissions = kind.step(member.node_id, member.data, state, arguments)
        values = [emission[handle] for emission in emissions]
        if found[handle][emitted : emitted + len(values)] != values:
            continue
        emitted += len(values)
        if at == last:
            if emitted == len(found[handle]):
                return True
            continue
        for slot in range(len(slots)):
            if at[slot] < last[slot]:
                stack.append(((*at[:slot], at[slot] + 1, *at[slot + 1 :]), emitted, state))
    return False
