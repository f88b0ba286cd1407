"""The rows of runs and of their nodes as objects: read by many questions, written only when nobody wrote meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, func, select, true, update

from checkpoint_plugin.bounds import bounded
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import StaleVersion, StoreDamaged
from checkpoint_plugin.models import JOB, RUN_NODE_STATE, Job, RunNodeState
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.status import INCOMPLETE, NODE_STATUSES, RESUMABLE, RUN_STATUSES
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.definition import check_run_id, is_storable_text
from checkpoint_plugin.tables.field_checks import check_moment, check_text
from checkpoint_plugin.tables.first_rows import FirstRows, make_run
from checkpoint_plugin.tables.keys import RunKeys
from checkpoint_plugin.tables.lease import first_epoch, lock_lease
from checkpoint_plugin.tables.node_rows import lock_epoch, upsert_node_rows
from checkpoint_plugin.tables.row_sql import JOBS
from checkpoint_plugin.tables.row_values import checked_row
from checkpoint_plugin.tables.run_definition import TEXTS, definition_columns, short_texts
from checkpoint_plugin.tables.sealed_columns import JOB_TEXTS, NODE_TEXTS, open_texts, readable_seal, seal_texts
from hookspecs import RunExists, RunNotFound, loads_tagged, shorten

__all__ = ["JobRepository", "Page", "bare_definition", "insert_bare_job"]

T = TypeVar("T")
KEPT: Final = frozenset({"id", "attempt", "has_checkpoint", "created_at", "version", *TEXTS})
"""Columns that a save of a job leaves alone: they belong to whoever writes checkpoints."""
CHANGES: Final = 10
QUESTION: Final = "a question for runs"


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the runs that a question finds.

    Args:
        items: newest first.
        total: how many there are on all pages.
        limit: at most so many a page.
        offset: how many are on the pages before.
    """

    items: Sequence[Job]
    total: int
    limit: int
    offset: int


class JobRepository:
    """Reads and writes `Job` and `RunNodeState`.

    Args:
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.
    """

    def __init__(self, url: str | None = None, *, store: Store | None = None) -> None:
        self._access = StoreAccess(url, store)

    async def add(self, job: Job) -> Job:
        """Write a new run's row, and make the store where there is none.

        Raises:
            RunExists: there is one of this id.
            ValueError: it has no id that databases keep, or a field cannot have its value.
        """
        check_run_id(job.id)
        values, body = checked_row(f"run {job.id!r}", JOB, _columns(job)), bare_definition(job)

        def work(connection: Connection) -> None:
            if not insert_bare_job(connection, values, body, store.keys, first_epoch()):
                raise RunExists(job.id)

        async with self._access.open(create=True) as store:
            await store.transact(work)
        return job

    async def get(self, run_id: str) -> Job:
        """Read a run's row.

        Raises:
            RunNotFound: there is none.
        """
        async with self._access.open(create=False) as store:
            query = JOBS.where(JOB.c.id == run_id)
            found = await _read(store, query, _job) if is_storable_text(run_id) else ()
            if not found:
                raise RunNotFound(run_id, store.location.shown)
        return found[0]

    async def get_many(self, run_ids: Sequence[str]) -> list[Job]:
        """Read the rows of several runs, in this order; a run without one is left out.

        Raises:
            TypeError: `run_ids` is one text.
        """
        if isinstance(run_ids, str):
            raise TypeError(f"run_ids is a list, not the text {run_ids!r}. Give [{run_ids!r}].")
        asked = [run_id for run_id in run_ids if is_storable_text(run_id)]

        def work(connection: Connection) -> dict[str, Job]:
            parts = batches(connection, asked)
            rows = (row for part in parts for row in connection.execute(JOBS.where(JOB.c.id.in_(part))))
            return {row.id: _job(store, connection, row) for row in rows}

        async with self._access.open(create=False) as store:
            found = await store.transact(work, write=False)
        return [found[run_id] for run_id in run_ids if run_id in found]

    async def save(self, job: Job, *, epoch: int | None = None) -> Job:
        """Write a run's row, if nobody wrote it since `job` was read: one statement compares and swaps.

        Args:
            job: as it shall be.
            epoch: of the lease under which alone it may be written; `None` for whoever comes.

        Raises:
            StaleVersion: somebody did; nothing was written.
            LeaseLost: the epoch is over; nothing was written.
            RunNotFound: there is no such row.
            StoreDamaged: it was read with a version that none can follow; nothing was written.
            ValueError: a field cannot have its value; nothing was written.
        """
        where = f"run {job.id!r}"
        check_text(where, "id", job.id)
        if type(job.version) is not int:  # SQLite keeps anything in any column
            raise StoreDamaged(job.id, f"its version is {shorten(job.version, 200)}")
        values = checked_row(where, JOB, {name: value for name, value in _columns(job).items() if name not in KEPT})
        values["updated_at"] = now = datetime.now(UTC)
        statement = update(JOB).where(JOB.c.id == job.id, JOB.c.version == job.version)

        def work(connection: Connection) -> tuple[bool, bool]:
            if epoch is not None:
                lock_lease(connection, job.id, epoch)
            sealed = seal_texts(values, JOB_TEXTS, store.keys.find(connection, job.id))
            swapped = connection.execute(statement.values(version=job.version + 1, **sealed)).rowcount == 1
            there = swapped or connection.execute(select(JOB.c.id).where(JOB.c.id == job.id)).first() is not None
            return swapped, there

        async with self._access.open(create=False) as store:
            swapped, there = await store.transact(work)
            if not there:
                raise RunNotFound(job.id, store.location.shown)
        if not swapped:
            raise StaleVersion(job.id, job.version)
        job.version += 1
        job.updated_at = now
        return job

    async def change(self, run_id: str, step: Callable[[Job], object], *, epoch: int | None = None) -> Job:
        """Read a run's row, change it and write it; again from the start when somebody else was faster.

        Args:
            run_id: the run.
            step: changes the job, for example `lambda job: job.mark_cancelled()`.
            epoch: as for `save`.

        Raises:
            RunNotFound: there is no such row.
            LeaseLost: as `save`.
            StaleVersion: ten others in a row were faster.
            StoreDamaged: as `save`; or its status is none.
            IllegalTransition: the run cannot make this step.
            TypeError: the step is an `async def`; nothing was written.
            ValueError: a field cannot have the value that the step gave it; nothing was written.
        """
        if iscoroutinefunction(step):
            raise TypeError(f"a step is a `def`, not an `async def` like {step!r}: nobody would await it. Await before it.")
        for _ in range(CHANGES - 1):
            job = await self._changed(run_id, step)
            try:
                return await self.save(job, epoch=epoch)
            except StaleVersion:
                continue
        return await self.save(await self._changed(run_id, step), epoch=epoch)

    async def _changed(self, run_id: str, step: Callable[[Job], object]) -> Job:
        job = await self.get(run_id)
        if job.status not in RUN_STATUSES:
            raise StoreDamaged(run_id, f"a status of it, {shorten(job.status, 200)}, is not one")
        step(job)
        return job

    async def find(
        self,
        status: str | Iterable[str] | None = None,
        *,
        user_id: str | None = None,
        workflow_id: str | None = None,
        job_type: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        updated_before: datetime | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Page:
        """Runs by status and time, newest first.

        Args:
            status: one or several.
            user_id: whose.
            workflow_id: of which workflow.
            job_type: of which type.
            created_after: aware; not this moment itself.
            created_before: aware; not this moment itself.
            updated_before: aware; not this moment itself.
            limit: at most so many.
            offset: leave out so many first.

        Raises:
            ValueError: a status is not one, a text or a time is none that a row can have, or a page makes no sense.
        """
        wanted: list[ColumnElement[bool]] = []
        if status is not None:
            statuses = {status} if isinstance(status, str) else set(status)
            if unknown := statuses - RUN_STATUSES:
                raise ValueError(f"{sorted(unknown)} is no status of a run. Use some of {sorted(RUN_STATUSES)}.")
            wanted.append(JOB.c.status.in_(sorted(statuses)))
        for name, value in (("user_id", user_id), ("workflow_id", workflow_id), ("job_type", job_type)):
            if value is not None:
                check_text(QUESTION, name, value)
                wanted.append(JOB.c[name] == value)
        moments = (("created_after", created_after), ("created_before", created_before), ("updated_before", updated_before))
        for name, moment in moments:
            if moment is not None:
                check_moment(QUESTION, name, moment)
        if created_after is not None:
            wanted.append(JOB.c.created_at > created_after)
        if created_before is not None:
            wanted.append(JOB.c.created_at < created_before)
        if updated_before is not None:
            wanted.append(JOB.c.updated_at < updated_before)
        return await self._page(wanted, limit, offset)

    async def incomplete(self, *, limit: int = 50, offset: int = 0) -> Page:
        """Runs that have come to no end of any kind."""
        return await self.find(INCOMPLETE, limit=limit, offset=offset)

    async def suspended(self, *, limit: int = 50, offset: int = 0) -> Page:
        """Runs that wait for something from outside."""
        return await self.find("suspended", limit=limit, offset=offset)

    async def retryable(self, *, limit: int = 50, offset: int = 0) -> Page:
        """Failed runs that have retries left."""
        return await self._page([JOB.c.status == "failed", JOB.c.retry_count < JOB.c.max_retries], limit, offset)

    async def resumable(self, *, limit: int = 50, offset: int = 0) -> Page:
        """Runs that can be resumed: `can_be_resumed` as a question to the database."""
        return await self._page([JOB.c.status.in_(sorted(RESUMABLE)), JOB.c.has_checkpoint], limit, offset)

    async def _page(self, wanted: Sequence[ColumnElement[bool]], limit: int, offset: int) -> Page:
        if limit < 1 or offset < 0:
            raise ValueError(f"limit {limit}, offset {offset}: give a limit of 1 or more and an offset of 0 or more.")
        found = JOBS.where(true(), *wanted)
        ordered = found.order_by(JOB.c.created_at.desc(), JOB.c.id.desc()).limit(bounded(limit)).offset(bounded(offset))

        def work(connection: Connection) -> Page:
            total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()
            rows = connection.execute(ordered).all()
            return Page([_job(store, connection, row) for row in rows], total, limit, offset)

        async with self._access.open(create=False) as store:
            return await store.transact(work, write=False)

    async def node_states(self, run_id: str, status: str | None = None) -> Sequence[RunNodeState]:
        """Where the nodes of a run stand, by id; those of one status only, if it is given.

        Raises:
            ValueError: the status is none.
        """
        if not is_storable_text(run_id):
            return ()
        if status is not None and status not in NODE_STATUSES:
            raise ValueError(f"{status!r} is no status of a node. Use one of {sorted(NODE_STATUSES)}.")
        query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id).order_by(RUN_NODE_STATE.c.node_id)
        if status is not None:
            query = query.where(RUN_NODE_STATE.c.status == status)
        async with self._access.open(create=False) as store:
            return await _read(store, query, _node_state)

    async def node_state(self, run_id: str, node_id: str) -> RunNodeState | None:
        """Where a node of a run stands; `None` for one of which nothing is known."""
        if not (is_storable_text(run_id) and is_storable_text(node_id)):
            return None
        query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id, RUN_NODE_STATE.c.node_id == node_id)
        async with self._access.open(create=False) as store:
            return next(iter(await _read(store, query, _node_state)), None)

    async def save_node_state(self, state: RunNodeState) -> RunNodeState:
        """Write where a node stands, new or changed; from then on it was updated now.

        Raises:
            RunNotFound: the run has no row.
            ValueError: a field cannot have its value; nothing was written.
        """
        now = datetime.now(UTC)
        where = f"node {state.node_id!r} of run {state.run_id!r}"
        values = checked_row(where, RUN_NODE_STATE, {**_columns(state), "updated_at": now})

        def work(connection: Connection) -> bool:
            if lock_epoch(connection, state.run_id) is None:
                return False
            sealed = seal_texts(values, NODE_TEXTS, store.keys.find(connection, state.run_id))
            upsert_node_rows(connection, [sealed])
            return True

        async with self._access.open(create=False) as store:
            if not await store.transact(work):
                raise RunNotFound(state.run_id, store.location.shown)
        state.updated_at = now
        return state


def insert_bare_job(connection: Connection, values: Mapping[str, Any], body: bytes, keys: RunKeys, epoch: int) -> bool:
    """Write a run's row and its lease, which nobody holds; whether there was none.

    Args:
        connection: in a transaction that writes.
        values: of every column.
        body: what it is started with, as `bare_definition` gives it.
        keys: of the store; with a master key the run is encrypted.
        epoch: of its lease, as `first_epoch` gives it.
    """
    seal, wrapped = keys.make(values["id"])
    row = {**seal_texts(values, JOB_TEXTS, seal), **seal_texts(short_texts(values), TEXTS, seal)}
    definition = definition_columns(values["id"], body, values, seal)
    return make_run(connection, FirstRows(row, definition, wrapped, epoch)).is_new


def _columns(row: Job | RunNodeState) -> dict[str, Any]:
    """The values of a row; of wrong ones pydantic would warn, and they are refused."""
    return row.model_dump(warnings=False)


def bare_definition(job: Job) -> bytes:
    """What a run of this graph and these parameters is started with."""
    graph = loads_tagged(job.graph) if job.graph else {"nodes": [], "edges": []}
    params = loads_tagged(job.params) if job.params else {}
    return encode({"graph": graph, "inputs": params, "enable": {}}, lambda: f"run {job.id!r}, definition")


async def _read(store: Store, query: Any, make: Callable[[Store, Connection, Any], T]) -> list[T]:
    def work(connection: Connection) -> list[T]:
        return [make(store, connection, row) for row in connection.execute(query).all()]

    return await store.transact(work, write=False)


def _job(store: Store, connection: Connection, row: Any) -> Job:
    return Job(**open_texts(row.id, row._mapping, JOB_TEXTS, readable_seal(store.keys, connection, row.id)))


def _node_state(store: Store, connection: Connection, row: Any) -> RunNodeState:
    return RunNodeState(**open_texts(row.run_id, row._mapping, NODE_TEXTS, readable_seal(store.keys, connection, row.run_id)))
