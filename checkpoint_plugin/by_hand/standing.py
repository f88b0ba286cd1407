"""How a run that is saved by hand stands: a save looks first, so that it sees whether anybody else wrote the run meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, bindparam, select, type_coerce, update
from sqlalchemy.types import NullType

from checkpoint_plugin.database.compiled import Compiled
from checkpoint_plugin.database.compiling import for_postgresql, for_sqlite
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.sqlite_values import time_as_text
from checkpoint_plugin.database.text import Text
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import JOB, LEASE, RUN_NODE_STATE
from checkpoint_plugin.saving.save_sql import written_by
from checkpoint_plugin.tables.suspensions import JOB_COLUMNS as SUSPENSION

__all__ = [
    "ENDS",
    "SUSPENSION",
    "Mark",
    "Standing",
    "fetch_standing",
    "has_changed",
    "mark_moment",
    "moment_of",
    "show_life",
    "standing_statements",
]

ENDS: Final = ("finished_at", "completed_at", "failed_at", "error", "error_message")
PARTS: Final = ("attempt", "status", "execution_strategy", *ENDS, *SUSPENSION)
Mark = tuple[int | None, str, int, Any]
"""What changes whenever a node's row does: number, status, attempt, and when, as the driver gives it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands, in little: equal to another one exactly when nothing was written between.

    Args:
        parts: of the run's row what a save must keep, as the driver gives it.
        epoch: of its lease.
        generation: of its rows.
        number: of its newest checkpoint.
        marks: of its nodes' rows.
    """

    parts: tuple[Any, ...]
    epoch: int
    generation: int
    number: int
    marks: Mapping[str, Mark]

    @classmethod
    def of_new(cls, attempt: int, status: str, strategy: str, epoch: int) -> Standing:
        """That of a run whose row was made just now."""
        return cls((attempt, status, strategy, *(None,) * (len(PARTS) - 3)), epoch, 0, 0, {})

    def job(self, name: str) -> Any:
        """A column of `PARTS`; a time is as the driver gives it."""
        return self.parts[PARTS.index(name)]

    def moved(self, number: int, marks: Mapping[str, Mark]) -> Standing:
        """The same after the next checkpoint, which marked some nodes."""
        return Standing(self.parts, self.epoch, self.generation, number, {**self.marks, **marks})


def fetch_standing(connection: Connection, run_id: str) -> Standing | None:
    """Look how a run stands; `None` when it has no row.

    Raises:
        StoreDamaged: its lease has none.
    """
    statements = standing_statements(connection.kind)
    row = _rows(connection, statements.standing, run_id)
    if not row:
        return None
    *parts, epoch, generation, number = row[0]
    if epoch is None:
        raise StoreDamaged(run_id, "it has no row in lease")
    marks = {found[0]: tuple(found[1:]) for found in _rows(connection, statements.marks, run_id)}
    return Standing(tuple(parts), epoch, generation, number, marks)


def has_changed(connection: Connection, run_id: str, standing: Standing) -> bool:
    """Whether anybody wrote the run since it stood so; nobody does from now on, until the transaction ends.

    The rows of thousands of nodes have few different marks, for those that were written at once have the same; whoever writes
    one gives it another moment, and rows are deleted only together with the checkpoints.
    """
    statements = standing_statements(connection.kind)
    if connection.kind == "postgresql":  # on SQLite the transaction is the lock
        _rows(connection, statements.lock, run_id)
    row = _rows(connection, statements.standing, run_id)
    if not row or tuple(row[0]) != (*standing.parts, standing.epoch, standing.generation, standing.number):
        return True
    return set(map(tuple, _rows(connection, statements.different, run_id))) != set(standing.marks.values())


def moment_of(connection: Connection) -> Any:
    """What stays the same as long as nothing at all is written to a database of SQLite; `None` on PostgreSQL.

    SQLite counts the commits of other connections, and each of ours the rows that it changed.
    """
    if connection.kind != "sqlite":
        return None
    raw: Any = connection.driver
    return raw, raw.execute("PRAGMA data_version").fetchone(), raw.total_changes


def show_life(connection: Connection, run_id: str, at: datetime) -> Any:
    """Write when a run was last saved: nobody beats for one that is saved by hand.

    Returns:
        What stays the same as long as nobody writes the run: `moment_of`, or on PostgreSQL the transaction, as a text.
    """
    found = _execute(connection, standing_statements(connection.kind).life, run_id, at)
    return moment_of(connection) if connection.kind == "sqlite" else found.scalar()


def mark_moment(connection: Connection, at: datetime) -> Any:
    """A moment as the driver gives it back."""
    return time_as_text(at) if connection.kind == "sqlite" else at


class _Statements:
    """Compiled once: an engine of SQLAlchemy compiles anew for each store that is opened."""

    def __init__(self, compiled: Callable[[Any], Text], *returned: Any) -> None:
        run_id: BindParameter[Any] = bindparam("of_run")
        lease = (LEASE.c.epoch, LEASE.c.generation, LEASE.c.newest_number)
        state = RUN_NODE_STATE.c
        mark = [_raw(state[name]) for name in ("number", "status", "attempt", "updated_at")]
        joined = JOB.outerjoin(LEASE, LEASE.c.run_id == JOB.c.id)
        standing = select(*(_raw(JOB.c[name]) for name in PARTS), *lease).select_from(joined).where(JOB.c.id == run_id)
        of_run = state.run_id == run_id
        self.standing = Compiled(compiled(standing), ("of_run",))
        self.marks = Compiled(compiled(select(state.node_id, *mark).where(of_run)), ("of_run",))
        self.different = Compiled(compiled(select(*mark).distinct().where(of_run)), ("of_run",))
        self.lock = Compiled(compiled(select(LEASE.c.epoch).where(LEASE.c.run_id == run_id).with_for_update()), ("of_run",))
        life = update(JOB).where(JOB.c.id == run_id).values(updated_at=bindparam("at", type_=JOB.c.updated_at.type))
        life = life.returning(*returned) if returned else life
        self.life = Compiled(compiled(life), ("of_run", "at"))


def _raw(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return type_coerce(column, NullType())


@cache
def standing_statements(name: str) -> _Statements:
    """Those for a database."""
    return _Statements(for_postgresql, written_by(JOB)) if name == "postgresql" else _Statements(for_sqlite)


def _rows(connection: Connection, statement: Compiled, run_id: str) -> Sequence[Any]:
    rows: Sequence[Any] = _execute(connection, statement, run_id).fetchall()
    return rows


def _execute(connection: Connection, statement: Compiled, *values: Any) -> Any:
    """On SQLite by the driver: to begin SQLAlchemy over its connection takes longer than a save of nothing new."""
    parameters = statement.parameters(values)
    if connection.kind == "sqlite":
        return connection.driver.execute(statement.sql, parameters)
    return connection.core.exec_driver_sql(statement.sql, parameters)
