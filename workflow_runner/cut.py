"""Taking a cut of a run: one synchronous step over the actors that may have changed since the cut before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hookspecs import EdgeSnapshot, NodeSnapshot, Prefix
from workflow_runner.firing import FiringActor

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.edge import Edge
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
    run.changed = {actor: None for actor in run.changed if not actor.waits and actor.status in ("idle", "running")}
    snapshots = []
    for actor in visited:
        signature = _signature(actor)
        if signature != actor.captured:
            actor.captured = signature
            snapshots.append(capture(actor))
    return tuple(snapshots)


def capture(actor: Actor) -> NodeSnapshot:
    """One actor as it is now; nothing in it aliases what the actor will change."""
    over = actor.status == "completed"
    return NodeSnapshot(
        node_id=actor.node_id,
        status=actor.status,
        attempt=actor.attempt,
        firing=actor.firing,
        commits=actor.commits,
        state=actor.state,
        arguments=actor.arguments,
        taken=Prefix(actor.taken) if isinstance(actor.taken, list) else (),
        emitted=actor.emitted,
        latest=actor.latest() if isinstance(actor, FiringActor) and not over else None,
        inbox=() if over else tuple(EdgeSnapshot(e.edge_id, _pending(e), e.ended or e.held_end) for e in actor.in_edges),
        order=() if over or actor.order is None else tuple(_arrivals(actor)),
        collected=Prefix(actor.collected) if isinstance(actor.collected, list) else (),
        source=actor.type.fingerprint if actor.type.role == "body" else "",
        error=actor.error,
        started_at=actor.started_at,
        ended_at=actor.ended_at,
        suspension=actor.suspension,
    )


def _pending(edge: Edge) -> tuple[Any, ...]:
    """Everything on its way to the consumer. What a preview has not looked at yet is of no use to a resumed run."""
    return () if edge.planned.target.type.role == "preview" else edge.pending()


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
    return (
        actor.status,
        actor.attempt,
        actor.firing,
        actor.commits,
        actor.arguments is None,
        len(actor.taken),
        actor.emitted,
        len(actor.collected),
        None if actor.status == "completed" else [_edge_signature(edge) for edge in actor.in_edges],
    )


def _edge_signature(edge: Edge) -> tuple[int, bool]:
    pending = 0 if edge.planned.target.type.role == "preview" else len(edge.items) + len(edge.held or ())
    return pending, edge.ended or edge.held_end
