"""What a save asks, in the language of SQLAlchemy; see `database.statement`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    Table,
    Text,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, PAYLOAD, RUN_NODE_STATE, Base
from checkpoint_plugin.saving.payloads import PIECES
from checkpoint_plugin.saving.statements import (
    FENCE,
    HEAD,
    JOB_COLUMNS,
    JOB_VALUES,
    MANY,
    ONE,
    SHARED,
    SHOWN,
    STATE,
    TIMED,
    Kind,
    Rows,
)
from checkpoint_plugin.tables.lease import HELD
from checkpoint_plugin.tables.suspensions import NODE_COLUMNS

__all__ = [
    "advance",
    "checkpoint_digest",
    "filed_payloads",
    "insert_checkpoint",
    "insert_rows",
    "series_ends",
    "unnested_rows",
    "update_job",
    "whole_save",
    "written_by",
]

TABLES: Final[Mapping[str, Table]] = Base.metadata.tables


def advance(*, ends: bool = False) -> Any:
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
    return {"retryable": true()} if rows.table == "run_node_state" else {}


def _unnested(name: str, rows: Rows, held: Any) -> Any:
    """An insert of rows that come as one array a column. In the list of a SELECT each row is made when it is written; in its
    FROM, a server makes a table of each array before."""
    columns = TABLES[rows.table].c
    arrays = [func.unnest(bindparam(f"{name}_{column}", type_=ARRAY(columns[column].type))) for column in rows.columns]
    kinds: dict[str, Any] = {"run_id": Text, "number": BigInteger, "updated_at": DateTime(timezone=True)}
    shared: list[Any] = [bindparam(column, type_=kinds[column]) for column in rows.shared]
    fixed = _fixed(rows)
    found = select(*shared, *arrays, *fixed.values())
    if held is not None:
        found = found.select_from(held)
    return _adding(postgresql.insert(TABLES[rows.table]).from_select([*rows.shared, *rows.columns, *fixed], found), name)


def update_job(run_id: Any = None) -> Any:
    """What a save tells of its run; a cancelled one stays so."""
    values = {name: bindparam(given, type_=JOB.c[name].type) for name, given in zip(JOB_COLUMNS, JOB_VALUES, strict=True)}
    of_run = (JOB.c.id == (bindparam("run_id") if run_id is None else run_id), JOB.c.status != literal_column("'cancelled'"))
    return update(JOB).where(*of_run).values(**values, version=JOB.c.version + 1)


def insert_rows(name: str) -> Any:
    """Rows of one name, for SQLite, which takes values alone."""
    rows = MANY[name]
    values: dict[str, Any] = {column: bindparam(column) for column in (*rows.shared, *rows.columns)}
    return _adding(sqlite.insert(TABLES[rows.table]).values({**values, **_fixed(rows)}), name)


def insert_checkpoint() -> Any:
    """The checkpoint's own row, for SQLite."""
    head: dict[str, Any] = {name: bindparam(given) for name, given in zip(ONE, HEAD, strict=True)}
    return sqlite.insert(CHECKPOINT).values(head)


def unnested_rows(name: str) -> Any:
    """Rows of one name, for PostgreSQL, as one array a column."""
    return _unnested(name, MANY[name], None)


def whole_save(kind: Kind) -> Any:
    """A whole save for PostgreSQL; see `statements.save_statement`."""
    fence = advance(ends=kind.job).returning(LEASE.c.run_id)
    if kind.since:
        fence = fence.where(*_unwritten_since(bindparam("since", type_=Text))).returning(written_by(LEASE))
    held = fence.cte("held")
    parts = [_unnested(name, MANY[name], held).cte(f"new_{name}") for name in kind.names]
    head = [bindparam(given, type_=CHECKPOINT.c[name].type) for name, given in zip(ONE, HEAD, strict=True)]
    if kind.job:
        parts.append(update_job(held.c.run_id).cte("new_job"))
    if kind.since:
        alive = update(JOB).where(JOB.c.id == held.c.run_id)
        parts.append(alive.values(updated_at=bindparam("updated_at", type_=JOB.c.updated_at.type)).cte("life"))
    checkpoint = postgresql.insert(CHECKPOINT).from_select(list(ONE), select(*head).select_from(held))
    told = select(held.c.written_by).scalar_subquery() if kind.since else literal_column("1")
    return checkpoint.returning(told).add_cte(*parts)


def written_by(table: Table) -> Any:
    """The transaction of PostgreSQL that wrote a row last: to lock it is not to write it."""
    return cast(literal_column(f"{table.name}.xmin"), Text).label("written_by")


def _unwritten_since(since: Any) -> Iterator[Any]:
    """That nobody wrote a run since a transaction that wrote both its rows: whoever writes one of a node writes the lease, too.

    Where another transaction holds the lease, a server waits for it and looks at the row of the lease anew, but not at others:
    what must not be overlooked has to be seen by that row.
    """
    yield written_by(LEASE) == since
    yield exists().where(JOB.c.id == bindparam("run_id", type_=Text), written_by(JOB) == since)


def series_ends() -> Any:
    """Of each series of a run the end of the last value that is made of it."""
    payload = PAYLOAD.c
    # By the encoding, which stands before the body: SQLite would go through a large one to see that it has no series.
    made = (payload.run_id == bindparam("of_run"), payload.encoding == PIECES)
    return select(payload.series, func.max(payload.series_end)).where(*made).group_by(payload.series)


def checkpoint_digest() -> Any:
    """The digest of one checkpoint of a run, by its number."""
    of_number = CHECKPOINT.c.number == bindparam("of_number")
    return select(CHECKPOINT.c.digest).where(CHECKPOINT.c.run_id == bindparam("of_run"), of_number)


def filed_payloads() -> Any:
    """The digests of the values of a run that lie in files."""
    return select(PAYLOAD.c.digest).where(PAYLOAD.c.run_id == bindparam("of_run"), PAYLOAD.c.blob.is_not(None))
