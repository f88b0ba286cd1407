"""The statements: a run's row, its saves, and how a cut is read back. One transaction each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, and_, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.codec import MalformedValue, decode
from checkpoint_plugin.database import Database, open_database
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.location import Location
from checkpoint_plugin.models import CHECKPOINT, JOB, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, RUN_NODE_STATE
from checkpoint_plugin.rows import EncodedCut, RowReader, RowWriter, add_hashes, digest_of, row_digest, row_hash
from checkpoint_plugin.schema import check_schema, create_schema
from hookspecs import AttemptLost, CheckpointRef, NodeSnapshot, RunExists, RunNotFound, Snapshot, StoreError

__all__ = ["Definition", "RunHistory", "Store", "StoredJob"]

T = TypeVar("T")
BATCH: Final = 10_000
"""Values in one IN list: below the limits of both databases."""
FINAL: Final = ("completed", "failed", "cancelled", "paused")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a run was started with, as bytes, and the JSON that people read."""

    body: bytes
    graph: str
    params: str


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A run's row, decoded."""

    run_id: str
    attempt: int
    status: str
    graph: Mapping[str, Any]
    inputs: Mapping[str, Any]
    enable: Mapping[str, Any]


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


class Store:
    """One store, open.

    Args:
        location: where it is.
        create: make it where there is none.

    Raises:
        StoreMissing: there is none, and `create` is off.
    """

    def __init__(self, location: Location, *, create: bool) -> None:
        self.location = location
        self._create = create
        self._ready = False
        self._database: Database = open_database(location, create=create)

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run a function in one transaction, after the schema was made or checked once.

        Raises:
            StoreError: the store cannot be used, or the function refuses.
        """
        if not self._ready:
            prepare = create_schema if self._create else check_schema
            await self._database.transact(lambda connection: prepare(connection, self.location.shown))
            self._ready = True
        return await self._database.transact(work)

    # A run's row.

    async def insert_job(self, run_id: str, definition: Definition) -> None:
        """Write a new run's row.

        Raises:
            RunExists: there is one.
        """
        now = datetime.now(UTC)

        def work(connection: Connection) -> None:
            if connection.execute(select(JOB.c.id).where(JOB.c.id == run_id)).first() is not None:
                raise RunExists(run_id)
            connection.execute(
                insert(JOB).values(
                    id=run_id,
                    attempt=1,
                    status="running",
                    definition=definition.body,
                    definition_digest=digest_of(run_id.encode(), definition.body),
                    job_type="workflow",
                    graph=definition.graph,
                    params=definition.params,
                    created_at=now,
                    started_at=now,
                    updated_at=now,
                    retry_count=0,
                    max_retries=3,
                    version=0,
                )
            )

        await self.transact(work)

    async def begin_attempt(self, run_id: str, attempt: int) -> str:
        """Make an attempt the run's newest, if the one before it still is.

        Returns:
            The run's status until now.

        Raises:
            AttemptLost: another process was faster.
            RunNotFound: there is no such run.
        """

        def work(connection: Connection) -> str:
            row = _lock_job(connection, run_id, self.location.shown)
            if row.attempt != attempt - 1:
                raise AttemptLost(run_id, attempt, row.attempt)
            connection.execute(
                update(JOB)
                .where(JOB.c.id == run_id)
                .values(
                    attempt=attempt,
                    status="running",
                    updated_at=datetime.now(UTC),
                    finished_at=None,
                    failed_at=None,
                    error=None,
                    error_message=None,
                    version=JOB.c.version + 1,
                )
            )
            return str(row.status)

        return await self.transact(work)

    async def end_attempt(self, run_id: str, attempt: int, status: str, error: str | None) -> None:
        """Write how an attempt ended, when no checkpoint did; an attempt that was lost writes nothing."""

        def work(connection: Connection) -> None:
            if _lock_job(connection, run_id, self.location.shown).attempt == attempt:
                connection.execute(update(JOB).where(JOB.c.id == run_id).values(_ending(status, error, datetime.now(UTC))))

        await self.transact(work)

    async def load_job(self, run_id: str) -> StoredJob:
        """Read a run's row.

        Raises:
            RunNotFound: there is no such run.
            StoreDamaged: the row was changed.
        """

        def work(connection: Connection) -> Any:
            columns = (JOB.c.attempt, JOB.c.status, JOB.c.definition, JOB.c.definition_digest)
            return connection.execute(select(*columns).where(JOB.c.id == run_id)).first()

        row = await self.transact(work)
        if row is None:
            raise RunNotFound(run_id, self.location.shown)
        if digest_of(run_id.encode(), row.definition) != row.definition_digest:
            raise StoreDamaged(run_id, "its graph and inputs were changed")
        try:
            found = decode(row.definition)
        except MalformedValue as error:
            raise StoreDamaged(run_id, f"its graph and inputs: {error}") from error
        return StoredJob(run_id, row.attempt, row.status, found["graph"], found["inputs"], found["enable"])

    # Saving.

    async def save(self, history: RunHistory, snapshot: Snapshot, reason: str) -> CheckpointRef:
        """Write a cut as the run's next checkpoint.

        Raises:
            AttemptLost: a newer attempt owns the run; nothing was written.
            ValueNotStorable: a value cannot be stored; nothing was written.
            StoreError: the store cannot be used; nothing was written.
        """
        writer = RowWriter(history.run_id, history.saved_items)
        number = history.number + 1
        created_at = snapshot.taken_at
        outcome: list[tuple[EncodedCut, dict[str, bytes], int]] = []

        def work(connection: Connection) -> None:
            outcome.clear()
            cut = writer.encode(snapshot.nodes)
            digests = {node_id: row_digest(history.run_id, node_id, number, body) for node_id, body in cut.bodies.items()}
            total = history.total
            for node_id, digest in digests.items():
                old = history.digests.get(node_id)
                removed = 0 if old is None else row_hash(node_id, old)
                total = add_hashes(total, added=row_hash(node_id, digest), removed=removed)
            row = _lock_job(connection, history.run_id, self.location.shown)
            if row.attempt != history.attempt:
                raise AttemptLost(history.run_id, history.attempt, row.attempt)
            _write(connection, history, snapshot, reason, number, cut, digests, total)
            outcome.append((cut, digests, total))

        await self.transact(work)
        ((cut, digests, total),) = outcome
        history.number = number
        history.total = total
        history.digests.update(digests)
        history.payloads.update(cut.payloads)
        for node_id, first, count, _ in cut.segments:
            history.saved_items[node_id] = first + count
        return CheckpointRef(history.run_id, number, reason, created_at, {"nodes": len(cut.bodies), "bytes": cut.size})

    # Reading.

    async def restore(self, history: RunHistory, number: int | None) -> Snapshot | None:
        """Read a cut, the newest without a number, and bring the history up to it.

        Raises:
            StoreDamaged: it is not what was written.
            StoreError: there is no checkpoint of that number.
        """
        run_id = history.run_id

        def work(
            connection: Connection,
        ) -> tuple[Any, Sequence[Any], Sequence[Any], RowReader, dict[str, Any], dict[bytes, bytes]]:
            query = select(CHECKPOINT).where(CHECKPOINT.c.run_id == run_id)
            query = query.order_by(CHECKPOINT.c.number.desc()).limit(1)
            if number is not None:
                query = query.where(CHECKPOINT.c.number == number)
            head = connection.execute(query).first()
            if head is None:
                return None, (), (), RowReader(run_id, 0), {}, {}
            reader = RowReader(run_id, head.number)
            rows = connection.execute(_newest_rows(run_id, head.number)).all()
            segments = connection.execute(_segments(run_id, head.number)).all()
            _check_cut(run_id, head, rows)
            _check_segments(run_id, head.number, segments)
            unpacked = {row.node_id: reader.unpack(row.node_id, row.body) for row in rows}
            mentioned = {digest for row in unpacked.values() for digest in reader.mentioned(row)}
            for segment in segments:
                mentioned.update(ref[1] for ref in reader.unpack_segment(segment.node_id, segment.body) if ref[0] == 1)
            return head, rows, segments, reader, unpacked, _load_payloads(connection, run_id, mentioned)

        head, rows, segments, reader, unpacked, payloads = await self.transact(work)
        if head is None:
            if number is not None:
                raise StoreError(f"run {run_id!r} has no checkpoint {number}. See `workflow checkpoints {run_id}`.")
            return None
        items = _items(segments, reader, payloads)
        nodes = tuple(reader.node(n, row, payloads, items.get(n, ())) for n, row in unpacked.items())
        history.number = head.number
        history.digests = {row.node_id: row.digest for row in rows}
        history.saved_items = {node_id: len(found) for node_id, found in items.items()}
        history.total = int.from_bytes(head.cut_hash, "big")
        history.payloads = set(payloads)
        return Snapshot(run_id, head.attempt, head.status, nodes, head.created_at, head.error, head.error_node_id)

    async def jobs(self) -> Sequence[Any]:
        """Every run, newest first: id, status, attempt, times, error."""
        columns = (JOB.c.id, JOB.c.status, JOB.c.attempt, JOB.c.created_at, JOB.c.updated_at, JOB.c.finished_at, JOB.c.error)
        query = select(*columns).order_by(JOB.c.created_at.desc(), JOB.c.id.desc())
        return await self.transact(lambda connection: connection.execute(query).all())

    async def job(self, run_id: str) -> Any:
        """One run's row, without its definition.

        Raises:
            RunNotFound: there is none.
        """
        columns = (JOB.c.id, JOB.c.status, JOB.c.attempt, JOB.c.created_at, JOB.c.updated_at, JOB.c.finished_at, JOB.c.error)
        row = await self.transact(lambda connection: connection.execute(select(*columns).where(JOB.c.id == run_id)).first())
        if row is None:
            raise RunNotFound(run_id, self.location.shown)
        return row

    async def node_states(self, run_id: str) -> Sequence[Any]:
        """The rows of `run_node_state` of a run."""
        query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id)
        return await self.transact(lambda connection: connection.execute(query).all())

    async def checkpoints(self, run_id: str) -> Sequence[Any]:
        """The checkpoints of a run, oldest first."""
        query = select(CHECKPOINT).where(CHECKPOINT.c.run_id == run_id).order_by(CHECKPOINT.c.number)
        return await self.transact(lambda connection: connection.execute(query).all())


def _lock_job(connection: Connection, run_id: str, shown: str) -> Any:
    """Lock a run's row until the end of the transaction: on SQLite the transaction itself is the lock."""
    row = connection.execute(select(JOB.c.attempt, JOB.c.status).where(JOB.c.id == run_id).with_for_update()).first()
    if row is None:
        raise RunNotFound(run_id, shown)
    return row


def _ending(status: str, error: str | None, at: datetime) -> dict[str, Any]:
    """The columns of a run's row that tell its status."""
    text = None if error is None else storable_text(error)
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


def storable_text(text: str) -> str:
    """Text as every database takes it: lone surrogates and NUL escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _upsert(connection: Connection, table: Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _write(
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
    payloads = [{"run_id": run_id, "digest": d, "body": b} for d, b in cut.payloads.items() if d not in history.payloads]
    if payloads:
        connection.execute(_upsert(connection, PAYLOAD).on_conflict_do_nothing(), payloads)
    if cut.bodies:
        rows = [
            {"run_id": run_id, "node_id": n, "number": number, "body": b, "digest": digests[n]} for n, b in cut.bodies.items()
        ]
        connection.execute(insert(NODE_VERSION), rows)
        connection.execute(_node_states(connection), [_node_state(run_id, node, snapshot.taken_at) for node in snapshot.nodes])
    if cut.segments:
        connection.execute(insert(OUTPUT_SEGMENT), [_segment(run_id, number, *segment) for segment in cut.segments])
    row_count = len(history.digests.keys() | digests.keys())
    error = None if snapshot.error is None else storable_text(snapshot.error)
    values = {
        "run_id": run_id,
        "number": number,
        "attempt": snapshot.attempt,
        "reason": storable_text(reason),
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
    connection.execute(insert(CHECKPOINT).values(**values, digest=_head_digest(values)))
    connection.execute(update(JOB).where(JOB.c.id == run_id).values(_ending(snapshot.status, snapshot.error, snapshot.taken_at)))


def _head_digest(values: Mapping[str, Any]) -> bytes:
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


def _node_states(connection: Connection) -> Any:
    statement = _upsert(connection, RUN_NODE_STATE)
    names = ("status", "attempt", "started_at", "completed_at", "failed_at", "updated_at", "last_error")
    return statement.on_conflict_do_update(
        index_elements=["run_id", "node_id"], set_={name: statement.excluded[name] for name in names}
    )


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
    if _head_digest(head._mapping) != head.digest:
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


def _items(segments: Sequence[Any], reader: RowReader, payloads: Mapping[bytes, bytes]) -> dict[str, list[Any]]:
    items: dict[str, list[Any]] = {}
    for segment in segments:
        refs = reader.unpack_segment(segment.node_id, segment.body)
        items.setdefault(segment.node_id, []).extend(reader.value(ref, payloads, f"output {segment.node_id!r}") for ref in refs)
    return items
