"""Whether the cuts that a plugin is handed tell the whole run, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hookspecs import NodeSnapshot, Snapshot
from tests.simulation.database import BrokenPromise, encoded
from tests.simulation.lab import PACKED
from workflow_runner.actor import Actor
from workflow_runner.cut import capture
from workflow_runner.run import Run

__all__ = ["Audit"]


class Audit:
    """Lays the cuts of one attempt over each other and compares them with the live run.

    Args:
        max_log: items that a log may hold.
    """

    def __init__(self, max_log: int) -> None:
        self.view: dict[str, NodeSnapshot] = {}
        """The whole run as the cuts tell it, those included that are not durable yet."""
        self._max_log = max_log
        self._fresh = True
        self._handed: set[str] = set()

    def restored(self, nodes: Mapping[str, NodeSnapshot]) -> None:
        """The attempt goes on from this cut, whose items may have been sent under other bounds."""
        self.view = dict(nodes)
        self._fresh = False

    def check(self, run: Run, snapshot: Snapshot, nodes: Mapping[str, NodeSnapshot]) -> None:
        """Take a cut in, in the moment in which it was taken.

        Args:
            run: the live run.
            snapshot: the cut.
            nodes: copies of its nodes.

        Raises:
            BrokenPromise: it holds what has not changed, lacks what has, or a bound is broken.
        """
        idle = [node_id for node_id in self._handed & nodes.keys() if self.view[node_id] == nodes[node_id]]
        if idle:
            raise BrokenPromise(f"nodes {idle} are in the cut and have not changed since the cut before")
        self.view.update(nodes)
        self._handed.update(nodes)
        if snapshot.status != "running":
            return  # taken some time ago, before everybody was frozen
        for node in nodes.values():
            if len(node.taken) > self._max_log:
                raise BrokenPromise(f"the log of node {node.node_id} holds {len(node.taken)} items")
            pending = [edge.edge_id for edge in node.inbox for _ in edge.items]
            if len(node.inbox) > 1 and sorted(node.order) != sorted(pending):
                raise BrokenPromise(f"node {node.node_id} has an order of {node.order} for the items of {pending}")
        for actor in run.actors.values():
            self._check_actor(actor)
        for node_id, node in self.view.items():
            if node_id not in run.actors and node.status != "completed":
                raise BrokenPromise(f"node {node_id} is over, and its last cut says {node.status}")

    def _check_actor(self, actor: Actor) -> None:
        for edge in actor.in_edges:
            at_once = PACKED if edge.planned.source.type.role == "each" else 1
            if self._fresh and not edge.edge_id.endswith("/order") and len(edge.pending()) > edge.capacity + at_once:
                raise BrokenPromise(f"edge {edge.edge_id} holds {len(edge.pending())} items, and its bound is {edge.capacity}")
        now = encoded(capture(actor))
        saved = self.view.get(actor.node_id)
        if saved is None and not is_new(now):
            raise BrokenPromise(f"no cut has node {actor.node_id}, which is {now}")
        if saved is not None and not same(saved, now, begun=actor.task is not None):
            raise BrokenPromise(f"node {actor.node_id} changed unseen: cut {saved}, now {now}")


def is_new(node: NodeSnapshot) -> bool:
    """Whether a node is as it was before the run."""
    return not (node.firing or node.commits or node.collected or any(edge.items or edge.ended for edge in node.inbox))


def same(saved: NodeSnapshot, now: NodeSnapshot, *, begun: bool) -> bool:
    """Whether two captures restore to the same.

    The order among items of different edges may differ, as long as nobody has taken any: those that are held for a cut
    are handed on in any order. A node that was restored and has not begun again has the status of its last attempt.

    Args:
        saved: the cut.
        now: at this moment.
        begun: whether the node runs in this world.
    """
    if saved == now:
        return True
    before = replace(saved, order=now.order)
    if not begun:
        before = replace(before, status=now.status, attempt=now.attempt, error=now.error)
    return sorted(saved.order) == sorted(now.order) and now == before
