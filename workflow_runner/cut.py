"""Taking a cut of a run: one synchronous step over the actors that may have changed since the cut before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hookspecs import EdgeSnapshot, NodeSnapshot, Prefix
from workflow_runner.firing import FiringActor

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.run import Run

__all__ = ["capture", "take_cut"]


def take_cut(run: Run) -> tuple[NodeSnapshot, ...]:
    """Capture every actor that changed since the last cut.

    An actor changes only while it runs. `run.changed` holds those that ran since the last cut; those that still run, or
    are woken and about to, stay in it. What they emitted changed their consumers' inboxes, so these are looked at too.
    """
    visited = dict(run.changed)
    for actor in run.changed:
        for planned_edge in actor.planned.out_edges:
            consumer = run.actors.get(planned_edge.target.node_id)
            if consumer is not None:
                visited[consumer] = None
    run.changed = {actor: None for actor in run.changed if not actor.waits and actor.status != "completed"}
    snapshots = []
    for actor in visited:
        signature = _signature(actor)
        if signature != actor.captured:
            actor.captured = signature
            snapshots.append(capture(actor))
    return tuple(snapshots)


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
        self.latest = actor.latest() if isinstance(actor, FiringActor) and not over else None
        self.inbox = inbox
        self.order = () if over or actor.order is None else tuple(_arrivals(actor))
        self.collected = Prefix(actor.collected) if actor.collected and isinstance(actor.collected, list) else ()
        self.source = actor.type.fingerprint if actor.type.role == "body" else ""
        self.error = actor.error
        self.started_at = actor.started_at
        self.ended_at = actor.ended_at
        self.suspension = actor.suspension


def capture(actor: Actor) -> NodeSnapshot:
    """One actor as it is now; nothing in it aliases what the actor will change."""
    inbox: tuple[EdgeSnapshot, ...] = ()
    if actor.status != "completed":
        hidden = actor.type.role == "preview"  # what it has not looked at yet is of no use to a resumed run
        inbox = tuple([EdgeSnapshot(e.edge_id, () if hidden else e.pending(), e.ended or e.held_end) for e in actor.in_edges])
    made: Any = _Draft(actor, inbox)
    made.__class__ = NodeSnapshot  # a cut of thousands of nodes is one pause of the event loop
    snapshot: NodeSnapshot = made
    return snapshot


def _arrivals(actor: Actor) -> list[str]:
    """The arrival order of everything pending; what is held comes after what was sent."""
    pending = [edge.edge_id for edge in actor.order or ()]
    for edge in actor.in_edges:
        pending.extend(edge.edge_id for _ in edge.held or ())
    return pending


def _signature(actor: Actor) -> tuple[Any, ...]:
    """Equal for two moments between which the actor's capture has not changed.

    Of an actor that took, emitted or committed nothing, an edge can only have grown, so its length tells.
    """
    edges: list[Any] | None = None
    if actor.status != "completed":
        hidden = actor.type.role == "preview"
        edges = [(0 if hidden else len(e.items) + (len(e.held) if e.held else 0), e.ended or e.held_end) for e in actor.in_edges]
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
