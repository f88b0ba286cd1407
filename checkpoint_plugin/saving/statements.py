"""The statements of a save: on SQLite one a table, on PostgreSQL a single one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    Dialect,
    Table,
    Text,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    null,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.dialects.sqlite import pysqlite

from checkpoint_plugin.database.compiled import Compiled, Inserts
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    RUN_NODE_STATE,
)
from checkpoint_plugin.tables.lease import HELD
from checkpoint_plugin.tables.suspensions import JOB_COLUMNS as SUSPENSION_COLUMNS
from checkpoint_plugin.tables.suspensions import NODE_COLUMNS

__all__ = [
    "FENCE",
    "JOB_COLUMNS",
    "MANY",
    "ONE",
    "SAVES",
    "SHARED",
    "SHOWN",
    "TIMED",
    "Kind",
    "SqliteStatements",
    "prepare_saves",
    "rows_statement",
    "save_statement",
    "sqlite_statements",
]

FENCE: Final = ("run_id", "number", "epoch", "generation", "previous")
"""The number of the checkpoint, and what must be so for anything to be written."""
SHARED: Final = ("run_id", "number", "updated_at")
"""What all rows of a save have in common."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table that a save writes.

    Args:
        table: which.
        shared: columns of `SHARED` that it has.
        columns: the others, in the order of the rows.
    """

    table: Table
    shared: tuple[str, ...]
    columns: tuple[str, ...]


STATE: Final = ("node_id", "status", "attempt", "started_at", "completed_at", "failed_at", "last_error")
SHOWN: Final = ("outputs_json", "resume_state_json", "scheduled_at")
"""What the state of a node of a run that is saved by hand tells beside."""
MANY: Final[Mapping[str, Rows]] = {
    "payloads": Rows(PAYLOAD, ("run_id",), ("digest", "encoding", "size", "body", "series", "series_end", "blob")),
    "segments": Rows(PAYLOAD_SEGMENT, ("run_id",), ("series", "start", "size", "encoding", "body")),
    "nodes": Rows(NODE_VERSION, ("run_id", "number"), ("node_id", "body", "mentions", "digest")),
    "completed": Rows(COMPLETED_NODES, ("run_id", "number"), ("body", "digest")),
    "items": Rows(OUTPUT_SEGMENT, ("run_id", "number"), ("node_id", "log", "first", "count", "body", "mentions", "digest")),
    "states": Rows(RUN_NODE_STATE, SHARED, STATE),
    "waiting": Rows(RUN_NODE_STATE, SHARED, (*STATE, *NODE_COLUMNS)),
    "shown": Rows(RUN_NODE_STATE, SHARED, (*STATE, *SHOWN)),
}
"""The rows of a save by name: `waiting` are states of nodes that are suspended, of which there is more to tell, `shown` those of
runs that are saved by hand."""
TIMED: Final = frozenset({"states", "waiting", "shown"})
"""Rows that tell when they were written, the last of `SHARED`."""
Kind = tuple[tuple[str, ...], bool]
"""What `save_statement` is asked for."""
ONE: Final = tuple(column.name for column in CHECKPOINT.columns)
"""The columns of the checkpoint's own row."""
HEAD: Final = tuple(f"head_{name}" for name in ONE)
JOB_COLUMNS: Final = (
    "has_checkpoint",
    "status",
    "updated_at",
    "finished_at",
    "completed_at",
    "failed_at",
    "error",
    "error_message",
    *SUSPENSION_COLUMNS,
)
"""What a save changes in the run's row, where the run does not just go on: then it changes nothing there."""
JOB_VALUES: Final = tuple(f"job_{name}" for name in JOB_COLUMNS)


class SqliteStatements:
    """One a table; the transaction itself is the lock."""

    def __init__(self) -> None:
        dialect = pysqlite.dialect()
        self.advance = Compiled(_advance(), dialect, FENCE)
        self.many: dict[str, Inserts] = {}
        for name, rows in MANY.items():
            values: dict[str, Any] = {column: bindparam(column) for column in (*rows.shared, *rows.columns)}
            statement = _adding(sqlite.insert(rows.table).values({**values, **_fixed(rows)}), name)
            self.many[name] = Inserts(statement, dialect, (*rows.shared, *rows.columns), len(rows.shared))
        head: dict[str, Any] = {name: bindparam(given) for name, given in zip(ONE, HEAD, strict=True)}
        self.checkpoint = Compiled(sqlite.insert(CHECKPOINT).values(head), dialect, HEAD)
        self.job = Compiled(_job_update(bindparam("run_id")), dialect, ("run_id", *JOB_VALUES))


@cache
def sqlite_statements() -> SqliteStatements:
    """Those for SQLite."""
    return SqliteStatements()


SAVES: Final[dict[Kind, Compiled]] = {}
"""What `save_statement` gave; which it has not given yet takes SQLAlchemy several milliseconds."""


def save_statement(names: tuple[str, ...], job: bool) -> Compiled:
    """A whole save for PostgreSQL: it moves the lease on first, and writes nothing where that is not held.

    Its values are those of `FENCE`, where any are `TIMED` the last of `SHARED`, the checkpoint's, an array a column, and the
    run's. A server takes 20 µs for each table of which there is nothing to write, and the driver as much: these are left out.

    Args:
        names: of `MANY`, what is written, in that order.
        job: whether the run's row is written.
    """
    found = SAVES.get((names, job))
    if found is None:
        found = SAVES[names, job] = _compile_save(names, job)
    return found


def _compile_save(names: tuple[str, ...], job: bool) -> Compiled:
    dialect: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
    held = _advance(ends=job).returning(LEASE.c.run_id).cte("held")
    parts = [_unnested(name, MANY[name], held).cte(f"new_{name}") for name in names]
    head = [bindparam(given, type_=CHECKPOINT.c[name].type) for name, given in zip(ONE, HEAD, strict=True)]
    parts.append(insert(CHECKPOINT).from_select(list(ONE), select(*head).select_from(held)).cte("new_checkpoint"))
    if job:
        parts.append(_job_update(held.c.run_id).cte("new_job"))
    arrays = [f"{name}_{column}" for name in names for column in MANY[name].columns]
    moment = () if TIMED.isdisjoint(names) else SHARED[-1:]
    given = (*FENCE, *moment, *HEAD, *arrays, *(JOB_VALUES if job else ()))
    return Compiled(select(func.count()).select_from(held).add_cte(*parts), dialect, given)


@cache
def rows_statement(name: str) -> Compiled:
    """Rows of one name alone, for PostgreSQL: what they share, and an array a column."""
    dialect: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
    rows = MANY[name]
    arrays = (f"{name}_{column}" for column in rows.columns)
    return Compiled(_unnested(name, rows, None), dialect, (*rows.shared, *arrays))


def prepare_saves(dialect: str, *kinds: Kind) -> None:
    """Compile what saves need; the first would else take several milliseconds more.

    Args:
        dialect: of the database.
        kinds: on PostgreSQL, as `save_statement`.
    """
    if dialect == "sqlite":
        sqlite_statements()
        return
    for kind in kinds:
        save_statement(*kind)


def _advance(*, ends: bool = False) -> Any:
    """The fence: one row where the lease is held and nobody else took a checkpoint, else none.

    Args:
        ends: the run's row is written, too; where that says that it is completed, nobody has to hold it any more.
    """
    run_id = bindparam("run_id", type_=Text)
    number, epoch, generation, previous = (bindparam(name, type_=BigInteger) for name in FENCE[1:])
    held = (LEASE.c.epoch == epoch, LEASE.c.generation == generation, LEASE.c.newest_number == previous)
    values: dict[str, Any] = {"newest_number": number}
    if ends:
        over = bindparam("job_status", type_=JOB.c.status.type) == literal_column("'completed'")
        values.update({name: case((over, null()), else_=LEASE.c[name]) for name in HELD})
    return update(LEASE).where(LEASE.c.run_id == run_id, *held).values(values)


def _adding(statement: Any, name: str) -> Any:
    """What an insert does with rows that are there: the current truth is replaced, a value is the same, else it fails."""
    if name == "payloads":
        return statement.on_conflict_do_nothing()
    if name not in TIMED:
        return statement
    new, old = statement.excluded, RUN_NODE_STATE.c
    updates = {column: new[column] for column in (*SHARED[1:], *STATE[1:])}
    if name == "states":
        updates.update(dict.fromkeys(NODE_COLUMNS, null()))
    elif name == "shown":  # by whom and why a node is suspended is never told here, and stays
        waits = new.status == literal_column("'suspended'")
        updates.update({column: case((waits, old[column])) for column in NODE_COLUMNS})
        updates.update({column: new[column] for column in SHOWN})
    else:  # where a cut tells only that a node is suspended, by whom and why was written by somebody else, and stays
        told = new.suspended_at.is_not(None)
        updates.update({column: case((told, new[column]), else_=old[column]) for column in NODE_COLUMNS})
    return statement.on_conflict_do_update(index_elements=["run_id", "node_id"], set_=updates)


def _fixed(rows: Rows) -> dict[str, Any]:
    return {"retryable": true()} if rows.table is RUN_NODE_STATE else {}


def _unnested(name: str, rows: Rows, held: Any) -> Any:
    """An insert of rows that come as one array a column."""
    arrays = [bindparam(f"{name}_{column}", type_=ARRAY(rows.table.c[column].type)) for column in rows.columns]
    source = func.unnest(*arrays).table_valued(*rows.columns, name=f"{name}_rows").render_derived()
    kinds: dict[str, Any] = {"run_id": Text, "number": BigInteger, "updated_at": DateTime(timezone=True)}
    shared: list[Any] = [bindparam(column, type_=kinds[column]) for column in rows.shared]
    fixed = _fixed(rows)
    found = select(*shared, *source.c, *fixed.values())
    found = found.select_from(source if held is None else held.join(source, true()))
    return _adding(postgresql.insert(rows.table).from_select([*rows.shared, *rows.columns, *fixed], found), name)


def _job_update(run_id: Any) -> Any:
    """What a save tells of its run; a cancelled one stays so."""
    values = {name: bindparam(given, type_=JOB.c[name].type) for name, given in zip(JOB_COLUMNS, JOB_VALUES, strict=True)}
    of_run = (JOB.c.id == run_id, JOB.c.status != literal_column("'cancelled'"))
    return update(JOB).where(*of_run).values(**values, version=JOB.c.version + 1)
