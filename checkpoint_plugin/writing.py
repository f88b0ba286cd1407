"""A save: encoded first, then written, on SQLite by one statement a table, on PostgreSQL by a single one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.blobs import Blobs, BlobWriter
from checkpoint_plugin.codec import Codec, encode
from checkpoint_plugin.completed import block_digest
from checkpoint_plugin.definition import storable_text
from checkpoint_plugin.digests import add_digests, digest_of, row_digester, segment_digest
from checkpoint_plugin.history import RunHistory
from checkpoint_plugin.job import JobEnd
from checkpoint_plugin.lease import lease_lost
from checkpoint_plugin.light import is_light
from checkpoint_plugin.models import CHECKPOINT, LEASE, PAYLOAD
from checkpoint_plugin.payloads import PayloadRow, PayloadWriter
from checkpoint_plugin.rows import Ref, RowWriter
from checkpoint_plugin.sealing import PLAIN, Seal, completed_place, items_place, node_place, payload_place, series_place
from checkpoint_plugin.statements import JOB_COLUMNS, MANY, ONE, USUAL, rows_statement, save_statement, sqlite_statements
from checkpoint_plugin.suspensions import job_columns, node_columns
from hookspecs import CheckpointRef, NodeSnapshot, Snapshot, StoreError, Suspension

__all__ = ["CutWriter", "SaveRows", "head_digest", "insert_new"]

LARGE_SAVE: Final = 1 << 20
"""Bytes of payloads beyond which a save is sent in parts."""
MANY_ROWS: Final = 1_000
"""Rows of a table beyond which it is: a message that holds 5,000 takes the driver 15 ms, in which the event loop stands still."""
IN_ORDER: Final = itemgetter(*ONE)
"""The values of a checkpoint's row, as its statement takes them."""


def insert_new(dialect: str, table: Any) -> Any:
    """An insert of rows whose keys are new, which leaves out the others."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table).on_conflict_do_nothing()


@dataclass(slots=True)
class SaveRows:
    """What one save writes: rows by the names of `statements.MANY`, in the order of the columns there."""

    payloads: list[PayloadRow] = field(default_factory=list)
    segments: list[tuple[Any, ...]] = field(default_factory=list)
    nodes: list[tuple[Any, ...]] = field(default_factory=list)
    completed: list[tuple[Any, ...]] = field(default_factory=list)
    items: list[tuple[Any, ...]] = field(default_factory=list)
    states: list[tuple[Any, ...]] = field(default_factory=list)
    waiting: list[tuple[Any, ...]] = field(default_factory=list)
    shown: list[tuple[Any, ...]] = field(default_factory=list)
    head: dict[str, Any] = field(default_factory=dict)
    job: tuple[Any, ...] = ()


NO_ROWS: Final = SaveRows()
"""Those of a save that is not encoded yet."""


class CutWriter:
    """One save: what it adds is encoded first, then written, then noted in the history.

    It is frozen once it is encoded, so it can be tried again; a try that was done all the same is recognised.

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
        """Of nodes that are saved by hand, `statements.SHOWN` as it is stored; set before it is encoded."""
        self.rows = NO_ROWS
        self._snapshot = snapshot
        self._reason = reason
        self._codec = codec or Codec()
        self._cut_hash = history.total
        self._digests: dict[str, bytes] = {}
        self._over: dict[str, bytes] = {}
        self._saved_items: dict[str, int] = {}
        self._suspended: dict[str, Suspension] = {}
        self._mentioned: dict[bytes, None] = {}
        self._large: dict[int, tuple[str | bytes, Ref]] = {}
        self._payloads: PayloadWriter
        self._files = None if blobs is None else BlobWriter(blobs, history.run_id)
        self._size = 0

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
        history, snapshot, number, rows = self.history, self._snapshot, self.number, SaveRows()
        run_id, at = history.run_id, snapshot.taken_at
        seal = history.seal

        def sealed(data: bytes, place: Callable[..., tuple[bytes, ...]], *where: Any) -> bytes:
            return data if seal is PLAIN else seal.seal(data, *place(*where))

        known = history.payloads
        file_bytes = None if self._files is None else self._files.limit
        writer = RowWriter(run_id, history.saved_items, known, self._codec, seal, history.large, history.places, file_bytes)
        cut = writer.encode(snapshot.nodes)
        payloads = self._payloads = PayloadWriter(history.bases, number, history.places.related, self._filed, file_bytes)
        for digest, (data, place) in cut.payloads.items():
            payloads.add(digest, data, place)
        rows.payloads = payloads.rows
        if seal is not PLAIN:
            rows.payloads = [
                p if p.blob is not None else p._replace(body=seal.seal(p.body, *payload_place(p.digest))) for p in payloads.rows
            ]
        rows.segments = [
            (part.series, part.start, part.size, part.encoding, sealed(part.body, series_place, part.series, part.start))
            for part in payloads.segments
        ]
        total, size, digest_row = history.total, payloads.row_bytes + payloads.file_bytes, row_digester(run_id)
        for node_id, row in cut.rows.items():
            body = sealed(row, node_place, node_id, number)
            digest = self._digests[node_id] = digest_row(node_id, number, body)
            total = add_digests(total, added=digest, removed=history.digests.get(node_id))
            rows.nodes.append((node_id, body, cut.mentions.get(node_id, b""), digest))
            size += len(body)
        for item in cut.segments:
            body = sealed(item.body, items_place, item.node_id, history.log, item.first)
            digest = segment_digest(run_id, item.node_id, history.log, item.first, body)
            rows.items.append((item.node_id, history.log, item.first, item.count, body, item.mentions, digest))
            self._saved_items[item.node_id] = item.first + item.count
            size += len(body)
        if history.tally is not None:
            self._over = {node_id: self._digests[node_id] for node_id in cut.over}
            block = history.tally.block(self._over, self._others, number)
            if block is not None:
                block = sealed(block, completed_place, number)
                rows.completed.append((block, block_digest(run_id, number, block)))
                size += len(block)
        for node in snapshot.nodes:
            if node.node_id in self.shown:
                rows.shown.append((*_node_state(node, at, seal), *self.shown[node.node_id]))
            elif node.suspension is not None or node.status == "suspended":
                rows.waiting.append((*_node_state(node, at, seal), *node_columns(node.suspension, at, seal)))
            elif node.status != "idle" or history.tells_of(node.node_id):  # who has not begun has no row, as who got nothing yet
                rows.states.append(_node_state(node, at, seal))
        self._cut_hash, self._size, self._mentioned, self._large = total, size, cut.mentioned, cut.large
        rows.head = self._head()
        self._suspended = {n: waits for n, waits in history.suspended.items() if n not in self._digests}
        self._suspended.update((node.node_id, node.suspension) for node in snapshot.nodes if node.suspension is not None)
        if not self._goes_on:
            end = JobEnd(snapshot.status, snapshot.error, at).columns(at, seal)
            waits = job_columns(self._suspended if snapshot.status == "suspended" else {}, seal)
            job = {"has_checkpoint": True, **end, **waits}
            rows.job = tuple(job[name] for name in JOB_COLUMNS)
        self.rows = rows

    def _filed(self, row: PayloadRow) -> PayloadRow:
        assert self._files is not None
        sealed = self.history.seal.seal(row.body, *payload_place(row.digest))
        return row._replace(body=b"", blob=self._files.write(sealed))

    # Writing.

    def write(self, connection: Connection) -> bool:
        """Write it in a transaction.

        Returns:
            Whether the run's lease was held under the history's epoch, and the history is up to date; else nothing was
            written.
        """
        if connection.dialect.name == "postgresql":
            sql, arguments = self.statement()
            return bool(connection.exec_driver_sql(sql, arguments).scalar_one())
        return self.write_sqlite(connection.connection.driver_connection)

    def write_sqlite(self, connection: Any) -> bool:
        """As `write`, on a connection of the standard library, in whose transaction nobody else can write."""
        history, rows, statements = self.history, self.rows, sqlite_statements()
        if connection.execute(statements.advance.sql, statements.advance.parameters(self._fence())).rowcount != 1:
            return False
        shared = self._shared()
        for name, kind in MANY.items():
            many = getattr(rows, name)
            if many:
                statement = statements.many[name]
                connection.executemany(statement.sql, statement.rows(shared[: len(kind.shared)], many))
        connection.execute(statements.checkpoint.sql, statements.checkpoint.parameters(IN_ORDER(rows.head)))
        if not self._goes_on:
            connection.execute(statements.job.sql, statements.job.parameters((history.run_id, *rows.job)))
        return True

    def statement(self, *, whole: bool = True) -> tuple[str, tuple[Any, ...]]:
        """The whole save as one statement for PostgreSQL, which gives 1 when it was written, else 0.

        Args:
            whole: off when `payload_statements` went before, and `more_statements` follow, in the same transaction.
        """
        rows = self.rows
        found: dict[str, Sequence[Any]] = {name: getattr(rows, name) for name in MANY}
        if not whole:
            found = {name: () if name == "payloads" else many[:MANY_ROWS] for name, many in found.items()}
        save = save_statement(frozenset(name for name, many in found.items() if many and name not in USUAL), not self._goes_on)
        values: list[Any] = [*self._fence(), self._snapshot.taken_at, *IN_ORDER(rows.head)]
        for name, many in found.items():
            if many:
                values += zip(*many, strict=True)
            elif name in USUAL:
                values += ((),) * len(MANY[name].columns)
        return save.sql, save.parameters((*values, *rows.job))

    def _fence(self) -> tuple[Any, ...]:
        """The values of `statements.FENCE`."""
        history = self.history
        return history.run_id, self.number, history.epoch, history.generation, history.number

    def _shared(self) -> tuple[Any, ...]:
        """The values of `statements.SHARED`."""
        return self.history.run_id, self.number, self._snapshot.taken_at

    @property
    def _goes_on(self) -> bool:
        """Whether the run's row stays as the checkpoint before left it."""
        return self.history.status == self._snapshot.status == "running"

    @property
    def _others(self) -> Iterable[str]:
        """Nodes of the cut that go on."""
        return (node_id for node_id in self._digests if node_id not in self._over)

    @property
    def cut_hash(self) -> bytes:
        """The hash over the whole cut."""
        return self._cut_hash.to_bytes(32, "big")

    @property
    def is_light(self) -> bool:
        """Whether encoding takes so little time that handing it to a thread takes longer."""
        return self._files is None and is_light(self._snapshot.nodes, self.history.saved_items)

    @property
    def is_large(self) -> bool:
        """Whether it is too large for one message."""
        return self._payloads.row_bytes > LARGE_SAVE or len(self.rows.nodes) > MANY_ROWS

    def payload_statements(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The payloads in parts, for PostgreSQL, none much larger than a single value."""
        statement = rows_statement("payloads")
        part: list[tuple[Any, ...]] = []
        size = 0
        for place, row in enumerate(self.rows.payloads, 1):
            part.append(row)
            size += len(row[3])
            if size >= LARGE_SAVE or len(part) >= MANY_ROWS or place == len(self.rows.payloads):
                yield statement.sql, statement.parameters((self.history.run_id, *zip(*part, strict=True)))
                part, size = [], 0

    def more_statements(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What `statement` leaves out when it is not the whole save; to be written only where that was, for it is the fence."""
        shared = self._shared()
        for name, kind in MANY.items():
            many = () if name == "payloads" else getattr(self.rows, name)
            for first in range(MANY_ROWS, len(many), MANY_ROWS):
                statement = rows_statement(name)
                columns = zip(*many[first : first + MANY_ROWS], strict=True)
                yield statement.sql, statement.parameters((*shared[: len(kind.shared)], *columns))

    # What comes of it.

    def refused(self, connection: Connection) -> bool:
        """Find out why nothing was written.

        Returns:
            Whether it must be encoded again, because rows of the run were pruned, or the save before was written although
            nobody heard so; without, it was written all the same, by a try whose outcome was not heard of.

        Raises:
            LeaseLost: another worker took the run.
            StoreError: the history is not that of the newest checkpoint.
        """
        history = self.history
        row = connection.execute(select(LEASE).where(LEASE.c.run_id == history.run_id)).first()
        if row is None or row.epoch != history.epoch:
            raise lease_lost(history.run_id, history.epoch, row)
        if row.newest_number == self.number:
            found = select(CHECKPOINT.c.digest).where(CHECKPOINT.c.run_id == history.run_id, CHECKPOINT.c.number == self.number)
            digest = connection.execute(found).scalar_one_or_none()
            if digest == self.rows.head["digest"]:
                return False
            if history.unheard is not None and digest == history.unheard.rows.head.get("digest"):
                history.unheard.note()
                history.unheard = None
                return True
        if row.newest_number != history.number:
            raise StoreError(
                f"run {history.run_id!r}: its newest checkpoint is {row.newest_number}, and this attempt goes on from "
                f"{history.number}; nothing was written. Resume the run from its newest checkpoint."
            )
        history.forget(row.generation)
        if self._files is not None:  # what is there already is not written once more, only to find that it is
            filed = select(PAYLOAD.c.digest).where(PAYLOAD.c.run_id == history.run_id, PAYLOAD.c.blob.is_not(None))
            history.remember(map(bytes, connection.execute(filed).scalars()))
        return True

    def discard(self) -> None:
        """Delete the files of a save that was refused for good."""
        if self._files is not None:
            self._files.undo()

    def note(self) -> CheckpointRef:
        """Bring the history up to the checkpoint, which is durable now."""
        history = self.history
        history.number = self.number
        history.total = self._cut_hash
        history.status = self._snapshot.status
        history.suspended = self._suspended
        history.digests.update(self._digests)
        if history.tally is not None:
            history.tally.note(self._over, self._others, self.number, told=bool(self.rows.completed))
        history.remember(self._mentioned)
        history.large = self._large
        history.saved_items.update(self._saved_items)
        self._payloads.note()
        details = {"nodes": len(self._digests), "bytes": self._size}
        return CheckpointRef(history.run_id, self.number, self._reason, self._snapshot.taken_at, details)

    def _context(self) -> bytes | None:
        if self._snapshot.context is None:
            return None
        return self.history.seal.seal(self._codec.encode(self._snapshot.context, self._context_place), b"context")

    def _context_place(self) -> str:
        return f"run {self.history.run_id!r}, context"

    def _head(self) -> dict[str, Any]:
        """The row of the checkpoint."""
        snapshot = self._snapshot
        known = self.history.digests
        values: dict[str, Any] = {
            "run_id": self.history.run_id,
            "number": self.number,
            "attempt": snapshot.attempt,
            "reason": storable_text(self._reason),
            "label": None,
            "created_at": snapshot.taken_at,
            "nodes": len(self._digests),
            "size_bytes": self._size,
            "row_count": self.history.unread + len(known) + sum(node_id not in known for node_id in self._digests),
            "log": self.history.log,
            "cut_hash": self._cut_hash.to_bytes(32, "big"),
            "status": snapshot.status,
            "error": None if snapshot.error is None else self.history.seal.seal_text(storable_text(snapshot.error)),
            "error_node_id": snapshot.error_node_id,
            "context": self._context(),
            "mentions": None,
            "written_at": datetime.now(UTC),
        }
        return {**values, "digest": head_digest(values)}


def head_digest(values: Mapping[str, Any]) -> bytes:
    """What binds a checkpoint's row together: all of it but the label, which a person may change."""
    texts = [values[name] for name in ("run_id", "reason", "status", "error", "error_node_id")]
    numbers = [values[name] for name in ("number", "attempt", "nodes", "size_bytes", "row_count")]
    at = values["created_at"].astimezone(UTC).isoformat(timespec="microseconds")
    parts: list[Any] = [*texts, *numbers, at, bytes(values["cut_hash"])]
    if values["written_at"] is not None:  # as layout 1 had none of these
        parts += [values["written_at"].astimezone(UTC).isoformat(timespec="microseconds"), values["context"], values["log"]]
    return digest_of(encode(parts, lambda: "checkpoint"))


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
