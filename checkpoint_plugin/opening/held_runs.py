"""How runs begin, are held by whoever executes them, and end: each is a transaction over the run's row and its lease."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from checkpoint_plugin.bounds import is_attempt
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.database.statement import Statement, table_columns
from checkpoint_plugin.errors import NotResumable, StoreDamaged, ValueNotReadable
from checkpoint_plugin.opening.listed_runs import STATUSES, ListedRuns
from checkpoint_plugin.restoring.reading import Seen, fetch_seen
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal
from checkpoint_plugin.tables.definition import Definition, graph_of, is_storable_text, storable_text
from checkpoint_plugin.tables.first_rows import FirstRows, Made, make_run
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.job import JobEnd, lock_job, update_job
from checkpoint_plugin.tables.lease import (
    Lease,
    Release,
    database_now,
    is_own,
    lock_lease,
    own_epoch,
    release_lease,
    renew_lease,
    take_lease,
)
from checkpoint_plugin.tables.run_definition import definition_columns, opened_definition, short_texts
from checkpoint_plugin.tables.sealed_columns import JOB_TEXTS, seal_texts
from checkpoint_plugin.tables.suspensions import NO_SUSPENSION
from hookspecs import LeaseLost, RunExists, RunHeld, RunNotFound

__all__ = ["LEASE_SECONDS", "RUNNER", "HeldRuns", "StoredJob"]

LEASE_SECONDS: Final = 30.0
"""How long a run is held after the last sign of life of who executes it."""
RUNNER: Final = "runner"
"""The `execution_strategy` of a run that a runner executes."""
NEW_JOB: Final[Mapping[str, Any]] = dict.fromkeys(table_columns("job")) | {
    "attempt": 1,
    "has_checkpoint": False,
    "status": "running",
    "job_type": "workflow",
    "execution_strategy": RUNNER,
    "retry_count": 0,
    "max_retries": 3,
    "version": 0,
}
SQL: Final = "checkpoint_plugin.tables.row_sql"
STORED_JOB: Final = Statement(SQL, "stored_job")
TAKE_BACK: Final = Statement(SQL, "take_back")


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A run's row, decoded, what was seen of its newest checkpoint, and whether a runner executes it."""

    run_id: str
    attempt: int
    status: str
    graph: Mapping[str, Any]
    inputs: Mapping[str, Any]
    enable: Mapping[str, Any]
    seen: Seen | None = None
    by_runner: bool = True


class HeldRuns(ListedRuns):
    """An open store in which runs begin and end."""

    async def insert_job(
        self,
        run_id: str,
        definition: Definition,
        holder: Holder | None = None,
        lease_seconds: float = LEASE_SECONDS,
        *,
        epoch: int = 1,
    ) -> Lease | None:
        """Write a new run's row.

        Args:
            run_id: the run.
            definition: what it executes.
            holder: who executes it; `None` for nobody yet.
            lease_seconds: how long it is held unless it is renewed.
            epoch: under which it is written at first; `first_epoch` gives one that no deleted run of this id had.

        Raises:
            RunExists: there is one.
            StoreError: the store, or its witness, cannot be used.
        """
        rows, seal = self.first_rows(run_id, definition, holder, lease_seconds, epoch)
        made, unheard = await self._promptly(rows)
        if made is not None and made.is_current:
            self._ready = self._connections.is_current = True
            if not made.is_new:
                raise RunExists(run_id)
        else:
            made = await self.surely(partial(self._make_run, rows, run_id, holder, [unheard]), lambda connection: False)
        self.keys.remember(run_id, seal)
        if self._witness is not None:
            await self._database.compute(partial(self._witness.forget, run_id))
        return None if holder is None else Lease(run_id, holder, epoch, 0, made.until or datetime.now(UTC))

    def first_rows(
        self,
        run_id: str,
        definition: Definition,
        holder: Holder | None,
        lease_seconds: float,
        epoch: int,
        more: Mapping[str, Any] | None = None,
    ) -> tuple[FirstRows, Seal]:
        """What is written when a run is made, and what seals it from then on.

        Args:
            run_id: the run.
            definition: what it is started with.
            holder: who executes it; `None` where nobody does yet.
            lease_seconds: how long it is held after the last sign of life.
            epoch: of its lease.
            more: other columns of the run's row, not sealed.
        """
        seal, wrapped = self.keys.make(run_id)
        texts = {} if wrapped is not None else {"graph": definition.graph, "params": definition.params}
        job = {
            **NEW_JOB,
            "id": run_id,
            **short_texts(texts),
            **dict.fromkeys(("created_at", "started_at", "updated_at"), datetime.now(UTC)),
            "worker_id": None if holder is None else holder.owner,
            **seal_texts(more or {}, JOB_TEXTS, seal),
        }
        columns = definition_columns(run_id, definition.body, texts, seal)
        return FirstRows(job, columns, wrapped, epoch=epoch, holder=holder, seconds=lease_seconds), seal

    def _make_run(self, rows: FirstRows, run_id: str, holder: Holder | None, tries: list[bool], connection: Connection) -> Made:
        """Write a new run's rows in a transaction; `tries` tells whether the answer to an earlier commit of them was lost."""
        made = make_run(connection, rows)
        if not made.is_new and not (any(tries) and holder is not None and is_own(connection, run_id, holder)):
            raise RunExists(run_id)
        tries.append(True)
        return made

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
            NotResumable: somebody cancelled it.
            RunNotFound: there is no such run.
        """

        def work(connection: Connection) -> tuple[Lease, JobEnd]:
            with telling_damage(run_id, "its row, or that of its lease,"):
                return begin(connection)

        def begin(connection: Connection) -> tuple[Lease, JobEnd]:
            lease = take_lease(connection, run_id, holder, lease_seconds, steal=steal, shown=self.location.shown)
            row = lock_job(connection, run_id, self.location.shown)
            if row.status == "cancelled":
                raise NotResumable(run_id, "it is cancelled")
            if row.attempt != attempt - 1:
                raise RunHeld(run_id, None, None)
            now = datetime.now(UTC)
            shown = {"attempt": attempt, "worker_id": holder.owner, "heartbeat_at": database_now(connection)}
            update_job(connection, run_id, {**JobEnd("running", None, now).columns(now), **NO_SUSPENSION, **shown})
            connection.execute(TAKE_BACK, {"of_run": run_id})
            return lease, JobEnd.of_row(row)

        return await self.surely(work, lambda connection: is_own(connection, run_id, holder))

    async def take(self, run_id: str, holder: Holder, seconds: float = LEASE_SECONDS) -> Lease:
        """Take a run that nobody holds, to write it without an attempt.

        Args:
            run_id: the run.
            holder: who takes it.
            seconds: how long it is held unless it is renewed.

        Raises:
            RunNotFound: there is no such run.
            RunHeld: somebody holds it; nothing was changed.
            StoreError: the store cannot be used.
        """
        shown = self.location.shown
        return await self.surely(
            lambda connection: take_lease(connection, run_id, holder, seconds, shown=shown),
            lambda connection: is_own(connection, run_id, holder),
        )

    async def let_go(self, lease: Lease) -> None:
        """Let a run go that was taken; one that another worker took is left to it.

        Raises:
            StoreError: the store cannot be used.
        """
        await self.surely(
            lambda connection: release_lease(connection, lease.run_id, lease.epoch),
            lambda connection: False,  # twice is as good
        )

    async def end_attempt(self, run_id: str, epoch: int, end: JobEnd | None, degraded: str | None = None) -> None:
        """Let a run go, and write how it ended where no checkpoint did; who lost it writes nothing, and a cancelled run stays so.

        Args:
            run_id: the run.
            epoch: under which it was held.
            end: how it ended; `None` where a checkpoint tells it.
            degraded: why not everything that was done was saved.
        """

        def work(connection: Connection) -> None:
            if end is not None:
                lock_lease(connection, run_id, epoch)
                row = lock_job(connection, run_id, self.location.shown)
                seal = self.keys.find(connection, run_id)
                told = {} if row.status == "cancelled" else end.columns(datetime.now(UTC), seal)
                more = {} if degraded is None else {"degraded": seal.seal_text(storable_text(degraded))}
                update_job(connection, run_id, {**told, **more})
            release_lease(connection, run_id, epoch)

        if end is None and (await self._promptly(Release(run_id, epoch)))[0]:
            return
        with suppress(LeaseLost):
            await self.surely(work, lambda connection: False)  # twice is as good

    async def give_up(self, run_id: str, holder: Holder) -> None:
        """Let a run go, as one that was stopped, of which nobody heard whether it was begun.

        Args:
            run_id: the run.
            holder: who was about to execute it.

        Raises:
            StoreError: the store cannot be used, or there are no tables yet.
        """
        # As a sign of life: where the database is away its lease runs out by itself, and an event loop that ends waits for this.
        epoch = await self._connections.pulse.transact(lambda connection: own_epoch(connection, run_id, holder))
        if epoch is not None:
            await self.end_attempt(run_id, epoch, JobEnd("paused", None, datetime.now(UTC)))

    async def renew(self, lease: Lease, seconds: float) -> datetime:
        """Hold a run for longer; this waits for no save of this store, only for what writes in the same moment.

        Returns:
            Until when, by the clock of the database.

        Raises:
            LeaseLost: another worker took it.
            StoreError: the store cannot be used.
        """
        return await self._connections.pulse.transact(lambda connection: renew_lease(connection, lease, seconds))

    async def load_job(self, run_id: str) -> StoredJob:
        """Read a run's row.

        Raises:
            RunNotFound: there is no such run.
            StoreDamaged: the row was changed.
        """

        def work(connection: Connection) -> Any:
            with telling_damage(run_id, "its row"):
                row = connection.execute(STORED_JOB, {"of_run": run_id}).first()
            seal = self.keys.find(connection, run_id)
            return row, seal, fetch_seen(connection, run_id, seal)

        row, seal, seen = await self._read(work) if is_storable_text(run_id) else (None, PLAIN, None)
        if row is None:
            raise RunNotFound(run_id, self.location.shown)
        with telling_damage(run_id, "its row"):
            return self._decode_job(run_id, row, seal, seen)

    def _decode_job(self, run_id: str, row: Any, seal: Seal, seen: Seen | None) -> StoredJob:
        if row.status not in STATUSES:
            raise StoreDamaged(run_id, f"its status {row.status!r} is not one")
        try:
            found = self.codec.decode(opened_definition(run_id, row, seal))
            graph = graph_of(found)
        except MalformedValue as error:
            raise StoreDamaged(run_id, f"its graph and inputs: {error}") from error
        except ValueNotReadable as error:
            raise error.within(f"run {run_id!r}, definition") from error
        inputs, enable = (found[name] for name in ("inputs", "enable"))
        if not is_attempt(row.attempt) or any(type(part) is not dict for part in (inputs, enable)):
            raise StoreDamaged(run_id, "its row is not one that was written")
        by_runner = row.execution_strategy == RUNNER
        if enable and not by_runner:
            raise StoreDamaged(run_id, f"its row says strategy {row.execution_strategy!r}, and a runner began it")
        return StoredJob(run_id, row.attempt, row.status, graph, inputs, enable, seen, by_runner)
