"""The statements of a save: one a table, however many rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.models import CHECKPOINT, JOB, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, RUN_NODE_STATE
from checkpoint_plugin.rows import EncodedCut, digest_of, row_digest
from hookspecs import NodeSnapshot, RunNotFound, Snapshot

__all__ = ["RunHistory", "head_digest", "job_ending", "lock_job", "write_cut"]

FINAL: Final = ("completed", "failed", "cancelled", "paused")


@dataclass(slots=True)
class RunHistory:
    """What one attempt knows of its run's rows, so that a save reads nothing back.

    Args:
        run_id: the run.
        attempt: this one.
        number: of the newest durable checkpoint, 0 without one.
        digests: of every node's newest row.
        saved_items: durable items of each output node.
        total: the hash of the newest cut.
        payloads: digests of payloads known to be stored.
    """

    run_id: str
    attempt: int
    number: int = 0
    digests: dict[str, bytes] = field(default_factory=dict)
    saved_items: dict[str, int] = field(default_factory=dict)
    total: int = 0
    payloads: set[bytes] = field(default_factory=set)


def lock_job(connection: Connection, run_id: str, shown: str) -> Any:
    """Lock a run's row until the end of the transaction: on SQLite the transaction itself is the lock."""
    row = connection.execute(select(JOB.c.attempt, JOB.c.status).where(JOB.c.id == run_id).with_for_update()).first()
    if row is None:
        raise RunNotFound(run_id, shown)
    return row


def job_ending(status: str, error: str | None, at: datetime) -> dict[str, Any]:
    """The columns of a run's row that tell its status."""
    text = None if error is None else _storable_text(error)
    over = status in FINAL
    return {
        "status": status,
        "updated_at": at,
        "finished_at": at if over else None,
        "completed_at": at if status == "completed" else None,
        "failed_at": at if status == "failed" else None,
        "error": text,
        "error_message": text,
        "version": JOB.c.version + 1,
    }


def _storable_text(text: str) -> str:
    """Text as every database takes it: lone surrogates and NUL escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _upsert(dialect: str, table: Table) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def write_cut(
    connection: Connection,
    history: RunHistory,
    snapshot: Snapshot,
    reason: str,
    number: int,
    cut: EncodedCut,
    digests: Mapping[str, bytes],
    total: int,
) -> None:
    """One statement a table, however many rows."""
    run_id = history.run_id
    dialect = connection.dialect.name
    payloads = [{"run_id": run_id, "digest": d, "body": b} for d, b in cut.payloads.items() if d not in history.payloads]
    if payloads:
        connection.execute(_new_payloads(dialect), payloads)
    if cut.bodies:
        rows = [
            {"run_id": run_id, "node_id": n, "number": number, "body": b, "digest": digests[n]} for n, b in cut.bodies.items()
        ]
        connection.execute(insert(NODE_VERSION), rows)
        connection.execute(_node_states(dialect), [_node_state(run_id, node, snapshot.taken_at) for node in snapshot.nodes])
    if cut.segments:
        connection.execute(insert(OUTPUT_SEGMENT), [_segment(run_id, number, *segment) for segment in cut.segments])
    row_count = len(history.digests.keys() | digests.keys())
    error = None if snapshot.error is None else _storable_text(snapshot.error)
    values = {
        "run_id": run_id,
        "number": number,
        "attempt": snapshot.attempt,
        "reason": _storable_text(reason),
        "label": None,
        "created_at": snapshot.taken_at,
        "nodes": len(cut.bodies),
        "size_bytes": cut.size,
        "row_count": row_count,
        "cut_hash": total.to_bytes(32, "big"),
        "status": snapshot.status,
        "error": error,
        "error_node_id": snapshot.error_node_id,
    }
    connection.execute(insert(CHECKPOINT).values(**values, digest=head_digest(values)))
    connection.execute(
        update(JOB).where(JOB.c.id == run_id).values(job_ending(snapshot.status, snapshot.error, snapshot.taken_at))
    )


def head_digest(values: Mapping[str, Any]) -> bytes:
    """What binds a checkpoint's row together."""
    names = ("run_id", "number", "attempt", "row_count", "status", "error_node_id")
    return digest_of(*(repr(values[name]).encode("utf-8", "surrogatepass") for name in names), values["cut_hash"])


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
    return _upsert(dialect, PAYLOAD).on_conflict_do_nothing()


@cache
def _node_states(dialect: str) -> Any:
    # Made once: a statement with `excluded` costs more to make than to run.
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
        "last_error": None if node.error is None else _storable_text(node.error),
        "retryable": True,
    }
