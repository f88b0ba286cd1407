"""What a caller says of the nodes of a run, and what the nodes become by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from checkpoint_plugin.by_hand.checkpoint_data import NodeStateSnapshot
from checkpoint_plugin.by_hand.node_record import NodeRecord, pack_values, unpack_values
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.status import NODE_STATUSES
from checkpoint_plugin.tables.definition import check_node_id
from checkpoint_plugin.tables.field_checks import check_number, check_text

__all__ = ["NodeChanges"]

IDLE: Final = NodeRecord("idle")


@dataclass(frozen=True, slots=True)
class NodeChanges:
    """What was said, with values as bytes.

    Args:
        run_id: the run, for errors.
        statuses: by node id: completed, running or scheduled.
        outputs: by node id.
        exact: nodes that are exactly so.
        codec: of the values.
    """

    run_id: str
    statuses: Mapping[str, str]
    outputs: Mapping[str, bytes | None]
    exact: Mapping[str, NodeRecord]
    codec: Codec

    @classmethod
    def read(
        cls,
        run_id: str,
        named: Mapping[str, Iterable[str]],
        outputs: Mapping[str, Mapping[str, Any]],
        exact: Mapping[str, NodeStateSnapshot],
        codec: Codec,
    ) -> NodeChanges:
        """Take what a caller says; its values are encoded here, so it may change them afterwards.

        Args:
            run_id: the run.
            named: node ids by the status that they get.
            outputs: values by handle, by node id.
            exact: nodes that are exactly so.
            codec: encodes values.

        Raises:
            ValueError: a node is named twice, an output belongs to none, a state to another node, or a field of a node cannot
                have its value.
            ValueNotStorable: a value or an id cannot be stored.
        """
        statuses: dict[str, str] = {}
        for status, node_ids in named.items():
            if isinstance(node_ids, str):
                raise ValueError(f"{node_ids!r} is one text. Give the ids of nodes as a list or a set.")
            for node_id in node_ids:
                check_node_id(run_id, node_id)
                if statuses.setdefault(node_id, status) != status:
                    raise ValueError(f"node {node_id!r} is said to be {statuses[node_id]} and {status}. Name it once.")
        if both := sorted((statuses.keys() | outputs.keys()) & exact.keys()):
            raise ValueError(f"node {both[0]!r} is in node_states and named besides. Name it once.")
        for node_id, values in outputs.items():
            if not isinstance(values, Mapping):
                raise ValueError(f"the outputs of node {node_id!r} are values by handle, not {type(values).__name__}.")
        packed = {node_id: pack_values(_where(run_id, node_id), values, None, codec) for node_id, values in outputs.items()}
        records: dict[str, NodeRecord] = {}
        for node_id, state in exact.items():
            check_node_id(run_id, node_id)
            if state.status not in NODE_STATUSES:
                raise ValueError(f"node {node_id!r}: {state.status!r} is no status. Use one of {sorted(NODE_STATUSES)}.")
            if state.node_id != node_id:
                raise ValueError(f"node_states has the state of node {state.node_id!r} under {node_id!r}. Name one node.")
            check_number(_where(run_id, node_id), "attempt", state.attempt, least=0)
            if state.error is not None:
                check_text(_where(run_id, node_id), "last_error", state.error, escaped=True)
            if state.outputs is not None and not isinstance(state.outputs, Mapping):
                raise ValueError(f"the outputs of node {node_id!r} are values by handle, not {type(state.outputs).__name__}.")
            kept = pack_values(_where(run_id, node_id), state.outputs, state.resume_state, codec)
            records[node_id] = NodeRecord(state.status, state.attempt, state.error, kept)
        return cls(run_id, statuses, packed, records, codec)

    @property
    def node_ids(self) -> set[str]:
        """Every node that something is said of."""
        return {*self.statuses, *self.outputs, *self.exact}

    def apply(self, known: Mapping[str, NodeRecord], at: datetime) -> dict[str, NodeRecord]:
        """The nodes that change.

        Args:
            known: every node as it is.
            at: when they change.

        Raises:
            ValueError: outputs are given for a node of which nothing is known.
        """
        changed: dict[str, NodeRecord] = {}
        for node_id in self.outputs.keys() - self.statuses.keys() - known.keys():
            raise ValueError(f"outputs are given for node {node_id!r}, which is not said to be anything. Name it.")
        for node_id in [*self.statuses, *(n for n in self.outputs if n not in self.statuses)]:
            old = known.get(node_id)
            new = self._become(node_id, old or IDLE, at)
            if old is None or new != old:
                changed[node_id] = new
        for node_id, exact in self.exact.items():
            old = known.get(node_id, IDLE)
            new = exact._replace(scheduled_at=old.scheduled_at, started_at=old.started_at, ended_at=old.ended_at)
            if node_id not in known or new != old:
                scheduled_at, started_at, ended_at = _times(new.status, old, at)
                changed[node_id] = new._replace(scheduled_at=scheduled_at, started_at=started_at, ended_at=ended_at)
        return changed

    def _become(self, node_id: str, old: NodeRecord, at: datetime) -> NodeRecord:
        status = self.statuses.get(node_id, old.status)
        if status == "scheduled" and old.status == "suspended":
            status = "suspended"
        given = node_id in self.outputs
        keeps_state = status not in ("completed", "scheduled")
        keeps_outputs = status in (old.status, "completed")
        if old.values is None or (given and not keeps_state):
            values = self.outputs.get(node_id)
        else:
            outputs, state = unpack_values(old.values, self.codec)
            if given:
                outputs = unpack_values(self.outputs[node_id], self.codec)[0]
            elif not keeps_outputs:
                outputs = None
            values = pack_values(_where(self.run_id, node_id), outputs, state if keeps_state else None, self.codec)
        error = old.error if status == old.status else None
        return NodeRecord(status, old.attempt, error, values, *_times(status, old, at))


def _times(status: str, old: NodeRecord, at: datetime) -> tuple[datetime | None, datetime | None, datetime | None]:
    """When a node that becomes of a status was scheduled, begun and completed."""
    if status == old.status:
        return old.scheduled_at, old.started_at, old.ended_at
    if status == "scheduled":
        return at, old.started_at, None
    if status == "running":
        return old.scheduled_at, at, None
    return old.scheduled_at, old.started_at, at if status == "completed" else None


def _where(run_id: str, node_id: str) -> str:
    return f"run {run_id!r}, node {node_id!r}"
