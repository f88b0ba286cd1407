"""The statements of a restore, and the checks of what comes back: four queries, whatever the number of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select

from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.history import RunHistory
from checkpoint_plugin.models import CHECKPOINT, JOB, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD
from checkpoint_plugin.rows import RowReader, add_hashes, row_digest, row_hash
from checkpoint_plugin.writing import head_digest
from hookspecs import Snapshot, StoreError

__all__ = ["StoredCut", "fetch_cut"]

BATCH: Final = 10_000
"""Values in one IN list: below the limits of both databases."""


@dataclass(frozen=True, slots=True)
class StoredCut:
    """The rows of one checkpoint, each what was written; values still encoded."""

    head: Any
    digests: Mapping[str, bytes]
    rows: Mapping[str, Mapping[str, Any]]
    segments: Sequence[tuple[str, Sequence[Any]]]
    payloads: Mapping[bytes, bytes]
    reader: RowReader

    def snapshot(self, history: RunHistory) -> Snapshot:
        """Decode the values, and bring the history up to this checkpoint.

        Raises:
            StoreDamaged: a payload is missing or changed.
        """
        head, reader = self.head, self.reader
        items: dict[str, list[Any]] = {}
        for node_id, refs in self.segments:
            where = f"output {node_id!r}"
            items.setdefault(node_id, []).extend(reader.value(ref, self.payloads, where) for ref in refs)
        nodes = tuple(reader.node(node_id, row, self.payloads, items.get(node_id, ())) for node_id, row in self.rows.items())
        history.number = head.number
        history.digests = dict(self.digests)
        history.saved_items = {node_id: len(found) for node_id, found in items.items()}
        history.total = int.from_bytes(head.cut_hash, "big")
        history.payloads.clear()
        history.remember(self.payloads)
        return Snapshot(head.run_id, head.attempt, head.status, nodes, head.created_at, head.error, head.error_node_id)


def fetch_cut(connection: Connection, run_id: str, number: int | None) -> StoredCut | None:
    """Read a checkpoint's rows, of the newest without a number; a digest is checked before anything is read from its row.

    Returns:
        The rows; `None` when the run has no checkpoint.

    Raises:
        StoreDamaged: a row is not what was written.
        StoreError: there is no checkpoint of that number.
    """
    head = _fetch_head(connection, run_id, number)
    if head is None:
        return None
    rows = connection.execute(_newest_rows(run_id, head.number)).all()
    segments = connection.execute(_segments(run_id, head.number)).all()
    _check_cut(run_id, head, rows)
    _check_segments(run_id, head.number, segments)
    reader = RowReader(run_id, head.number)
    unpacked = {row.node_id: reader.unpack(row.node_id, row.body) for row in rows}
    items = [(segment.node_id, reader.unpack_segment(segment.node_id, segment.body)) for segment in segments]
    mentioned = {digest for row in unpacked.values() for digest in reader.mentioned(row)}
    mentioned.update(ref[1] for _, refs in items for ref in refs if ref[0] == 1)
    payloads = _load_payloads(connection, run_id, mentioned)
    return StoredCut(head, {row.node_id: row.digest for row in rows}, unpacked, items, payloads, reader)


def _fetch_head(connection: Connection, run_id: str, number: int | None) -> Any:
    wanted = JOB.c.newest_number if number is None else number
    joined = JOB.outerjoin(CHECKPOINT, and_(CHECKPOINT.c.run_id == JOB.c.id, CHECKPOINT.c.number == wanted))
    head = connection.execute(select(JOB.c.newest_number, CHECKPOINT).select_from(joined).where(JOB.c.id == run_id)).first()
    if head is not None and head.number is not None:
        return head
    if number is not None:
        raise StoreError(f"run {run_id!r} has no checkpoint {number}. See `workflow checkpoints {run_id}`.")
    if head is not None and head.newest_number:
        raise StoreDamaged(run_id, "the checkpoint itself is missing", head.newest_number)
    return None


def _newest_rows(run_id: str, number: int) -> Any:
    of_run = and_(NODE_VERSION.c.run_id == run_id, NODE_VERSION.c.number <= number)
    newest = select(NODE_VERSION.c.node_id, func.max(NODE_VERSION.c.number).label("number")).where(of_run)
    found = newest.group_by(NODE_VERSION.c.node_id).subquery()
    same = and_(NODE_VERSION.c.node_id == found.c.node_id, NODE_VERSION.c.number == found.c.number)
    return select(NODE_VERSION).join(found, same).where(NODE_VERSION.c.run_id == run_id)


def _segments(run_id: str, number: int) -> Any:
    query = select(OUTPUT_SEGMENT).where(OUTPUT_SEGMENT.c.run_id == run_id)
    return query.where(OUTPUT_SEGMENT.c.number <= number).order_by(OUTPUT_SEGMENT.c.node_id, OUTPUT_SEGMENT.c.first)


def _load_payloads(connection: Connection, run_id: str, digests: Iterable[bytes]) -> dict[bytes, bytes]:
    wanted = sorted(digests)
    found: dict[bytes, bytes] = {}
    for first in range(0, len(wanted), BATCH):
        batch = wanted[first : first + BATCH]
        query = select(PAYLOAD.c.digest, PAYLOAD.c.body).where(PAYLOAD.c.run_id == run_id, PAYLOAD.c.digest.in_(batch))
        found.update({bytes(row.digest): bytes(row.body) for row in connection.execute(query)})
    return found


def _check_cut(run_id: str, head: Any, rows: Sequence[Any]) -> None:
    if head_digest(head._mapping) != head.digest:
        raise StoreDamaged(run_id, "the row of the checkpoint was changed", head.number)
    total = 0
    for row in rows:
        if row_digest(run_id, row.node_id, row.number, row.body) != row.digest:
            raise StoreDamaged(run_id, f"the row of node {row.node_id!r} was changed", head.number)
        total = add_hashes(total, added=row_hash(row.node_id, row.digest))
    if len(rows) != head.row_count:
        raise StoreDamaged(run_id, f"{len(rows)} of {head.row_count} node rows are there", head.number)
    if total.to_bytes(32, "big") != head.cut_hash:
        raise StoreDamaged(run_id, "a node row is not the one that the checkpoint was made of", head.number)


def _check_segments(run_id: str, number: int, segments: Sequence[Any]) -> None:
    """Each is what was written, and no two of a node leave a gap; that the last is there, the node's row tells."""
    ends: dict[str, int] = {}
    for segment in segments:
        changed = row_digest(run_id, segment.node_id, segment.first, segment.body) != segment.digest
        if changed or segment.first != ends.get(segment.node_id, 0):
            what = f"items {segment.first} to {segment.first + segment.count} of output {segment.node_id!r} were changed"
            raise StoreDamaged(run_id, what, number)
        ends[segment.node_id] = segment.first + segment.count
