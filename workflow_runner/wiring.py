"""Building a run's actors and edges: each when it is first needed, or all that a restored cut knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Final

from hookspecs import NodeSnapshot, Suspension
from workflow_runner.actor import Actor
from workflow_runner.arrivals import ArrivalOrder
from workflow_runner.decisions import is_unknown
from workflow_runner.edge import Edge
from workflow_runner.errors import InputChanged, SourceChanged
from workflow_runner.firing import FiringActor
from workflow_runner.movers import CollectActor, EachActor, GatherActor, SpreadActor
from workflow_runner.plain import PlainActor
from workflow_runner.plan import Drive, PlannedEdge, PlannedNode
from workflow_runner.sink import SinkActor
from workflow_runner.streaming import StreamingActor
from workflow_runner.suspension import Resumption

if TYPE_CHECKING:
    from workflow_runner.run import Run

__all__ = ["Wiring"]

ACTORS: Final[Mapping[Drive, type[Actor]]] = {
    "sink": SinkActor,
    "each": EachActor,
    "collect": CollectActor,
    "spread": SpreadActor,
    "gather": GatherActor,
    "streaming": StreamingActor,
    "plain": PlainActor,
    "firing": FiringActor,
}
"""Who drives a node; where somebody hears of firings, a plain one is driven as any that fires."""


class Wiring:
    """Makes actors and edges. An actor is born with its first item, so a run holds only what is in progress."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._half: dict[PlannedEdge, Edge] = {}
        """Edges of which one end has an actor and the other has none yet."""
        self._capacity = run.settings.edge_capacity
        hooks = run.hooks
        hears = hooks.before_node is not None or hooks.after_node is not None
        self._actors: Mapping[Drive, type[Actor]] = {**ACTORS, "plain": FiringActor} if hears else ACTORS
        self.completed: Set[str] = frozenset()
        """Nodes that were completed in the restored cut."""

    def bear(self, planned: PlannedNode) -> Actor:
        """Make a node's actor, and its edges as far as the other ends have not made them."""
        run = self._run
        half = self._half
        in_edges: list[Edge] = []
        for planned_edge in planned.in_edges:
            edge = half.pop(planned_edge, None)
            if edge is None:
                edge = half[planned_edge] = Edge(planned_edge, self._capacity)
            in_edges.append(edge)
        if len(in_edges) > 1:
            _number_arrivals(in_edges)
        actor = self._actors[planned.drive](run, planned, in_edges)
        run.actors[planned.node_id] = actor
        for edge in in_edges:
            edge.consumer = edge.reader = actor
        self._connect(actor, planned)
        actor.choose_publish()
        return actor

    def bear_consumer(self, edge: Edge) -> None:
        """Make the actor at the end of an edge, without starting it."""
        if edge.consumer is None:
            self.bear(edge.planned.target)

    def _connect(self, actor: Actor, planned: PlannedNode) -> None:
        edges: list[Edge] = []
        half = self._half
        for planned_edge in planned.out_edges:
            edge = half.pop(planned_edge, None)
            if edge is None:
                target = planned_edge.target
                if target.node_id in self.completed:
                    continue
                edge = half[planned_edge] = Edge(planned_edge, self._capacity)
                edge.wiring, edge.reader = self, edge
            elif edge.closed:
                continue
            edge.producer = actor
            edges.append(edge)
        actor.connect(edges)

    def restore(self, nodes: Mapping[str, NodeSnapshot], completed: Set[str]) -> None:
        """Make the actors of the nodes that had moved and are not completed.

        Args:
            nodes: those of the cut, as far as they are planned.
            completed: all that are, of those that are planned.

        Raises:
            SourceChanged: a node must repeat what it had emitted, with other code.
            InputChanged: a node must go on with what it holds, with code that takes it in another way.
        """
        plan = self._run.plan.nodes
        self.completed = completed
        moved = [node for node in nodes.values() if node.status != "completed"]
        for node in moved:
            self._check_source(plan[node.node_id], node)
        actors = [self.bear(plan[node.node_id]) for node in moved]
        for actor, node in zip(actors, moved, strict=True):
            _restore(actor, node)

    def _check_source(self, planned: PlannedNode, node: NodeSnapshot) -> None:
        run = self._run
        # Whatever the source says: an annotation may be a name for another one, which stands elsewhere.
        for handle in planned.slots if node.firing and not _has_only_ends_left(planned, node) else ():
            streams, streamed = planned.type.handles[handle].stream, node.arguments is not None and handle not in node.arguments
            if streams != streamed:
                raise InputChanged(run.run_id, node.node_id, planned.type.name, handle, streams)
        if node.emitted and node.source not in ("", planned.type.fingerprint) and node.node_id not in run.accept_changed:
            raise SourceChanged(run.run_id, node.node_id, planned.type.name, node.emitted)


def _has_only_ends_left(planned: PlannedNode, node: NodeSnapshot) -> bool:
    """Whether the body of a streaming node has ended, and only the ends of its plain inputs are to come."""
    fired_once = node.firing == 1 and node.arguments is None and node.latest is None
    if not (fired_once and planned.type.streams and not planned.reads_at_once):
        return False
    if planned.sync_mode != "on_any" and node.source != planned.type.fingerprint:
        return False  # a plain node that zips keeps no latest, and may stand so between two firings
    streams = {edge.edge_id for edge in planned.in_edges if planned.type.handles[edge.target_handle].stream}
    return not any(edge.items for edge in node.inbox if edge.edge_id in streams)  # else it was none: its streams would be closed


def _number_arrivals(edges: Sequence[Edge]) -> None:
    """Let the edges of one consumer tell in which order their items came."""
    order = ArrivalOrder()
    for edge in edges:
        edge.order = order
        order.extend([edge] * len(edge.items))


def _restore_suspension(actor: Actor, suspension: Suspension) -> None:
    actor.status = "suspended"
    actor.asleep = not suspension.answered
    actor.suspension = suspension
    if not actor.asleep:
        actor.resumption = Resumption(suspension)


def _restore(actor: Actor, node: NodeSnapshot) -> None:
    suspension = node.suspension
    if suspension is not None and node.status == "suspended":
        _restore_suspension(actor, suspension)
    elif suspension is not None and suspension.answered:  # it went on, and its step is not final
        actor.suspension, actor.resumption = suspension, Resumption(suspension)
    interrupted = node.arguments is not None and node.status != "suspended"
    if node.status != "suspended":
        actor.status = "running" if node.firing else "idle"
    actor.attempt = node.attempt + 1 if interrupted else node.attempt
    actor.firing = node.firing
    actor.commits = node.commits
    actor.state = node.state
    actor.arguments = node.arguments
    actor.emitted = node.emitted
    actor.started_at = node.started_at
    if node.status in ("failed", "suspended"):  # a person resumed it, or answered: its retries begin anew
        actor.first_attempt = actor.attempt
    if not actor.planned.failure.replayable and node.arguments is not None and not actor.asleep:
        actor.unbegun = not is_unknown(node, actor.planned)
    match actor:
        case StreamingActor():
            actor.taken = list(node.taken)
            actor.alone = not node.taken
        case FiringActor():
            actor.restore_latest(node.latest)
        case SinkActor():
            actor.collected.extend(node.collected)
    edges = {edge.edge_id: edge for edge in actor.in_edges}
    for edge_snapshot in node.inbox:
        edge = edges[edge_snapshot.edge_id]
        edge.items.extend(edge_snapshot.items)
        edge.ended = edge_snapshot.ended
    if actor.order is not None:
        actor.order.extend(edges[edge_id] for edge_id in node.order)
    if isinstance(actor, StreamingActor) and node.source != actor.type.fingerprint:
        actor.other_code = True
        if not (node.emitted and actor.stateless):
            actor.give_back()  # but for one that commits at its next read, which must repeat its emissions before
    if isinstance(actor, StreamingActor) and actor.firing and actor.arguments is None:
        actor.close_streams()
    actor.rewind()
