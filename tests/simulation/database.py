"""What outlives a crash: the run, its newest attempt, and the newest cut of every node, all by copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hookspecs import Answer, EdgeSnapshot, NodeSnapshot, RunInfo, RunNotFound, RunStatus, StoredRun, Suspension

__all__ = ["BrokenPromise", "Database", "copied", "encoded"]


class BrokenPromise(Exception):
    """Raised when the runner, or a node, does what it must not do."""


@dataclass
class Database:
    """What outlives a crash."""

    run: RunInfo | None = None
    attempt: int = 0
    status: RunStatus = "scheduled"
    number: int = 0
    nodes: dict[str, NodeSnapshot] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    """What people have brought for nodes of a run that is executed."""

    @property
    def waiting(self) -> dict[str, Suspension]:
        """What nodes of the newest cut wait for."""
        found = {node.node_id: node.suspension for node in self.nodes.values() if node.status == "suspended"}
        return {node_id: waits for node_id, waits in found.items() if waits is not None and not waits.answered}

    def is_answered(self, node_id: str) -> bool:
        """Whether somebody has brought what a node waits for now."""
        waits, answer = self.waiting.get(node_id), self.answers.get(node_id)
        return waits is not None and answer is not None and answer.since == waits.since

    async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
        """Read the run; with `close` this makes it a `RunLoader`."""
        if self.run is None:
            raise RunNotFound(run_id, "memory")
        found: dict[str, Sequence[Any]] | None = None
        if outputs and self.status == "completed":
            found = {
                node["data"]["name"]: list(self.nodes[node["id"]].collected) if node["id"] in self.nodes else []
                for node in self.run.graph["nodes"]
                if node["type"] == "workflow.Output"
            }
        run = self.run
        return StoredRun(run_id, self.attempt, self.status, run.graph, run.inputs, {"memory": {}}, found, self._seem_over(run))

    def _seem_over(self, run: RunInfo) -> frozenset[str]:
        """All nodes that are over, in turn with a half of them, with one that is not among them, and with none."""
        over = {node_id for node_id, node in self.nodes.items() if node.status == "completed"}
        match self.attempt % 4:
            case 0:
                return frozenset(sorted(over)[::2])
            case 1:
                return frozenset(over)
            case 2:
                return frozenset()
        others = [node["id"] for node in run.graph["nodes"] if node["id"] not in over]
        return frozenset({*over, *others[:1]})

    async def close(self) -> None:
        """Nothing is open."""


def copied(value: Any) -> Any:
    """A deep copy of plain values; quicker than `copy.deepcopy`, and it knows nothing that it should not."""
    kind = type(value)
    if kind is list:
        return [copied(item) for item in value]
    if kind is tuple:
        return tuple([copied(item) for item in value])
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if value is None or kind in (str, int, float, bool):
        return value
    raise BrokenPromise(f"{kind.__name__} {value!r} is no plain value")


def _kept(waits: Suspension) -> Suspension:
    earlier = tuple([(reason, copied(answer)) for reason, answer in waits.earlier])
    return replace(
        waits, state=copied(waits.state), metadata=copied(waits.metadata), answer=copied(waits.answer), earlier=earlier
    )


def encoded(node: NodeSnapshot) -> NodeSnapshot:
    """A node's cut that shares nothing with the live run."""
    return NodeSnapshot(
        node.node_id,
        node.status,
        node.attempt,
        node.firing,
        node.commits,
        copied(node.state),
        copied(node.arguments),
        [copied(entry) for entry in node.taken],
        node.emitted,
        copied(node.latest),
        tuple([EdgeSnapshot(edge.edge_id, copied(edge.items), edge.ended) for edge in node.inbox]),
        tuple(node.order),
        [copied(item) for item in node.collected],
        node.source,
        node.error,
        node.started_at,
        node.ended_at,
        None if node.suspension is None else _kept(node.suspension),
    )
