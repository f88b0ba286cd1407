"""One store: a run's row, its saves, and how a cut is read back. One transaction each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar, get_args

from sqlalchemy import Connection, func, select, update

from checkpoint_plugin.blob_name import BlobName
from checkpoint_plugin.blobs import Blobs
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.damage import telling_damage
from checkpoint_plugin.database import open_database
from checkpoint_plugin.definition import Definition, is_storable_text, storable_text
from checkpoint_plugin.digests import digest_of
from checkpoint_plugin.encryption import KeyRing
from checkpoint_plugin.errors import BlobsUnusable, StoreBusy, StoreDamaged, StoreMissing, StoreUnreachable, ValueNotReadable
from checkpoint_plugin.group import GroupWriter, Write
from checkpoint_plugin.history import RunHistory
from checkpoint_plugin.holder import Holder
from checkpoint_plugin.job import JobEnd, lock_job, update_job
from checkpoint_plugin.keys import RunKeys
from checkpoint_plugin.lease import (
    Lease,
    database_now,
    holder_of,
    is_held,
    is_own,
    lock_lease,
    make_lease,
    release_lease,
    renew_lease,
    take_lease,
)
from checkpoint_plugin.location import Location
from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, RUN_NODE_STATE, SCHEMA
from checkpoint_plugin.reading import fetch_cut, fetch_node_ids, read_whole
from checkpoint_plugin.schema import SCHEMA_VERSION, create_schema, is_current, read_version, upgrade_schema
from checkpoint_plugin.sealed_columns import JOB_TEXTS, NODE_TEXTS, shown_row
from checkpoint_plugin.sealing import PLAIN, Seal
from checkpoint_plugin.status import NODE_STATUSES
from checkpoint_plugin.suspensions import NO_SUSPENSION
from checkpoint_plugin.transaction import Database, finish
from checkpoint_plugin.witness import Witness
from checkpoint_plugin.writing import CutWriter, insert_new
from hookspecs import CheckpointRef, LeaseLost, NodeSnapshot, RunExists, RunHeld, RunNotFound, RunStatus, Snapshot

__all__ = ["LEASE_SECONDS", "RUNNER", "RunHistory", "Store", "StoredJob"]

logger = logging.getLogger("checkpoint_plugin")
T = TypeVar("T")
RECONNECT_PAUSE: Final = 0.05
LEASE_SECONDS: Final = 30.0
"""How long a run is held after the last sign of life of who executes it."""
RUNNER: Final = "runner"
"""The `execution_strategy` of a run that a runner executes."""
SHOWN: Final = tuple(
    JOB.c[name]
    for name in ("id", "status", "attempt", "created_at", "updated_at", "finished_at", "error", "set_aside", "degraded")
)
"""What is told of a run in a list."""
STATUSES: Final = frozenset(get_args(RunStatus))


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A run's row, decoded."""

    run_id: str
    attempt: int
    status: str
    graph: Mapping[str, Any]
    inputs: Mapping[str, Any]
    enable: Mapping[str, Any]


class Store:
    """One store, open.

    Args:
        location: where it is.
        create: make it where there is none.
        codec: how values are written and read; default: with the types of installed packages, looked up when first needed.
        ring: the master keys of encrypted runs; default those of `WORKFLOW_CHECKPOINT_KEY`.
        witness: remembers the newest checkpoints elsewhere.
        auto_migrate: upgrade older tables on PostgreSQL, too; those on SQLite always are.
        blobs: where large values become files; default: where `WORKFLOW_CHECKPOINT_BLOBS` says, and not at all without it.

    Raises:
        StoreMissing: there is none, and `create` is off.
    """

    def __init__(
        self,
        location: Location,
        *,
        create: bool,
        codec: Codec | None = None,
        ring: KeyRing | None = None,
        witness: Witness | None = None,
        auto_migrate: bool = False,
        blobs: Blobs | None = None,
    ) -> None:
        self.location = location
        self.blobs = blobs if blobs is not None else Blobs(location)
        self._auto_migrate = auto_migrate
        self.keys = RunKeys(ring if ring is not None else KeyRing.from_environment())
        self._witness = witness
        self._codec = codec
        self._create = create
        self._ready = False
        self._database: Database = open_database(location, create=create)
        self._group = GroupWriter(self._database)
        self._pulse: Database | None = None

    @property
    def codec(self) -> Codec:
        """How values are written and read."""
        if self._codec is None:
            self._codec = Codec.taught()  # imports what installed packages bring: not for a store whose values nobody asks for
        return self._codec

    async def close(self) -> None:
        """Write what was handed over, and close every connection."""
        await self._group.finish()
        if self._pulse is not None and self._pulse is not self._database:
            await self._pulse.close()
        await self._database.close()

    async def transact(
        self, work: Callable[[Connection], T], *, write: bool = True, before: Callable[[], object] | None = None
    ) -> T:
        """Run a function in one transaction, after the schema was made or checked once; as `Database.transact`.

        Raises:
            StoreError: the store cannot be used, or the function refuses.
        """
        await self._get_ready()
        return await self._database.transact(work, write=write, before=before)

    async def write(self, write: Write[T]) -> T:
        """Hand something to the writer, which shares its transactions among all that wait; as `GroupWriter.write`.

        Raises:
            StoreError: the store cannot be used.
        """
        await self._get_ready()
        return await finish(self._group.write(write))

    async def compute(self, work: Callable[[], T]) -> T:
        """Run a function that takes long off the event loop."""
        return await self._database.compute(work)

    async def seal(self, run_id: str) -> Seal:
        """What seals and opens the bytes of a run.

        Raises:
            KeyMissing: the run is encrypted and its key is not given, or it is not and one is given.
        """
        known = self.keys.known(run_id)
        return known if known is not None else await self._read(lambda connection: self.keys.find(connection, run_id))

    async def _get_ready(self) -> None:
        if not self._ready:
            shown = self.location.shown
            may = self._auto_migrate or self.location.kind == "sqlite"
            # Reads: what is refused here is not touched.
            current = await self._database.transact(lambda c: is_current(c, shown, may_upgrade=may), write=False)
            if current is None and not self._create:
                raise StoreMissing(f"the database {shown} holds no store of runs. Name another with --url.")
            if current is not True:
                make = create_schema if current is None else upgrade_schema
                await self._unhurried(lambda connection: make(connection, shown, self.location.schema))
            if self.blobs.has_url:
                name = select(SCHEMA.c.store_id)
                self.blobs.store_id = await self._database.transact(lambda c: c.execute(name).scalar_one_or_none(), write=False)
            self._ready = True

    async def _unhurried(self, work: Callable[[Connection], T]) -> T:
        """A transaction that may take long, or wait long for another that does the same."""
        database = self._database.unhurried()
        try:
            return await database.transact(work)
        finally:
            await database.close()

    async def layout(self) -> tuple[int | None, int]:
        """The version of the tables, `None` without any, and the one that this program writes; nothing is touched.

        Raises:
            StoreError: the store cannot be read.
        """
        shown = self.location.shown
        return await self._database.transact(lambda c: read_version(c, shown), write=False), SCHEMA_VERSION

    async def upgrade(self) -> tuple[int, int]:
        """Bring the tables up to date.

        Returns:
            The versions before and after.

        Raises:
            StoreError: there are none, they are newer, or the store cannot be written.
        """
        shown, schema = self.location.shown, self.location.schema
        return await self._unhurried(lambda connection: upgrade_schema(connection, shown, schema))

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self.transact(work, write=False)

    async def _surely(self, work: Callable[[Connection], T], is_done: Callable[[Connection], bool]) -> T:
        """A transaction, again where the answer to its commit was lost and it was not done.

        Args:
            work: the transaction.
            is_done: whether it was done after all; called first in a transaction that repeats it, and locks what that writes.
        """
        deadline = time.monotonic() + self.location.limits.reconnect_seconds
        pause = RECONNECT_PAUSE
        last: list[T] = []

        def first(connection: Connection) -> T:
            last[:] = [work(connection)]
            return last[0]

        def again(connection: Connection) -> T:
            return last[0] if last and is_done(connection) else first(connection)

        attempt = first
        while True:
            try:
                return await self.transact(attempt)
            except StoreUnreachable as error:
                if error.undone or time.monotonic() + pause > deadline:
                    raise
            attempt = again
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _read_rows(
        self, run_id: str, query: Any, sealed: Sequence[str] = (), statuses: frozenset[str] = STATUSES
    ) -> Sequence[Any]:
        """Rows of a run, or with an empty id of several that name theirs; texts that are sealed opened for people to read."""

        def work(connection: Connection) -> Sequence[Any]:
            with telling_damage(run_id, "a row of it"):
                rows = connection.execute(query).all()
                for row in rows:
                    if row.status not in statuses:
                        raise StoreDamaged(run_id or row.id, f"a status of it, {row.status!r}, is not one")
                return [shown_row(self.keys, connection, run_id or row.id, row, sealed) for row in rows] if sealed else rows

        return await self._read(work)

    # A run's row.

    async def insert_job(
        self, run_id: str, definition: Definition, holder: Holder | None = None, lease_seconds: float = LEASE_SECONDS
    ) -> Lease | None:
        """Write a new run's row.

        Args:
            run_id: the run.
            definition: what it executes.
            holder: who executes it; `None` for nobody yet.
            lease_seconds: how long it is held unless it is renewed.

        Raises:
            RunExists: there is one.
        """
        now = datetime.now(UTC)
        hides = self.keys.ring is not None
        tries = 0

        def work(connection: Connection) -> Lease | None:
            nonlocal tries
            tries += 1
            # One statement: of two that start the same run at once, a look before the insert shows neither the other.
            made = connection.execute(
                insert_new(connection.dialect.name, JOB).values(
                    id=run_id,
                    attempt=1,
                    newest_number=0,
                    status="running",
                    definition=b"",
                    definition_digest=b"",
                    job_type="workflow",
                    execution_strategy=RUNNER,
                    graph=None if hides else definition.graph,
                    params=None if hides else definition.params,
                    created_at=now,
                    started_at=now,
                    updated_at=now,
                    retry_count=0,
                    max_retries=3,
                    version=0,
                    worker_id=None if holder is None else holder.owner,
                    heartbeat_at=None if holder is None else now,
                )
            )
            if made.rowcount == 0:
                if tries > 1 and holder is not None and is_own(connection, run_id, holder):
                    return Lease(run_id, holder, 1, 0, now)  # the commit whose answer was lost; the first renewal says until when
                raise RunExists(run_id)
            lease = make_lease(connection, run_id, holder, lease_seconds)
            body = self.keys.make(connection, run_id).seal(definition.body, b"definition")
            digest = digest_of(run_id.encode(), body)
            connection.execute(JOB.update().where(JOB.c.id == run_id).values(definition=body, definition_digest=digest))
            return lease

        return await self._surely(work, lambda connection: False)

    async def begin_attempt(
        self, run_id: str, attempt: int, holder: Holder, lease_seconds: float = LEASE_SECONDS, *, steal: bool = False
    ) -> tuple[Lease, JobEnd]:
        """Take a run and make an attempt its newest, if the one before it still is.

        Args:
            run_id: the run.
            attempt: the number of the new attempt.
            holder: who executes it.
            lease_seconds: how long it is held unless it is renewed.
            steal: take it from whoever holds it.

        Returns:
            The lease, and how the run stood until now.

        Raises:
            RunHeld: another worker holds it, or was faster.
            RunNotFound: there is no such run.
        """

        def work(connection: Connection) -> tuple[Lease, JobEnd]:
            with telling_damage(run_id, "its row, or that of its lease,"):
                return begin(connection)

        def begin(connection: Connection) -> tuple[Lease, JobEnd]:
            lease = take_lease(connection, run_id, holder, lease_seconds, steal=steal, shown=self.location.shown)
            row = lock_job(connection, run_id, self.location.shown)
            if row.attempt != attempt - 1:
                raise RunHeld(run_id, None, None)
            now = datetime.now(UTC)
            shown = {"attempt": attempt, "worker_id": holder.owner, "heartbeat_at": now}
            update_job(connection, run_id, {**JobEnd("running", None, now).columns(now), **NO_SUSPENSION, **shown})
            aside = (JOB.c.id == run_id, JOB.c.set_aside.is_not(None))  # who resumes it by hand takes it back among the others
            connection.execute(update(JOB).where(*aside).values(set_aside=None, retry_count=0))
            return lease, JobEnd(row.status, row.error, row.finished_at)

        return await self._surely(work, lambda connection: is_own(connection, run_id, holder))

    async def end_attempt(self, run_id: str, epoch: int, end: JobEnd | None, degraded: str | None = None) -> None:
        """Let a run go, and write how it ended where no checkpoint did; who lost it writes nothing.

        Args:
            run_id: the run.
            epoch: under which it was held.
            end: how it ended; `None` where a checkpoint tells it.
            degraded: why not everything that was done was saved.
        """

        def work(connection: Connection) -> None:
            if end is not None:
                lock_lease(connection, run_id, epoch)
                lock_job(connection, run_id, self.location.shown)
                seal = self.keys.find(connection, run_id)
                more = {} if degraded is None else {"degraded": seal.seal_text(storable_text(degraded))}
                update_job(connection, run_id, {**end.columns(datetime.now(UTC), seal), **more})
            release_lease(connection, run_id, epoch)

        with suppress(LeaseLost):
            await self._surely(work, lambda connection: False)  # twice is as good

    async def renew(self, lease: Lease, seconds: float) -> datetime:
        """Hold a run for longer; this waits for no save of this store, only for what writes in the same moment.

        Returns:
            Until when, by the clock of the database.

        Raises:
            LeaseLost: another worker took it.
            StoreError: the store cannot be used.
        """
        if self._pulse is None:
            self._pulse = self._database.beside()
        return await self._pulse.transact(lambda connection: renew_lease(connection, lease, seconds))

    async def load_job(self, run_id: str) -> StoredJob:
        """Read a run's row.

        Raises:
            RunNotFound: there is no such run.
            StoreDamaged: the row was changed.
        """

        def work(connection: Connection) -> Any:
            columns = (JOB.c.attempt, JOB.c.status, JOB.c.definition, JOB.c.definition_digest)
            with telling_damage(run_id, "its row"):
                row = connection.execute(select(*columns).where(JOB.c.id == run_id)).first()
            return row, self.keys.find(connection, run_id)

        row, seal = await self._read(work) if is_storable_text(run_id) else (None, PLAIN)
        if row is None:
            raise RunNotFound(run_id, self.location.shown)
        with telling_damage(run_id, "its row"):
            return self._decode_job(run_id, row, seal)

    def _decode_job(self, run_id: str, row: Any, seal: Seal) -> StoredJob:
        if row.status not in STATUSES:
            raise StoreDamaged(run_id, f"its status {row.status!r} is not one")
        if digest_of(run_id.encode(), row.definition) != row.definition_digest:
            raise StoreDamaged(run_id, "its graph and inputs were changed")
        try:
            found = self.codec.decode(seal.open(bytes(row.definition), b"definition"))
        except MalformedValue as error:
            raise StoreDamaged(run_id, f"its graph and inputs: {error}") from error
        except ValueNotReadable as error:
            raise error.within(f"run {run_id!r}, definition") from error
        parts = [found[name] for name in ("graph", "inputs", "enable")]
        if type(row.attempt) is not int or row.attempt < 1 or any(type(part) is not dict for part in parts):
            raise StoreDamaged(run_id, "its row is not one that was written")
        return StoredJob(run_id, row.attempt, row.status, *parts)

    # Saving.

    async def save(self, history: RunHistory, snapshot: Snapshot, reason: str) -> CheckpointRef:
        """Write a cut as the run's next checkpoint.

        A caller that is cancelled meanwhile learns of it when the save is over, and the history then holds its outcome.

        Raises:
            LeaseLost: another worker took the run; nothing was written.
            ValueNotStorable: a value cannot be stored; nothing was written.
            StoreError: the store cannot be used; nothing was written.
        """
        await self._get_ready()
        return await finish(self._save(history, snapshot, reason))

    async def _save(self, history: RunHistory, snapshot: Snapshot, reason: str) -> CheckpointRef:
        history.seal = await self.seal(history.run_id)
        while True:
            writer = CutWriter(history, snapshot, reason, self.codec, self.blobs if self.blobs.writes else None)
            held = await self._write(writer)
            if held or not await self._read(writer.refused):
                ref = writer.note()
                if self._witness is not None:
                    await self._database.compute(partial(self._witness.note, ref.run_id, ref.number, writer.cut_hash))
                return ref
            if self.blobs.writes:
                await self._database.compute(writer.discard)

    async def _write(self, writer: CutWriter) -> bool:
        """Write a cut, again and again where the connection was lost or a lock not given: a try that was done is recognised."""
        deadline = time.monotonic() + self.location.limits.reconnect_seconds
        pause = RECONNECT_PAUSE
        while True:
            try:
                return await self._group.write(writer)
            except (StoreBusy, StoreUnreachable):
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def rewind(self, history: RunHistory, snapshot: Snapshot) -> CheckpointRef | None:
        """Make an older cut the run's newest checkpoint, to go on from it. Those that came later stay as they are.

        Args:
            history: as `restore` of the older cut left it.
            snapshot: as `restore` gave it.

        Returns:
            The new checkpoint; `None` when the cut is the newest.

        Raises:
            StoreError: as `save`.
        """
        run_id, number = history.run_id, history.number

        def read(connection: Connection) -> tuple[int, int, set[str]]:
            newest = connection.execute(select(JOB.c.newest_number).where(JOB.c.id == run_id)).scalar_one()
            last = connection.execute(select(func.max(CHECKPOINT.c.number)).where(CHECKPOINT.c.run_id == run_id)).scalar_one()
            return newest, last or 0, fetch_node_ids(connection, run_id)

        def mend(connection: Connection) -> None:
            lock_lease(connection, run_id, history.epoch)
            connection.execute(update(JOB).where(JOB.c.id == run_id).values(newest_number=last))

        newest, last, node_ids = await self._read(read)
        if last > newest:  # the run's row is damaged, and whoever names a checkpoint wants to go on all the same
            await self.transact(mend)
            newest = last
        if newest == number:
            return None
        moved = {node.node_id for node in snapshot.nodes}
        back = (NodeSnapshot(node_id, "idle") for node_id in sorted(node_ids - moved))
        history.number, history.log, history.total = newest, newest + 1, 0
        history.digests.clear()
        history.saved_items.clear()
        now = datetime.now(UTC)
        whole = replace(snapshot, nodes=(*snapshot.nodes, *back), attempt=history.attempt, status="running", taken_at=now)
        return await self.save(history, whole, f"back to {number}")

    # Reading.

    async def restore(self, history: RunHistory, number: int | None) -> Snapshot | None:
        """Read a cut, the newest without a number, and bring the history up to it.

        Raises:
            StoreDamaged: it is not what was written.
            StoreError: there is no checkpoint of that number.
        """
        return await read_whole(lambda: self._restore(history, number))

    async def _restore(self, history: RunHistory, number: int | None) -> Snapshot | None:
        run_id = history.run_id
        seal = history.seal = await self.seal(run_id)
        cut = await self._read(lambda connection: fetch_cut(connection, run_id, number, self.codec, seal, self.blobs))
        if self._witness is not None and number is None:
            head = None if cut is None else cut.head
            noted = (0, None) if head is None else (head.number, bytes(head.cut_hash))
            await self._database.compute(partial(self._witness.check, run_id, *noted))
        return None if cut is None else await self._database.compute(lambda: cut.snapshot(history))

    async def remove_files(self, names: Sequence[BlobName]) -> None:
        """Delete files that no row mentions any more; one that cannot be deleted now is swept later."""
        if names:
            try:
                await self._database.compute(lambda: self.blobs.remove(names))
            except BlobsUnusable as error:
                logger.warning("files are left for the next `workflow prune`: %s", error)

    async def give_back(self) -> None:
        """Give the space of deleted rows back to the system."""
        await self._database.give_back()

    async def restore_latest_intact(self, history: RunHistory) -> Snapshot | None:
        """Read the newest cut that is not damaged; those that are, are passed over, each with a warning.

        Raises:
            StoreDamaged: every one is.
            StoreError: the store cannot be used.
        """
        run_id = history.run_id

        def read(connection: Connection) -> tuple[int, Sequence[int]]:
            newest = connection.execute(select(JOB.c.newest_number).where(JOB.c.id == run_id)).scalar_one_or_none()
            query = select(CHECKPOINT.c.number).where(CHECKPOINT.c.run_id == run_id).order_by(CHECKPOINT.c.number.desc())
            return newest or 0, connection.execute(query).scalars().all()

        newest, numbers = await self._read(read)
        damage: StoreDamaged | None = None
        if newest > max(numbers, default=0):
            damage = StoreDamaged(run_id, "the checkpoint itself is missing", newest)
            logger.warning("run %s: checkpoint %s is passed over: %s", run_id, newest, damage.what)
        for number in numbers:
            try:
                return await self.restore(history, number)
            except StoreDamaged as error:
                logger.warning("run %s: checkpoint %s is passed over: %s", run_id, number, error.what)
                damage = damage or error
        if damage is not None:
            raise damage
        return None

    async def jobs(self, statuses: Collection[str] = (), limit: int | None = None) -> Sequence[Any]:
        """Every run, newest first, or so many of those with such a status."""
        newest_first = (JOB.c.created_at.desc(), JOB.c.id.desc())
        query = select(*SHOWN).order_by(*newest_first).limit(limit)
        if statuses:
            query = query.where(JOB.c.status.in_(statuses))
        try:
            return await self._read_rows("", query, JOB_TEXTS)
        except StoreDamaged as error:
            if error.run_id:
                raise
            for run_id in await self._read(lambda connection: connection.execute(select(JOB.c.id)).scalars().all()):
                await self.job(run_id)  # names the one that is
            raise

    async def job(self, run_id: str) -> Any:
        """One run's row, without its definition.

        Raises:
            RunNotFound: there is none.
        """
        query = select(*SHOWN).where(JOB.c.id == run_id)
        rows: Sequence[Any] = ()
        if is_storable_text(run_id):
            rows = await self._read_rows(run_id, query, JOB_TEXTS)
        if not rows:
            raise RunNotFound(run_id, self.location.shown)
        return rows[0]

    async def holder(self, run_id: str) -> tuple[Holder, datetime] | None:
        """Who holds a run now, and until when unless it gives another sign of life; `None` for nobody."""

        def work(connection: Connection) -> tuple[Holder, datetime] | None:
            with telling_damage(run_id, "the row of its lease"):
                row = connection.execute(select(LEASE).where(LEASE.c.run_id == run_id)).first()
                holder = None if row is None else holder_of(row)
                if row is None or holder is None or not is_held(row, database_now(connection)):
                    return None
                return holder, row.expires_at

        return await self._read(work)

    async def node_states(self, run_id: str) -> Sequence[Any]:
        """The rows of `run_node_state` of a run."""
        query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id)
        return await self._read_rows(run_id, query, NODE_TEXTS, NODE_STATUSES)

    async def checkpoints(self, run_id: str) -> Sequence[Any]:
        """The checkpoints of a run, oldest first."""
        query = select(CHECKPOINT).where(CHECKPOINT.c.run_id == run_id).order_by(CHECKPOINT.c.number)
        return await self._read_rows(run_id, query)
