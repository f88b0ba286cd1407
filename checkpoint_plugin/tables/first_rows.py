"""The first rows of a run: its own, that of its lease, that of its keys, and what it is started with. All of them, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from checkpoint_plugin.database.compiled import Compiled
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement, table_columns
from checkpoint_plugin.database.transaction import write_step
from checkpoint_plugin.errors import SchemaChanged
from checkpoint_plugin.stored_bytes.encryption import WrappedKeys
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import HOLDER
from checkpoint_plugin.tables.schema import SCHEMA_VERSION

__all__ = ["GIVEN", "TIMES", "FirstRows", "Made", "make_run", "prepare_first_rows"]

BEGINNING: Final = ("run_id", "epoch", "generation", "newest_number")
"""What a lease tells whether anybody holds it or not."""
TIMES: Final = ("acquired_at", "expires_at")
"""Of the database's clock, which several hosts share; that of SQLite is this host's. So is `heartbeat_at`, where it is held."""
GIVEN: Final[Mapping[str, tuple[str, ...]]] = {
    "job": table_columns("job"),
    "lease": (*BEGINNING, *HOLDER),
    "definition": table_columns("run_definition"),
    "key": table_columns("run_key"),
}
"""Of each of the rows the columns whose values are given, in the order of the statement."""
ROWS: Final = {name: Statement("checkpoint_plugin.tables.row_sql", "first_row", name) for name in GIVEN}
VERSION: Final = "SELECT version FROM checkpoint_schema"
NEW_LEASE: Final = {"generation": 0, "newest_number": 0}


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it.

    Args:
        is_current: whether the tables are as this program knows them; without, nothing was written.
        is_new: whether the rows were written; without, there is a run of this id.
        until: when the lease ends, where somebody holds it.
    """

    is_current: bool
    is_new: bool
    until: datetime | None = None


class FirstRows:
    """What is written when a run is made. It can be tried again: who made the run meanwhile is told apart by its lease.

    Args:
        job: values of all columns of the run's row, texts as they are stored.
        definition: those of `run_definition`.
        wrapped: the run's keys, where it is encrypted.
        epoch: of its lease.
        holder: who holds it from the start; `None` for nobody.
        seconds: how long, unless it is renewed.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        definition: Mapping[str, Any],
        wrapped: WrappedKeys | None = None,
        epoch: int = 0,
        holder: Holder | None = None,
        seconds: float = 0.0,
    ) -> None:
        run_id = job["id"]
        self._for = None if holder is None else timedelta(seconds=seconds)
        held = dict.fromkeys(HOLDER)
        if holder is not None:
            held = dict(zip(HOLDER, (holder.owner, holder.host, holder.pid, holder.started), strict=True))
        self._rows: dict[str, Mapping[str, Any]] = {
            "job": job,
            "lease": {"run_id": run_id, "epoch": epoch, **NEW_LEASE, **held},
            "definition": {"run_id": run_id, **definition},
        }
        if wrapped is not None:
            self._rows["key"] = {"run_id": run_id, "key_id": wrapped.key_id, "wrapped": wrapped.wrapped}

    def is_compiled(self) -> bool:
        """Whether `statement` only has to fill in values."""
        return tuple(self._rows) in _STATEMENTS

    def compile(self) -> None:
        """Make what `statement` fills in."""
        _statement(tuple(self._rows))

    def statement(self) -> tuple[str, tuple[Any, ...]]:
        """All of it as one statement for PostgreSQL."""
        statement = _statement(tuple(self._rows))
        given = (value for name, row in self._rows.items() for value in _given(name, row))
        return statement.sql, statement.parameters((*given, self._for))

    def outcome(self, row: Any) -> Made:
        """What the row that `statement` gives tells."""
        is_current, is_new, until = row
        return Made(bool(is_current), bool(is_new), until)

    def write_sqlite(self, connection: Any) -> Made:
        """Write it on a connection of the standard library, in a transaction that nobody shares."""
        if connection.execute(VERSION).fetchone() != (SCHEMA_VERSION,):
            return Made(is_current=False, is_new=False)
        rows = self._rows
        times: tuple[datetime | None, datetime | None] = None, None
        if self._for is not None:
            now = datetime.now(UTC)
            times = now, now + self._for
            rows = {**rows, "job": {**rows["job"], "heartbeat_at": now}}
        for name, statement in _inserts(tuple(rows)).items():
            values = (*_given(name, rows[name]), *(times if name == "lease" else ()))
            if connection.execute(statement.sql, statement.parameters(values)).rowcount != 1:
                return Made(is_current=True, is_new=False)
        return Made(is_current=True, is_new=True, until=times[1])


def _given(name: str, row: Mapping[str, Any]) -> Iterator[Any]:
    return map(row.__getitem__, GIVEN[name])


_STATEMENTS: Final[dict[tuple[str, ...], Compiled]] = {}


def prepare_first_rows(dialect: str) -> None:
    """Make the statements of a run that is not encrypted, once in the life of a process.

    Args:
        dialect: of the database.
    """
    names = ("job", "lease", "definition")
    if dialect == "postgresql":
        _statement(names)
    else:
        _inserts(names)


def make_run(connection: Connection, rows: FirstRows) -> Made:
    """Write them in a transaction that has looked at the tables.

    Raises:
        SchemaChanged: another program has changed the tables since.
    """
    made = write_step(connection, rows)
    if not made.is_current:
        raise SchemaChanged("another program has just changed the tables of the store; nothing was written. Do it again.")
    return made


@cache
def _inserts(names: tuple[str, ...]) -> dict[str, Compiled]:
    """One a table, for SQLite."""
    columns = {name: (*GIVEN[name], *(TIMES if name == "lease" else ())) for name in names}
    return {name: Compiled(ROWS[name].on_sqlite, columns[name]) for name in names}


def _statement(names: tuple[str, ...]) -> Compiled:
    """One for all tables, for PostgreSQL."""
    found = _STATEMENTS.get(names)
    if found is None:
        from checkpoint_plugin.database.compiling import for_postgresql
        from checkpoint_plugin.tables.row_sql import first_rows

        given = [f"{name}_{column}" for name in names for column in GIVEN[name]]
        found = _STATEMENTS[names] = Compiled(for_postgresql(first_rows(names)), (*given, "held_for"))
    return found
