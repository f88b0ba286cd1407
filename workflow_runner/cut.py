"""Taking a cut of a run: one synchronous step over the actors that may have changed since the cut before."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress, count
from operator import ne
from typing import TYPE_CHECKING, Any, Final

from hookspecs import EdgeDraft, EdgeSnapshot, NodeDraft, NodeSnapshot, Prefix
from workflow_runner.firing import FiringActor

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.edge import Edge
    from workflow_runner.run import Run

__all__ = ["capture", "capture_last", "take_cut"]

WIDE: Final = 32
"""Edges from which on an actor has many."""
OWN: Final = 9
"""Parts of a signature before those of its edges."""


def take_cut(run: Run) -> tuple[NodeSnapshot, ...]:
    """Capture every actor that changed since the last cut.

    An actor changes only while it runs. `run.changed` holds those that ran since the last cut; those that still run, or
    are woken and about to, stay in it. What they emitted changed their consumers' inboxes, so these are looked at too.
    """
    actors = run.actors
    visited = dict(run.changed)
    for actor in run.changed:
        for planned_edge in actor.planned.out_edges:
            consumer = actors.get(planned_edge.target.node_id)
            if consumer is not None:
                visited[consumer] = None
    run.changed = {actor: None for actor in run.changed if not actor.waits and actor.status != "completed"}
    snapshots, run.over = run.over, []
    for actor in visited:
        signature = _signature(actor)
        if signature != actor.captured:
            snapshots.append(_capture_changed(actor, signature))
    return tuple(snapshots)


def capture_last(run: Run, actor: Actor) -> None:
    """Capture an actor that is over for the next cut: of thousands that ended since the last, a cut is not one long pause.

    Call it before the actor lets go of its edges. Those who get the last of what it emitted are looked at by that cut.
    """
    if actor not in run.changed:
        return  # a cut that its outputs waited for had it already
    del run.changed[actor]
    if actor.captured is None or _signature(actor) != actor.captured:
        run.over.append(capture(actor))
    for planned_edge in actor.planned.out_edges:
        consumer = run.actors.get(planned_edge.target.node_id)
        if consumer is not None:
            run.changed[consumer] = None


def _capture_changed(actor: Actor, signature: tuple[Any, ...]) -> NodeSnapshot:
    """Capture an actor once more. Of many edges those stay that are as they were: a save must not cost all of them."""
    before, actor.captured = actor.captured, signature
    if len(actor.in_edges) < WIDE or actor.status == "completed":
        return capture(actor)
    inbox: tuple[EdgeSnapshot, ...] | None = None
    if before is not None and actor.captured_inbox and before[:OWN] == signature[:OWN]:
        there = list(actor.captured_inbox)
        for place in compress(count(), map(ne, before[OWN:], signature[OWN:])):
            there[place] = _capture_edge(actor.in_edges[place])
        inbox = tuple(there)
    snapshot = capture(actor, inbox)
    actor.captured_inbox = snapshot.inbox
    return snapshot


def capture(actor: Actor, inbox: tuple[EdgeSnapshot, ...] | None = None) -> NodeSnapshot:
    """One actor as it is now; nothing in it aliases what the actor will change.

    Args:
        actor: any.
        inbox: its edges as they are now, where they were captured already.
    """
    kind = actor.type
    draft = NodeDraft()
    draft.node_id = actor.node_id
    draft.status = actor.status
    draft.attempt = actor.attempt
    draft.firing = actor.firing
    draft.commits = actor.commits
    draft.state = actor.state
    draft.arguments = actor.arguments
    taken, collected = actor.taken, actor.collected
    draft.taken = Prefix(taken) if taken and isinstance(taken, list) else ()
    draft.emitted = actor.emitted
    draft.collected = Prefix(collected) if collected and isinstance(collected, list) else ()
    draft.source = kind.fingerprint if kind.role == "body" else ""
    draft.error = actor.error
    draft.started_at = actor.started_at
    draft.ended_at = actor.ended_at
    draft.suspension = actor.suspension
    if actor.status == "completed":
        draft.latest = None
        draft.inbox = draft.order = ()
    else:
        draft.latest = actor.latest() if isinstance(actor, FiringActor) else None
        draft.inbox = tuple([_capture_edge(e, hidden=kind.role == "preview") for e in actor.in_edges]) if inbox is None else inbox
        draft.order = _arrivals(actor)
    return draft.frozen()


def _capture_edge(edge: Edge, *, hidden: bool = False) -> EdgeSnapshot:
    """One edge; what a preview has not looked at yet is of no use to a resumed run."""
    draft = EdgeDraft()
    draft.edge_id = edge.planned.edge_id
    draft.items = edge.pending() if (edge.items or edge.held) and not hidden else ()
    draft.ended = edge.ended or edge.held_end
    return draft.frozen()


def _arrivals(actor: Actor) -> tuple[str, ...]:
    """The arrival order of everything pending; what is held comes after what was sent."""
    if (order := actor.order) is None:
        return ()
    pending = [edge.planned.edge_id for edge in order]
    for edge in actor.in_edges:
        if edge.held is not None:
            pending.extend([edge.planned.edge_id] * len(edge.held))
    return tuple(pending)


def _signature(actor: Actor) -> tuple[Any, ...]:
    """Equal for two moments between which the actor's capture has not changed: `OWN` parts are its own, the others one an edge.

    Of an actor that took, emitted or committed nothing, an edge can only have grown, so its length tells.
    """
    edges: Iterable[int] = ()  # an even number while the end is still to come
    if actor.status != "completed":
        edges = [2 * (len(e.items) + len(e.held) if e.held else len(e.items)) + (e.ended or e.held_end) for e in actor.in_edges]
        if actor.type.role == "preview":
            edges = [each & 1 for each in edges]
    return (
        actor.status,
        actor.attempt,
        actor.firing,
        actor.commits,
        actor.arguments is None,
        actor.error is None,
        len(actor.taken),
        actor.emitted,
        len(actor.collected),
        *edges,
    )
