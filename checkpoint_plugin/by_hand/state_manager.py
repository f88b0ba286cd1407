"""Where the nodes of a run stand, written by one writer in batches: callers do not wait for the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import select

from checkpoint_plugin.by_hand.run_record import BARE
from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.unbroken import finish
from checkpoint_plugin.errors import FieldInvalid, StoreMissing, WriterStopped
from checkpoint_plugin.models import RUN_NODE_STATE, Job, RunNodeState
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.runs.batching import BatchWriter
from checkpoint_plugin.runs.jobs import JobRepository, bare_definition, insert_bare_job
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.definition import check_node_id, check_run_id
from checkpoint_plugin.tables.keys import RunKeys
from checkpoint_plugin.tables.lease import first_epoch
from checkpoint_plugin.tables.node_rows import lock_epoch, upsert_node_rows
from checkpoint_plugin.tables.row_values import checked_row
from checkpoint_plugin.tables.sealed_columns import NODE_TEXTS, seal_texts
from hookspecs import LeaseLost, dumps_tagged, text_of

__all__ = ["UNSET", "StateManager", "StateStats", "Unset"]

STOP_SECONDS: Final = 10.0
TIMES: Final = {
    "scheduled": "scheduled_at",
    "running": "started_at",
    "completed": "completed_at",
    "failed": "failed_at",
    "suspended": "suspended_at",
}
"""The time that a status brings along, unless it is given."""


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""A field that is left as it is; `None` clears it."""


@dataclass(frozen=True, slots=True, eq=False)
class StateStats(Mapping[str, int]):
    """What a writer did, by attribute or by name.

    Args:
        updates_queued: updates that were taken.
        updates_processed: of them, those that are durable; several of one node that became one count as several.
        batches_written: transactions.
        errors: batches that failed and were tried again, or broke the writer.
    """

    updates_queued: int = 0
    updates_processed: int = 0
    batches_written: int = 0
    errors: int = 0

    def __getitem__(self, name: str) -> int:
        if name not in (item.name for item in fields(self)):
            raise KeyError(name)
        value: int = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (item.name for item in fields(self))

    def __len__(self) -> int:
        return len(fields(self))


@dataclass(slots=True)
class _Update:
    """Columns of one node that change; `found` is its row before they were first written, which may have to be done again."""

    node_id: str
    columns: Mapping[str, Any]
    found: Mapping[str, Any] | None = None


class StateManager:
    """Writes where the nodes of one run stand; the run's row is made where there is none.

    Args:
        run_id: the run.
        batch_size: updates of so many nodes are written at once.
        batch_interval: seconds after which fewer are.
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.
        max_waiting: updates of so many nodes wait at most; who updates one more waits for room.
        wait_seconds: how long at most.

    Raises:
        ValueError: the run id is empty, too long, or one that databases do not keep, or a size or an interval makes no sense.
    """

    def __init__(
        self,
        run_id: str,
        batch_size: int = 10,
        batch_interval: float = 0.1,
        url: str | None = None,
        *,
        store: Store | None = None,
        max_waiting: int = 10_000,
        wait_seconds: float = 5.0,
    ) -> None:
        check_run_id(run_id)
        self.run_id = run_id
        self._access = StoreAccess(url, store)
        self._epoch: int | None = None
        self._writer: BatchWriter[_Update] = BatchWriter(
            self._write,
            name=f"state writer of run {run_id!r}",
            size=batch_size,
            interval=batch_interval,
            limit=max_waiting,
            wait_seconds=wait_seconds,
            merge=lambda old, new: _Update(old.node_id, {**old.columns, **new.columns}),
        )

    async def start(self) -> None:
        """Begin to write what waits and what comes; harmless when it has begun. The store is made where there is none.

        Raises:
            StoreError: the store cannot be used.
        """
        if self._writer.running:
            return
        self._access.hold(create=True)
        try:
            async with self._access.open(create=True) as store:
                self._epoch = await store.transact(lambda connection: self._take(connection, store.keys))
        except BaseException:
            await self._access.close()
            raise
        self._writer.start()

    async def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Make every update durable, and end; harmless when it has ended.

        Args:
            timeout: seconds after which it gives up; a file of SQLite that another program holds keeps it `busy_seconds` longer.

        Raises:
            WriterStopped: some updates are not durable; `unwritten` holds them, and the cause is what kept them.
                What was on its way may still be written.
            asyncio.CancelledError: the caller was cancelled; raised when it has ended.
        """
        await finish(self._stop(timeout))  # torn apart, the writer would go on, and open the store again

    async def _stop(self, timeout: float) -> None:
        try:
            await self._writer.stop(timeout)
        except WriterStopped as error:
            raise self._told(error) from error.__cause__
        finally:
            await self._access.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def update_node_state(
        self,
        node_id: str,
        status: str | Unset = UNSET,
        *,
        attempt: int | Unset = UNSET,
        outputs: Mapping[str, Any] | Unset | None = UNSET,
        error: str | BaseException | Unset | None = UNSET,
        last_error: str | Unset | None = UNSET,
        resume_state: Any = UNSET,
        suspension_reason: str | Unset | None = UNSET,
        retryable: bool | Unset = UNSET,
        scheduled_at: datetime | Unset | None = UNSET,
        started_at: datetime | Unset | None = UNSET,
        completed_at: datetime | Unset | None = UNSET,
        failed_at: datetime | Unset | None = UNSET,
        suspended_at: datetime | Unset | None = UNSET,
        wake_at: datetime | Unset | None = UNSET,
    ) -> None:
        """Change where a node stands. What is not given stays as it is, `None` clears it; several updates of one node that
        wait together become one. It returns at once, or when there is room; it may be called before `start`.

        Args:
            node_id: the node.
            status: brings its time along (`started_at` for running, …), unless that is given.
            attempt: how often it was begun.
            outputs: its values by handle; copied here and now.
            error: why it failed.
            last_error: the same, by the name of the column.
            resume_state: what it keeps for when it goes on.
            suspension_reason: what it waits for.
            retryable: whether to run it again makes sense.
            scheduled_at: aware.
            started_at: aware.
            completed_at: aware.
            failed_at: aware.
            suspended_at: aware.
            wake_at: from when on a suspended node need not wait any more, aware; a status clears it.

        Raises:
            WriterStopped: the manager was stopped, or there was no room in time.
            ValueError: the status is none, a field cannot have its value, or nothing is given.
            ValueNotStorable: no database keeps the node's id.
            TaggedValueError: a value has no JSON form.
            StoreError: the writer is broken by this error.
        """
        check_node_id(self.run_id, node_id)
        where = f"node {node_id!r} of run {self.run_id!r}"
        now = datetime.now(UTC)
        columns: dict[str, Any] = {}
        if status is not UNSET:
            columns["status"], columns["wake_at"] = status, None
            if isinstance(status, str) and status in TIMES:  # one that is none is refused below
                columns[TIMES[status]] = now
        plain = {
            "attempt": attempt,
            "suspension_reason": suspension_reason,
            "retryable": retryable,
            "scheduled_at": scheduled_at,
            "started_at": started_at,
            "completed_at": completed_at,
            "failed_at": failed_at,
            "suspended_at": suspended_at,
            "wake_at": wake_at,
        }
        columns.update({name: value for name, value in plain.items() if value is not UNSET})
        for told in (last_error, error):
            if told is not UNSET:
                columns["last_error"] = f"{type(told).__name__}: {text_of(told)}" if isinstance(told, BaseException) else told
        if outputs is not UNSET and outputs is not None and not isinstance(outputs, Mapping):
            raise FieldInvalid(where, f"outputs are values by handle, not {type(outputs).__name__}. Give a dict.")
        if outputs is not UNSET:
            columns["outputs_json"] = None if outputs is None else dumps_tagged(dict(outputs))
        if resume_state is not UNSET:
            columns["resume_state_json"] = None if resume_state is None else dumps_tagged(resume_state)
        if not columns:
            raise ValueError(f"nothing is said of node {node_id!r}. Give a status or another field.")
        columns = checked_row(where, RUN_NODE_STATE, columns)  # one that the store refuses would break the writer for all nodes
        await self._writer.put(_Update(node_id, {**columns, "updated_at": now}), node_id)

    async def flush(self) -> None:
        """Return when every update so far is durable.

        Raises:
            WriterStopped: an update waits for `start`; `unwritten` holds it.
            StoreError: the writer is broken by this error.
        """
        try:
            await self._writer.flush()
        except WriterStopped as error:
            raise self._told(error) from error.__cause__

    async def get_node_state(self, node_id: str) -> RunNodeState | None:
        """Where a node stands, with the updates that are still to be written.

        Returns:
            Its state; `None` when nothing is known of it.

        Raises:
            StoreError: the store cannot be read.
        """
        waiting = [update for update in self._writer.waiting if update.node_id == node_id]
        try:
            async with self._access.open(create=False) as store:
                found = await JobRepository(store=store).node_state(self.run_id, node_id)
        except StoreMissing:
            found = None
        if found is None and not waiting:
            return None
        state = found or RunNodeState(run_id=self.run_id, node_id=node_id)
        for update in waiting:
            for name, value in update.columns.items():
                setattr(state, name, value)
        return state

    @property
    def stats(self) -> StateStats:
        """What it did since it was made."""
        stats = self._writer.stats
        return StateStats(stats.queued, stats.processed, stats.batches, stats.errors)

    def get_stats(self) -> dict[str, int]:
        """The same as `stats`, as a dict."""
        return dict(self.stats)

    def _told(self, error: WriterStopped) -> WriterStopped:
        """The same with what is not durable as callers gave it."""
        left = tuple((update.node_id, dict(update.columns)) for update in error.unwritten)
        return WriterStopped(f"state writer of run {self.run_id!r}", left, error.__cause__)

    def _take(self, connection: Connection, keys: RunKeys) -> int:
        """Make the run's row where there is none; the epoch under which this manager writes."""
        epoch = lock_epoch(connection, self.run_id)
        if epoch is None:
            job = Job(id=self.run_id, execution_strategy=BARE)
            insert_bare_job(connection, job.model_dump(), bare_definition(job), keys, first_epoch())
            epoch = lock_epoch(connection, self.run_id)
        return epoch or 0

    async def _write(self, updates: Sequence[_Update]) -> None:
        assert self._epoch is not None
        async with self._access.open(create=True) as store:
            await store.write(_Batch(self.run_id, self._epoch, updates, store.keys))


class _Batch:
    """Updates of several nodes, as the group writer takes them; written again, it leaves alone what was written since."""

    def __init__(self, run_id: str, epoch: int, updates: Sequence[_Update], keys: RunKeys) -> None:
        self.run_id = run_id
        self._keys = keys
        self._epoch = epoch
        self._updates = updates

    def encode(self) -> None:
        """There is nothing left to do: values were encoded when they came."""

    def write(self, connection: Connection) -> None:
        """Write the rows under the lease.

        Raises:
            LeaseLost: another worker took the run.
        """
        if lock_epoch(connection, self.run_id) != self._epoch:
            raise LeaseLost(self.run_id, self._epoch)
        seal = self._keys.find(connection, self.run_id)
        node_ids = [update.node_id for update in self._updates]
        query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == self.run_id)
        parts = batches(connection, node_ids)
        found = (row for part in parts for row in connection.execute(query.where(RUN_NODE_STATE.c.node_id.in_(part))))
        known = {row.node_id: dict(row._mapping) for row in found}
        rows = []
        for update in self._updates:
            old = known.get(update.node_id) or RunNodeState(run_id=self.run_id, node_id=update.node_id).model_dump()
            if update.found is None:
                update.found = old
            ours = {name: value for name, value in update.columns.items() if old[name] == update.found[name]}
            rows.append(seal_texts({**old, **ours}, NODE_TEXTS, seal))
        upsert_node_rows(connection, rows)
