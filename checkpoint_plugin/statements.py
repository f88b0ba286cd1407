"""The statements of a save, compiled once: SQLAlchemy takes longer to make a statement than a database to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Dialect,
    Table,
    Text,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.sql.compiler import SQLCompiler

from checkpoint_plugin.models import (
    CHECKPOINT,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    RUN_NODE_STATE,
)
from checkpoint_plugin.suspensions import JOB_COLUMNS as SUSPENSION_COLUMNS
from checkpoint_plugin.suspensions import NODE_COLUMNS

__all__ = [
    "JOB_COLUMNS",
    "MANY",
    "ONE",
    "Compiled",
    "PostgresStatements",
    "SqliteStatements",
    "postgres_statements",
    "sqlite_statements",
]

MANY: Final[Mapping[str, tuple[Table, tuple[str, ...]]]] = {
    "payloads": (PAYLOAD, ("digest", "encoding", "size", "body", "series", "series_end", "blob")),
    "segments": (PAYLOAD_SEGMENT, ("series", "start", "size", "encoding", "body")),
    "nodes": (NODE_VERSION, ("number", "node_id", "body", "mentions", "digest")),
    "items": (OUTPUT_SEGMENT, ("node_id", "log", "first", "number", "count", "body", "mentions", "digest")),
    "states": (
        RUN_NODE_STATE,
        (
            "node_id",
            "number",
            "status",
            "attempt",
            "started_at",
            "completed_at",
            "failed_at",
            "updated_at",
            "last_error",
            "retryable",
            *NODE_COLUMNS,
        ),
    ),
}
"""The tables of which a save writes any number of rows, with the columns beside `run_id`, in the order of the rows."""
ONE: Final = tuple(column.name for column in CHECKPOINT.columns)
"""The columns of the checkpoint's own row."""
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
KEPT: Final = frozenset({"run_id", "node_id", "retryable"})


class Compiled:
    """A statement as text, and how named values become its parameters.

    Args:
        statement: any statement of SQLAlchemy.
        dialect: for which.
    """

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect)
        self.sql = compiled.string
        self.names: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        self._processors: list[tuple[str, Callable[[Any], Any]]] = []
        for name in self.names:
            processor = compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None and not isinstance(compiled.binds[name].type, ARRAY):
                self._processors.append((name, processor))

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """One row of values in the order of the statement."""
        values = {**self._constants, **values}
        for name, processor in self._processors:
            values[name] = processor(values[name])
        return tuple([values[name] for name in self.names])

    def rows(self, first: Any, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Many rows, each in the order of the statement but for the first value, which all have."""
        if not self._processors:
            return [(first, *row) for row in rows]
        processors = [(self.names.index(name), processor) for name, processor in self._processors]
        found = []
        for row in rows:
            values = [first, *row]
            for place, processor in processors:
                values[place] = processor(values[place])
            found.append(tuple(values))
        return found


class SqliteStatements:
    """One insert a table; the transaction itself is the lock."""

    def __init__(self) -> None:
        dialect = pysqlite.dialect()
        self.advance = Compiled(_advance(), dialect)
        self.many = {
            name: Compiled(_adding(sqlite.insert(table).values({c: bindparam(c) for c in ("run_id", *columns)}), table), dialect)
            for name, (table, columns) in MANY.items()
        }
        self.checkpoint = Compiled(insert(CHECKPOINT).values({name: bindparam(name) for name in ONE}), dialect)
        self.job = Compiled(_job_update().where(JOB.c.id == bindparam("of_run")), dialect)


class PostgresStatements:
    """A whole save as one statement, which moves the lease on first and writes nothing where it is not held."""

    def __init__(self) -> None:
        dialect: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
        held = _advance().returning(LEASE.c.run_id).cte("held")
        parts = [_unnested(name, table, columns, held).cte(f"new_{name}") for name, (table, columns) in MANY.items()]
        head = {name: bindparam(f"head_{name}", type_=CHECKPOINT.c[name].type) for name in ONE}
        parts.append(insert(CHECKPOINT).from_select(list(head), select(*head.values()).select_from(held)).cte("new_checkpoint"))
        done = select(func.count()).select_from(held)
        self.running = Compiled(done.add_cte(*parts), dialect)
        job = _job_update().where(JOB.c.id == held.c.run_id).cte("new_job")
        self.save = Compiled(done.add_cte(*parts, job), dialect)
        self.payloads = Compiled(_unnested("payloads", *MANY["payloads"], None), dialect)


def _advance() -> Any:
    """The fence: one row where the lease is held and nobody else took a checkpoint, else none."""
    numbers = ("epoch", "generation", "previous")
    epoch, generation, previous = (bindparam(name, type_=BigInteger) for name in numbers)
    held = (LEASE.c.epoch == epoch, LEASE.c.generation == generation, LEASE.c.newest_number == previous)
    of_run = LEASE.c.run_id == bindparam("of_run", type_=Text)
    return update(LEASE).where(of_run, *held).values(newest_number=bindparam("number", type_=BigInteger))


def _adding(statement: Any, table: Table) -> Any:
    """What an insert does with rows that are there: the current truth is replaced, a value is the same, else it fails."""
    if table is PAYLOAD:
        return statement.on_conflict_do_nothing()
    if table is RUN_NODE_STATE:
        new, old = statement.excluded, table.c
        updates = {name: new[name] for name in MANY["states"][1] if name not in KEPT}
        # Where a cut tells only that a node is suspended, by whom and why was written by somebody else, and stays.
        told = or_(new.status != literal_column("'suspended'"), new.suspended_at.is_not(None))
        updates.update({name: case((told, new[name]), else_=old[name]) for name in NODE_COLUMNS})
        return statement.on_conflict_do_update(index_elements=["run_id", "node_id"], set_=updates)
    return statement


def _unnested(name: str, table: Table, columns: Sequence[str], held: Any) -> Any:
    """An insert of rows that come as one array a column."""
    arrays = [bindparam(f"{name}_{column}", type_=ARRAY(table.c[column].type)) for column in columns]
    source = func.unnest(*arrays).table_valued(*columns, name=f"{name}_rows").render_derived()
    if held is None:
        rows = select(bindparam("of_run", type_=Text), *source.c).select_from(source)
    else:
        rows = select(held.c.run_id, *source.c).select_from(held.join(source, true()))
    return _adding(postgresql.insert(table).from_select(["run_id", *columns], rows), table)


def _job_update() -> Any:
    values = {name: bindparam(f"job_{name}", type_=JOB.c[name].type) for name in JOB_COLUMNS}
    return update(JOB).values(**values, version=JOB.c.version + 1)


@cache
def sqlite_statements() -> SqliteStatements:
    """Those for SQLite."""
    return SqliteStatements()


@cache
def postgres_statements() -> PostgresStatements:
    """Those for PostgreSQL."""
    return PostgresStatements()
