"""Taking a cut of a run: one synchronous step over the actors that may have changed since the cut before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from hookspecs import EdgeSnapshot, NodeSnapshot, Prefix
from workflow_runner.firing import FiringActor

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.edge import Edge
    from workflow_runner.run import Run

__all__ = ["capture", "capture_last", "take_cut"]

T = TypeVar("T")


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
            actor.captured = signature
            snapshots.append(capture(actor))
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


class _Draft:
    """A `NodeSnapshot` in the making: the same slots, filled by plain assignments, which cost a seventh of a frozen class's."""

    __slots__ = NodeSnapshot.__slots__

    def __init__(self, actor: Actor, inbox: tuple[EdgeSnapshot, ...]) -> None:
        over = actor.status == "completed"
        self.node_id = actor.node_id
        self.status = actor.status
        self.attempt = actor.attempt
        self.firing = actor.firing
        self.commits = actor.commits
        self.state = actor.state
        self.arguments = actor.arguments
        self.taken = Prefix(actor.taken) if actor.taken and isinstance(actor.taken, list) else ()
        self.emitted = actor.emitted
        self.latest = actor.latest() if not over and isinstance(actor, FiringActor) else None
        self.inbox = inbox
        self.order = () if over or actor.order is None else tuple(_arrivals(actor))
        self.collected = Prefix(actor.collected) if actor.collected and isinstance(actor.collected, list) else ()
        self.source = actor.type.fingerprint if actor.type.role == "body" else ""
        self.error = actor.error
        self.started_at = actor.started_at
        self.ended_at = actor.ended_at
        self.suspension = actor.suspension


class _EdgeDraft:
    """The same of an `EdgeSnapshot`: a list handle has one an edge."""

    __slots__ = EdgeSnapshot.__slots__

    def __init__(self, edge: Edge, hidden: bool) -> None:
        self.edge_id = edge.planned.edge_id
        self.items = () if hidden else edge.pending() if edge.items or edge.held else ()
        self.ended = edge.ended or edge.held_end


def capture(actor: Actor) -> NodeSnapshot:
    """One actor as it is now; nothing in it aliases what the actor will change."""
    inbox: tuple[EdgeSnapshot, ...] = ()
    if actor.status != "completed":
        hidden = actor.type.role == "preview"  # what it has not looked at yet is of no use to a resumed run
        inbox = tuple([_finished(_EdgeDraft(edge, hidden), EdgeSnapshot) for edge in actor.in_edges])
    return _finished(_Draft(actor, inbox), NodeSnapshot)


def _finished(draft: Any, kind: type[T]) -> T:
    draft.__class__ = kind  # a cut of thousands of nodes is one pause of the event loop
    made: T = draft
    return made


def _arrivals(actor: Actor) -> list[str]:
    """The arrival order of everything pending; what is held comes after what was sent."""
    pending = [edge.planned.edge_id for edge in actor.order or ()]
    for edge in actor.in_edges:
        if edge.held:
            pending.extend([edge.planned.edge_id] * len(edge.held))
    return pending


def _signature(actor: Actor) -> tuple[Any, ...]:
    """Equal for two moments between which the actor's capture has not changed.

    Of an actor that took, emitted or committed nothing, an edge can only have grown, so its length tells.
    """
    edges: list[int] | None = None  # an even number while the end is still to come
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
        len(actor.taken),
        actor.emitted,
        len(actor.collected),
        edges,
    )
