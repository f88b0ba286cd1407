"""The statements of a save, compiled once: SQLAlchemy takes longer to make a statement than a database to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
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
    "FENCE",
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
JOB_VALUES: Final = tuple(f"job_{name}" for name in JOB_COLUMNS)
FENCE: Final = ("of_run", "epoch", "generation", "previous", "number")
"""What must be so for anything to be written, and the number that comes of it."""
KEPT: Final = frozenset({"run_id", "node_id", "retryable"})


class Compiled:
    """A statement as text, and how values become its parameters.

    Args:
        statement: any statement of SQLAlchemy.
        dialect: for which.
        names: of its parameters, in the order in which values are given.
    """

    def __init__(self, statement: Any, dialect: Dialect, names: Sequence[str]) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect)
        self.sql = compiled.string
        places = tuple(compiled.positiontup or ())
        self._constants = [value for name, value in compiled.params.items() if name not in names]
        given = [*names, *(name for name in compiled.params if name not in names)]
        self._pick = itemgetter(*(given.index(name) for name in places))
        self._processors: list[tuple[int, Callable[[Any], Any]]] = []
        for place, name in enumerate(given):
            kind = compiled.binds[name].type
            processor = None if isinstance(kind, ARRAY) else kind.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None:
                self._processors.append((place, _remembering(processor)))

    def parameters(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """Values as the statement takes them."""
        given = [*values, *self._constants]
        for place, processor in self._processors:
            given[place] = processor(given[place])
        found: tuple[Any, ...] = self._pick(given)
        return found

    def rows(self, first: Any, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """As `parameters` for many rows, whose first value is the same."""
        return [self.parameters((first, *row)) for row in rows]


def _remembering(processor: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same, for a value that often is the one before: all rows of a save have the same time, whose text takes 3 µs."""
    before: tuple[Any, Any] = (None, processor(None))

    def process(value: Any) -> Any:
        nonlocal before
        seen = before  # one object: several threads save
        if seen[0] is not value:
            before = seen = value, processor(value)
        return seen[1]

    return process


class SqliteStatements:
    """One insert a table; the transaction itself is the lock."""

    def __init__(self) -> None:
        dialect = pysqlite.dialect()
        self.advance = Compiled(_advance(), dialect, FENCE)
        self.many = {
            name: Compiled(_adding(_insert(sqlite, table, ("run_id", *columns)), table), dialect, ("run_id", *columns))
            for name, (table, columns) in MANY.items()
        }
        self.checkpoint = Compiled(_insert(sqlite, CHECKPOINT, ONE), dialect, ONE)
        self.job = Compiled(_job_update().where(JOB.c.id == bindparam("of_run")), dialect, ("of_run", *JOB_VALUES))


class PostgresStatements:
    """A whole save as one statement, which moves the lease on first and writes nothing where it is not held."""

    def __init__(self) -> None:
        dialect: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
        held = _advance().returning(LEASE.c.run_id).cte("held")
        parts = [_unnested(name, table, columns, held).cte(f"new_{name}") for name, (table, columns) in MANY.items()]
        head = {name: f"head_{name}" for name in ONE}
        row = select(*(bindparam(given, type_=CHECKPOINT.c[name].type) for name, given in head.items())).select_from(held)
        parts.append(insert(CHECKPOINT).from_select(list(head), row).cte("new_checkpoint"))
        done = select(func.count()).select_from(held)
        arrays = [f"{name}_{column}" for name, (_, columns) in MANY.items() for column in columns]
        names = (*FENCE, *head.values(), *arrays)
        self.running = Compiled(done.add_cte(*parts), dialect, names)
        job = _job_update().where(JOB.c.id == held.c.run_id).cte("new_job")
        self.save = Compiled(done.add_cte(*parts, job), dialect, (*names, *JOB_VALUES))
        payloads = [f"payloads_{column}" for column in MANY["payloads"][1]]
        self.payloads = Compiled(_unnested("payloads", *MANY["payloads"], None), dialect, ("of_run", *payloads))


def _advance() -> Any:
    """The fence: one row where the lease is held and nobody else took a checkpoint, else none."""
    epoch, generation, previous, number = (bindparam(name, type_=BigInteger) for name in FENCE[1:])
    held = (LEASE.c.epoch == epoch, LEASE.c.generation == generation, LEASE.c.newest_number == previous)
    of_run = LEASE.c.run_id == bindparam(FENCE[0], type_=Text)
    return update(LEASE).where(of_run, *held).values(newest_number=number)


def _insert(dialect: Any, table: Table, columns: Iterable[str]) -> Any:
    return dialect.insert(table).values({name: bindparam(name) for name in columns})


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
    values = {name: bindparam(given, type_=JOB.c[name].type) for name, given in zip(JOB_COLUMNS, JOB_VALUES, strict=True)}
    return update(JOB).values(**values, version=JOB.c.version + 1)


@cache
def sqlite_statements() -> SqliteStatements:
    """Those for SQLite."""
    return SqliteStatements()


@cache
def postgres_statements() -> PostgresStatements:
    """Those for PostgreSQL."""
    return PostgresStatements()
