"""What people and commands are told of the runs of a store: rows as they are, in lists; nothing is restored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args

from checkpoint_plugin.bounds import LARGEST, bounded
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.opening.open_store import OpenStore
from checkpoint_plugin.status import NODE_STATUSES
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import database_now, holder_of, is_held
from checkpoint_plugin.tables.sealed_columns import JOB_TEXTS, NODE_TEXTS, shown_row
from hookspecs import RunNotFound, RunStatus

__all__ = ["STATUSES", "UNFOUND", "ListedRuns"]

STATUSES: Final = frozenset(get_args(RunStatus))
SQL: Final = "checkpoint_plugin.opening.list_sql"
NEWEST: Final = {(what, which): Statement(SQL, "newest", what, which) for what in ("shown", "id") for which in ("all", "some")}
ONE_JOB: Final = Statement(SQL, "one_job")
LEASE: Final = Statement(SQL, "lease")
NODE_STATES: Final = Statement(SQL, "node_states")
CHECKPOINTS: Final = Statement(SQL, "checkpoints")
UNFOUND: Final = "its row is there, and its id leads to none: the id or the index of it is damaged"
KINDS: Final[Mapping[str, type]] = {"integer": int, "text": str}
"""The type of a column's values; SQLite keeps any in any. Those of other kinds are made, or refused, when they are fetched."""


class ListedRuns(OpenStore):
    """An open store whose runs can be listed."""

    async def jobs(self, statuses: Collection[str] = (), limit: int | None = None) -> Sequence[Any]:
        """Every run, newest first, or so many of those with such a status.

        Raises:
            StoreDamaged: the row of one is damaged.
        """
        rows, damaged = await self.readable_jobs(statuses, limit)
        for error in damaged:
            raise error
        return rows

    async def readable_jobs(
        self, statuses: Collection[str] = (), limit: int | None = None
    ) -> tuple[Sequence[Any], Sequence[StoreDamaged]]:
        """As `jobs`, with those whose rows are damaged apart: the others are not hidden by them.

        Returns:
            The rows that can be read, and an error for each run whose row cannot.
        """
        try:
            return await self._read_rows("", NEWEST["shown", _which(statuses)], _chosen(statuses, limit), JOB_TEXTS), ()
        except StoreDamaged:
            run_ids = await self._ids(statuses, limit)
        rows: list[Any] = []
        damaged: list[StoreDamaged] = []
        for run_id in run_ids:
            if type(run_id) is not str:
                damaged.append(StoreDamaged(run_id, "its id is no text"))
                continue
            try:
                with telling_damage(run_id, "its row"):
                    rows.append(await self.job(run_id))
            except StoreDamaged as error:
                damaged.append(error)
            except RunNotFound:
                if run_id in await self._ids(statuses, limit):  # else it was deleted meanwhile
                    damaged.append(StoreDamaged(run_id, UNFOUND))
        return rows, damaged

    async def job(self, run_id: str) -> Any:
        """One run's row, without its definition.

        Raises:
            RunNotFound: there is none.
        """
        rows: Sequence[Any] = ()
        if is_storable_text(run_id):
            rows = await self._read_rows(run_id, ONE_JOB, {"of_run": run_id}, JOB_TEXTS)
        if not rows:
            raise RunNotFound(run_id, self.location.shown)
        return rows[0]

    async def holder(self, run_id: str) -> tuple[Holder, datetime] | None:
        """Who holds a run now, and until when unless it gives another sign of life; `None` for nobody."""

        def work(connection: Connection) -> tuple[Holder, datetime] | None:
            with telling_damage(run_id, "the row of its lease"):
                row = connection.execute(LEASE, {"of_run": run_id}).first()
                holder = None if row is None else holder_of(row)
                if row is None or holder is None or not is_held(row, database_now(connection)):
                    return None
                return holder, row.expires_at

        return await self._read(work)

    async def node_states(self, run_id: str) -> Sequence[Any]:
        """The rows of `run_node_state` of a run."""
        return await self._read_rows(run_id, NODE_STATES, {"of_run": run_id}, NODE_TEXTS, NODE_STATUSES)

    async def checkpoints(self, run_id: str) -> Sequence[Any]:
        """The checkpoints of a run, oldest first."""
        return await self._read_rows(run_id, CHECKPOINTS, {"of_run": run_id})

    async def _ids(self, statuses: Collection[str], limit: int | None) -> Sequence[Any]:
        """The ids of these runs; SQLite keeps anything in any column."""
        newest = NEWEST["id", _which(statuses)]
        return await self._read(lambda connection: list(connection.execute(newest, _chosen(statuses, limit)).scalars()))

    async def _read_rows(
        self,
        run_id: str,
        query: Statement,
        values: Mapping[str, Any],
        sealed: Sequence[str] = (),
        statuses: frozenset[str] = STATUSES,
    ) -> Sequence[Any]:
        """Rows of a run, or with an empty id of several that name theirs; texts that are sealed opened for people to read."""

        def work(connection: Connection) -> Sequence[Any]:
            with telling_damage(run_id, "a row of it"):
                rows: Sequence[Any] = connection.execute(query, values).all()
                columns = query.on_sqlite.columns if connection.kind == "sqlite" else ()
                kinds = [(place, KINDS[kind]) for place, (_, kind) in enumerate(columns) if kind in KINDS]
                for row in rows:
                    for place, kind in kinds:
                        value = row[place]
                        if value is not None and type(value) is not kind:
                            name = columns[place][0]
                            raise StoreDamaged(run_id or row.id, f"its column {name!r} holds {type(value).__name__}")
                    if row.status not in statuses:
                        raise StoreDamaged(run_id or row.id, f"a status of it, {row.status!r}, is not one")
                return [shown_row(self.keys, connection, run_id or row.id, row, sealed) for row in rows] if sealed else rows

        return await self._read(work)


def _which(statuses: Collection[str]) -> str:
    return "some" if statuses else "all"


def _chosen(statuses: Collection[str], limit: int | None) -> Mapping[str, Any]:
    return {"statuses": list(statuses), "many": LARGEST if limit is None else bounded(limit)}
