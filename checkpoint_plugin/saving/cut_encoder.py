"""A cut as rows: its values are encoded, what is bound is bound by digests, and what is encrypted is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

from checkpoint_plugin.blobs.files import Blobs, BlobWriter
from checkpoint_plugin.codec import Codec, encode
from checkpoint_plugin.database.damage import column_bytes
from checkpoint_plugin.saving.completed import Tally, block_digest
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.saving.holding import Holding, pack_link
from checkpoint_plugin.saving.large_values import LargeValue
from checkpoint_plugin.saving.payloads import PayloadRow, PayloadWriter
from checkpoint_plugin.saving.rows import PAYLOAD_REF, EncodedCut, RowWriter
from checkpoint_plugin.saving.statements import JOB_COLUMNS, MANY
from checkpoint_plugin.stored_bytes.digests import add_digests, cut_hash_of, row_digester, segment_digest
from checkpoint_plugin.stored_bytes.sealing import (
    PLAIN,
    Seal,
    completed_place,
    items_place,
    node_place,
    payload_place,
    series_place,
)
from checkpoint_plugin.tables.definition import storable_text
from checkpoint_plugin.tables.job import JobEnd
from checkpoint_plugin.tables.suspensions import job_columns, node_columns
from hookspecs import NodeSnapshot, Snapshot, Suspension

__all__ = ["CutEncoder", "SaveRows", "head_digest"]


@dataclass(slots=True)
class SaveRows:
    """What one save writes: rows by the names of `statements.MANY`, in the order of the columns there; `names` has rows."""

    payloads: list[PayloadRow] = field(default_factory=list)
    segments: list[tuple[Any, ...]] = field(default_factory=list)
    nodes: list[tuple[Any, ...]] = field(default_factory=list)
    changed: list[tuple[Any, ...]] = field(default_factory=list)
    completed: list[tuple[Any, ...]] = field(default_factory=list)
    items: list[tuple[Any, ...]] = field(default_factory=list)
    states: list[tuple[Any, ...]] = field(default_factory=list)
    waiting: list[tuple[Any, ...]] = field(default_factory=list)
    shown: list[tuple[Any, ...]] = field(default_factory=list)
    names: tuple[str, ...] = ()
    head: dict[str, Any] = field(default_factory=dict)
    job: tuple[Any, ...] = ()


NO_ROWS: Final = SaveRows()
"""Those of a save that is not encoded yet."""
BOUND: Final = itemgetter(
    *("run_id", "reason", "status", "error", "error_node_id"), *("number", "attempt", "nodes", "size_bytes", "row_count")
)
"""What a checkpoint's digest binds as it is; the order is stored."""


class CutEncoder:
    """What a save adds, as rows; nothing of it changes any more once it is encoded.

    Args:
        history: of the run, as of the checkpoint before.
        snapshot: the cut, with the nodes that changed.
        reason: why it was taken.
        codec: encodes its values; default: without types of plugins.
        blobs: where large values become files; `None` where they do not.
    """

    def __init__(
        self, history: RunHistory, snapshot: Snapshot, reason: str, codec: Codec | None = None, blobs: Blobs | None = None
    ) -> None:
        self.history = history
        self.number = history.number + 1
        self.shown: Mapping[str, tuple[Any, ...]] = {}
        """Of nodes that are saved by hand, `statements.SHOWN` as it is stored."""
        self.rows = NO_ROWS
        self._snapshot = snapshot
        self._reason = reason
        self._codec = codec or Codec()
        self._cut_hash = history.total
        self._digests: dict[str, bytes] = {}
        self._over: dict[str, bytes] = {}
        self._saved_items: dict[str, int] = {}
        self._held: dict[str, Holding] = {}
        self._suspended: dict[str, Suspension] = {}
        self._mentioned: dict[bytes, None] = {}
        self._large: dict[int, LargeValue] = {}
        self._payloads: PayloadWriter | None = None
        self._files = None if blobs is None else BlobWriter(blobs, history.run_id)
        self._size = 0
        self._new_nodes = 0

    def encode(self) -> None:
        """Turn values into bytes and hash them; this takes long and needs no connection. What becomes a file is on the disk then.

        Raises:
            ValueNotStorable: a value cannot be stored.
            BlobsUnusable: a file cannot be written.
        """
        if self.rows.head:
            return  # encoded by an earlier try, which may have been written: another moment or nonce would make it another save
        if self._files is None:
            self._encode()
            return
        try:
            self._encode()
            self._files.settle()
        except BaseException:
            self._files.undo()
            raise

    def _encode(self) -> None:
        history, snapshot, rows = self.history, self._snapshot, SaveRows()
        file_bytes = None if self._files is None else self._files.limit
        writer = RowWriter(
            history.run_id,
            history.saved_items,
            history.payloads,
            self._codec,
            history.seal,
            history.large,
            history.places,
            file_bytes,
            history.held,
        )
        cut = writer.encode(snapshot.nodes, snapshot.context)
        self._mentioned, self._large, self._held = cut.mentioned, cut.large, cut.held
        self._size = self._encode_payloads(cut, rows, file_bytes) + self._encode_nodes(cut, rows) + self._encode_items(cut, rows)
        if history.tally is not None:
            self._size += self._encode_block(cut, rows, history.tally)
        self._encode_states(rows)
        rows.names = tuple([name for name in MANY if getattr(rows, name)])
        rows.head = self._head(cut.context)
        self._suspended = {node.node_id: node.suspension for node in snapshot.nodes if node.suspension is not None}
        if not self._goes_on:
            rows.job = self._job()
        self.rows = rows

    # Each part gives the bytes that it adds.

    def _encode_payloads(self, cut: EncodedCut, rows: SaveRows, file_bytes: int | None) -> int:
        history, seal = self.history, self.history.seal
        if not cut.payloads:
            return 0
        payloads = PayloadWriter(history.bases, self.number, history.places.related, self._filed, file_bytes)
        for digest, (data, place) in cut.payloads.items():
            payloads.add(digest, data, place)
        rows.payloads = payloads.rows
        if seal is not PLAIN:
            rows.payloads = [
                p if p.blob is not None else p._replace(body=seal.seal(p.body, *payload_place(p.digest))) for p in payloads.rows
            ]
        rows.segments = [
            (part.series, part.start, part.size, part.encoding, self._sealed(part.body, series_place, part.series, part.start))
            for part in payloads.segments
        ]
        self._payloads = payloads
        return payloads.row_bytes + payloads.file_bytes

    def _encode_nodes(self, cut: EncodedCut, rows: SaveRows) -> int:
        history, number, digest_row = self.history, self.number, row_digester(self.history.run_id)
        total, size, new = history.total, 0, 0
        for node_id, row in cut.rows.items():
            before = history.digests.get(node_id)
            continues = history.held[node_id].number if node_id in cut.changed else None
            if continues is not None:
                row = pack_link(continues, history.digests[node_id]) + row
            body = self._sealed(row, node_place, node_id, number)
            digest = self._digests[node_id] = digest_row(node_id, number, body)
            new += before is None
            total = add_digests(total, added=digest, removed=before)
            if continues is None:
                rows.nodes.append((node_id, body, cut.mentions.get(node_id, b""), digest))
            else:
                rows.changed.append((node_id, body, cut.mentions.get(node_id, b""), digest, continues))
            size += len(body)
        for held in cut.held.values():
            held.number = number
        self._cut_hash, self._new_nodes = total, new
        return size

    def _encode_items(self, cut: EncodedCut, rows: SaveRows) -> int:
        run_id, log, size = self.history.run_id, self.history.log, 0
        for item in cut.segments:
            body = self._sealed(item.body, items_place, item.node_id, log, item.first)
            digest = segment_digest(run_id, item.node_id, log, item.first, body)
            rows.items.append((item.node_id, log, item.first, item.count, body, item.mentions, digest))
            self._saved_items[item.node_id] = item.first + item.count
            size += len(body)
        return size

    def _encode_block(self, cut: EncodedCut, rows: SaveRows, tally: Tally) -> int:
        self._over = {node_id: self._digests[node_id] for node_id in cut.over}
        block = tally.block(self._over, self._others, self.number)
        if block is None:
            return 0
        block = self._sealed(block, completed_place, self.number)
        rows.completed.append((block, block_digest(self.history.run_id, self.number, block)))
        return len(block)

    def _encode_states(self, rows: SaveRows) -> None:
        history, at, seal = self.history, self._snapshot.taken_at, self.history.seal
        for node in self._snapshot.nodes:
            if node.node_id in self.shown:
                rows.shown.append((*_node_state(node, at, seal), *self.shown[node.node_id]))
            elif node.suspension is not None or node.status == "suspended":
                rows.waiting.append((*_node_state(node, at, seal), *node_columns(node.suspension, at, seal)))
            elif node.status != "idle" or history.tells_of(node.node_id):  # who has not begun has no row, as who got nothing yet
                rows.states.append(_node_state(node, at, seal))

    def _job(self) -> tuple[Any, ...]:
        """What the run's row says from now on."""
        snapshot, seal = self._snapshot, self.history.seal
        end = JobEnd(snapshot.status, snapshot.error, snapshot.taken_at).columns(snapshot.taken_at, seal)
        waits = job_columns(self._waiting() if snapshot.status == "suspended" else {}, seal)
        job = {"has_checkpoint": True, **end, **waits}
        return tuple(job[name] for name in JOB_COLUMNS)

    def _waiting(self) -> Mapping[str, Suspension]:
        """All nodes that are suspended: those that were and did not change, and those of this cut."""
        before = self.history.suspended.items()
        return {**{node_id: waits for node_id, waits in before if node_id not in self._digests}, **self._suspended}

    def _sealed(self, data: bytes, place: Callable[..., tuple[bytes, ...]], *where: Any) -> bytes:
        seal = self.history.seal
        return data if seal is PLAIN else seal.seal(data, *place(*where))

    def _filed(self, row: PayloadRow) -> PayloadRow:
        assert self._files is not None
        sealed = self.history.seal.seal(row.body, *payload_place(row.digest))
        return row._replace(body=b"", blob=self._files.write(sealed))

    def _head(self, context: bytes | tuple[bytes] | None) -> dict[str, Any]:
        """The row of the checkpoint."""
        snapshot = self._snapshot
        mentioned = context[0] if isinstance(context, tuple) else None
        body = PAYLOAD_REF + context[0] if isinstance(context, tuple) else context
        values: dict[str, Any] = {
            "run_id": self.history.run_id,
            "number": self.number,
            "attempt": snapshot.attempt,
            "reason": storable_text(self._reason),
            "label": None,
            "created_at": snapshot.taken_at,
            "nodes": len(self._digests),
            "size_bytes": self._size,
            "row_count": self.history.unread + len(self.history.digests) + self._new_nodes,
            "log": self.history.log,
            "cut_hash": self.cut_hash,
            "status": snapshot.status,
            "error": None if snapshot.error is None else self.history.seal.seal_text(storable_text(snapshot.error)),
            "error_node_id": snapshot.error_node_id,
            "context": None if body is None else self.history.seal.seal(body, b"context"),
            "mentions": mentioned,
            "written_at": datetime.now(UTC),
        }
        values["digest"] = head_digest(values, self.history.seal)
        return values

    @property
    def _goes_on(self) -> bool:
        """Whether the run's row stays as the checkpoint before left it, or as who has claimed the run since."""
        if self._snapshot.status == "recovering":
            return self.history.number > 0
        return self.history.status == self._snapshot.status == "running"

    @property
    def _others(self) -> Iterable[str]:
        """Nodes of the cut that go on."""
        return (node_id for node_id in self._digests if node_id not in self._over)

    @property
    def cut_hash(self) -> bytes:
        """The hash over the whole cut."""
        return cut_hash_of(self._cut_hash)


def head_digest(values: Mapping[str, Any], seal: Seal) -> bytes:
    """What binds a checkpoint's row together: all of it but the label, which a person may change.

    Args:
        values: of its columns.
        seal: of the run.
    """
    parts: list[Any] = [*BOUND(values), _moment(values["created_at"]), column_bytes(values["cut_hash"])]
    parts += [_moment(values["written_at"]), values["context"], values["log"]]
    return seal.bind(encode(parts, lambda: "checkpoint"))


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _node_state(node: NodeSnapshot, at: datetime, seal: Seal) -> tuple[Any, ...]:
    return (
        node.node_id,
        node.status,
        node.attempt,
        node.started_at,
        node.ended_at if node.status == "completed" else None,
        at if node.status == "failed" else None,
        None if node.error is None else seal.seal_text(storable_text(node.error)),
    )
