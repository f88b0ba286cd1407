"""A save: encoded first, then written by one statement a table, however many rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.codec import encode
from checkpoint_plugin.definition import storable_text
from checkpoint_plugin.history import RunHistory
from checkpoint_plugin.job import JobEnd, lock_job, update_job
from checkpoint_plugin.models import CHECKPOINT, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, RUN_NODE_STATE
from checkpoint_plugin.rows import EncodedCut, RowWriter, add_hashes, digest_of, row_digest, row_hash
from hookspecs import AttemptLost, CheckpointRef, NodeSnapshot, Snapshot, StoreError

__all__ = ["CutWriter", "head_digest", "insert_new"]

# Made once: see `job`.
INSERT_CHECKPOINT: Final = insert(CHECKPOINT)
INSERT_NODES: Final = insert(NODE_VERSION)
INSERT_SEGMENTS: Final = insert(OUTPUT_SEGMENT)


def _upsert(dialect: str, table: Table) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def insert_new(dialect: str, table: Table) -> Any:
    """An insert of rows whose keys are new, which leaves out the others."""
    return _upsert(dialect, table).on_conflict_do_nothing()


class CutWriter:
    """One save: what it adds is encoded first, then written, then noted in the history.

    Args:
        history: of the run, as of the checkpoint before.
        snapshot: the cut, with the nodes that changed.
        reason: why it was taken.
        shown: the store, for an error.
    """

    def __init__(self, history: RunHistory, snapshot: Snapshot, reason: str, shown: str) -> None:
        self._history = history
        self._snapshot = snapshot
        self._reason = reason
        self._shown = shown
        self._number = history.number + 1
        self._cut = EncodedCut()
        self._digests: dict[str, bytes] = {}
        self._total = history.total

    def encode(self) -> None:
        """Turn values into bytes and hash them; this takes long and needs no connection.

        Raises:
            ValueNotStorable: a value cannot be stored.
        """
        history = self._history
        self._cut = RowWriter(history.run_id, history.saved_items).encode(self._snapshot.nodes)
        for node_id, body in self._cut.bodies.items():
            digest = self._digests[node_id] = row_digest(history.run_id, node_id, self._number, body)
            old = history.digests.get(node_id)
            removed = 0 if old is None else row_hash(node_id, old)
            self._total = add_hashes(self._total, added=row_hash(node_id, digest), removed=removed)

    def write(self, connection: Connection) -> None:
        """Write it: one statement a table, however many rows.

        Raises:
            AttemptLost: a newer attempt owns the run; nothing was written.
            StoreError: the history is not that of the newest checkpoint; nothing was written.
        """
        run_id, number, cut, at = self._history.run_id, self._number, self._cut, self._snapshot.taken_at
        row = lock_job(connection, run_id, self._shown)
        if row.attempt != self._history.attempt:
            raise AttemptLost(run_id, self._history.attempt, row.attempt)
        if row.newest_number != self._history.number:
            raise StoreError(
                f"run {run_id!r}: its newest checkpoint is {row.newest_number}, and this attempt goes on from "
                f"{self._history.number}; nothing was written. Resume the run from its newest checkpoint."
            )
        dialect = connection.dialect.name
        known = self._history.payloads
        payloads = [{"run_id": run_id, "digest": d, "body": b} for d, b in cut.payloads.items() if d not in known]
        if payloads:
            connection.execute(_new_payloads(dialect), payloads)
        if cut.bodies:
            rows = [
                {"run_id": run_id, "node_id": n, "number": number, "body": b, "digest": self._digests[n]}
                for n, b in cut.bodies.items()
            ]
            connection.execute(INSERT_NODES, rows)
            connection.execute(_node_states(dialect), [_node_state(run_id, node, at) for node in self._snapshot.nodes])
        if cut.segments:
            connection.execute(INSERT_SEGMENTS, [_segment(run_id, number, *segment) for segment in cut.segments])
        connection.execute(INSERT_CHECKPOINT, self._head())
        end = JobEnd(self._snapshot.status, self._snapshot.error, at)
        update_job(connection, run_id, {**end.columns(at), "newest_number": number})

    def note(self) -> CheckpointRef:
        """Bring the history up to the checkpoint, which is durable now."""
        history, cut = self._history, self._cut
        history.number = self._number
        history.total = self._total
        history.digests.update(self._digests)
        history.remember(cut.payloads)
        for node_id, first, count, _ in cut.segments:
            history.saved_items[node_id] = first + count
        details = {"nodes": len(cut.bodies), "bytes": cut.size}
        return CheckpointRef(history.run_id, self._number, self._reason, self._snapshot.taken_at, details)

    def _head(self) -> dict[str, Any]:
        """The row of the checkpoint."""
        snapshot = self._snapshot
        values: dict[str, Any] = {
            "run_id": self._history.run_id,
            "number": self._number,
            "attempt": snapshot.attempt,
            "reason": storable_text(self._reason),
            "label": None,
            "created_at": snapshot.taken_at,
            "nodes": len(self._cut.bodies),
            "size_bytes": self._cut.size,
            "row_count": len(self._history.digests.keys() | self._digests.keys()),
            "cut_hash": self._total.to_bytes(32, "big"),
            "status": snapshot.status,
            "error": None if snapshot.error is None else storable_text(snapshot.error),
            "error_node_id": snapshot.error_node_id,
        }
        return {**values, "digest": head_digest(values)}


def head_digest(values: Mapping[str, Any]) -> bytes:
    """What binds a checkpoint's row together: all of it but the label, which a person may change."""
    texts = [values[name] for name in ("run_id", "reason", "status", "error", "error_node_id")]
    numbers = [values[name] for name in ("number", "attempt", "nodes", "size_bytes", "row_count")]
    at = values["created_at"].astimezone(UTC).isoformat(timespec="microseconds")
    return digest_of(encode([*texts, *numbers, at, bytes(values["cut_hash"])], lambda: "checkpoint"))


def _segment(run_id: str, number: int, node_id: str, first: int, count: int, body: bytes) -> dict[str, Any]:
    digest = row_digest(run_id, node_id, first, body)
    return {
        "run_id": run_id,
        "node_id": node_id,
        "first": first,
        "number": number,
        "count": count,
        "body": body,
        "digest": digest,
    }


@cache
def _new_payloads(dialect: str) -> Any:
    return insert_new(dialect, PAYLOAD)


@cache
def _node_states(dialect: str) -> Any:
    statement = _upsert(dialect, RUN_NODE_STATE)
    names = ("status", "attempt", "started_at", "completed_at", "failed_at", "updated_at", "last_error")
    updates = {name: statement.excluded[name] for name in names}
    return statement.on_conflict_do_update(index_elements=["run_id", "node_id"], set_=updates)


def _node_state(run_id: str, node: NodeSnapshot, at: datetime) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "node_id": node.node_id,
        "status": node.status,
        "attempt": node.attempt,
        "started_at": node.started_at,
        "completed_at": node.ended_at if node.status == "completed" else None,
        "failed_at": at if node.status == "failed" else None,
        "updated_at": at,
        "last_error": None if node.error is None else storable_text(node.error),
        "retryable": True,
    }
