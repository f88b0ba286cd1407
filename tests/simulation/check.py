"""Whether the outputs of a run follow from each other: every node's outputs from its inputs, as they were collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.cases import Case, Member, Port, firings
from tests.simulation.models import KINDS, Columns, Kind

__all__ = ["Known", "expected_firings", "known_items", "problems_of"]

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
