"""What people and commands are told of the runs of a store: rows as they are, in lists; nothing is restored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args

from sqlalchemy import Connection, Integer, String, select

from checkpoint_plugin.bounds import bounded
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, RUN_NODE_STATE
from checkpoint_plugin.opening.open_store import OpenStore
from checkpoint_plugin.status import NODE_STATUSES
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import database_now, holder_of, is_held
from checkpoint_plugin.tables.sealed_columns import JOB_TEXTS, NODE_TEXTS, shown_row
from hookspecs import RunNotFound, RunStatus

__all__ = ["STATUSES", "ListedRuns"]

SHOWN: Final = tuple(
    JOB.c[name]
    for name in ("id", "status", "attempt", "created_at", "updated_at", "finished_at", "error", "set_aside", "degraded")
)
"""What is told of a run in a list."""
STATUSES: Final = frozenset(get_args(RunStatus))
KINDS: Final[Mapping[type, type]] = {Integer: int, String: str}
"""Of what type the values of a column are; those of others are made, or refused, as they are fetched."""


class ListedRuns(OpenStore):
    """An open store whose runs can be listed."""

    async def jobs(self, statuses: Collection[str] = (), limit: int | None = None) -> Sequence[Any]:
        """Every run, newest first, or so many of those with such a status."""
        try:
            return await self._read_rows("", _newest(SHOWN, statuses, limit), JOB_TEXTS)
        except StoreDamaged as error:
            if error.run_id:
                raise
            for run_id in await self._read(lambda connection: connection.execute(select(JOB.c.id)).scalars().all()):
                await self.job(run_id)  # names the one that is
            raise

    async def readable_jobs(
        self, statuses: Collection[str] = (), limit: int | None = None
    ) -> tuple[Sequence[Any], Sequence[StoreDamaged]]:
        """As `jobs`, with those whose rows are damaged apart: the others are not hidden by them.

        Returns:
            The rows that can be read, and an error for each run whose row cannot.
        """
        try:
            return await self.jobs(statuses, limit), ()
        except StoreDamaged:
            chosen = _newest([JOB.c.id], statuses, limit)
            run_ids = await self._read(lambda connection: connection.execute(chosen).scalars().all())
        rows: list[Any] = []
        damaged: list[StoreDamaged] = []
        for run_id in run_ids:
            try:
                with telling_damage(run_id, "its row"):
                    rows.append(await self.job(run_id))
            except StoreDamaged as error:
                damaged.append(error)
            except RunNotFound:
                continue  # deleted meanwhile
        return rows, damaged

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

    async def _read_rows(
        self, run_id: str, query: Any, sealed: Sequence[str] = (), statuses: frozenset[str] = STATUSES
    ) -> Sequence[Any]:
        """Rows of a run, or with an empty id of several that name theirs; texts that are sealed opened for people to read."""

        def work(connection: Connection) -> Sequence[Any]:
            with telling_damage(run_id, "a row of it"):
                rows = connection.execute(query).all()
                kinds = [(column.name, kind) for column in query.selected_columns if (kind := _kind(column)) is not None]
                for row in rows:
                    for name, kind in kinds:
                        value = row._mapping[name]
                        if value is not None and type(value) is not kind:
                            raise StoreDamaged(run_id or row.id, f"its column {name!r} holds {type(value).__name__}")
                    if row.status not in statuses:
                        raise StoreDamaged(run_id or row.id, f"a status of it, {row.status!r}, is not one")
                return [shown_row(self.keys, connection, run_id or row.id, row, sealed) for row in rows] if sealed else rows

        return await self._read(work)


def _kind(column: Any) -> type | None:
    return next((kind for base, kind in KINDS.items() if isinstance(column.type, base)), None)


def _newest(columns: Sequence[Any], statuses: Collection[str], limit: int | None) -> Any:
    """Of every run, newest first, or of so many of those with such a status."""
    query = select(*columns).order_by(JOB.c.created_at.desc(), JOB.c.id.desc())
    query = query if limit is None else query.limit(bounded(limit))
    return query.where(JOB.c.status.in_(statuses)) if statuses else query
