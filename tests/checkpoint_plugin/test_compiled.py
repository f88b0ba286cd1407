"""Values on their way into a statement that was compiled once: as SQLAlchemy itself would give them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import bindparam, insert
from sqlalchemy.dialects.sqlite import pysqlite

from checkpoint_plugin.database.compiled import Compiled, Inserts
from checkpoint_plugin.database.compiling import for_sqlite
from checkpoint_plugin.models import RUN_NODE_STATE

COLUMNS = ("run_id", "updated_at", "node_id", "status", "started_at", "retryable")
NOON = datetime(2027, 3, 4, 12, 0, 0, 7, tzinfo=UTC)


def compiled() -> Compiled:
    return Compiled(for_sqlite(insert(RUN_NODE_STATE).values({name: bindparam(name) for name in COLUMNS})), COLUMNS)


def theirs(value: Any) -> Any:
    kind = RUN_NODE_STATE.c.started_at.type
    dialect = pysqlite.dialect()
    processor = kind.dialect_impl(dialect).bind_processor(dialect)
    assert processor is not None
    return processor(value)


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        NOON.replace(microsecond=0),
        NOON.astimezone(timezone(timedelta(hours=-5, minutes=-30))),
        NOON.astimezone(ZoneInfo("Europe/Berlin")),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        None,
    ],
)
def test_times_are_written_as_sqlalchemy_writes_them(moment: datetime | None) -> None:
    values = ("r", NOON, "n", "idle", moment, True)
    expected = {"started_at": theirs(moment), "updated_at": theirs(NOON)}
    told = compiled().parameters(values)
    assert set(expected.values()) <= set(told)
    assert stored([values]) == [told]


@pytest.mark.parametrize("part", ["year", "month", "day", "hour", "minute", "second", "microsecond"])
def test_a_time_is_not_taken_for_the_one_before_it(part: str) -> None:
    """Two that differ in one part alone, one after the other: what is remembered of the first is of no use to the second."""
    other = NOON.replace(**{part: 9})  # type: ignore[arg-type]
    moments = [NOON, other, NOON, other]
    told = [compiled().parameters(("r", moment, "n", "idle", moment, True)) for moment in moments]
    assert [set(row) >= {theirs(moment)} for row, moment in zip(told, moments, strict=True)] == [True] * 4


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        compiled().parameters(("r", NOON.replace(tzinfo=None), "n", "idle", None, True))


def inserted(rows: Sequence[tuple[Any, ...]], *, most: int = 10_000, size: int = 0) -> tuple[list[Any], list[str]]:
    """What is in the table then, and the statements that were executed; `most` values are the connection's limit."""
    statement = insert(RUN_NODE_STATE).values({name: bindparam(name) for name in COLUMNS})
    told: list[str] = []
    with sqlite3.connect(":memory:") as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, most)
        inserts = Inserts(for_sqlite(statement), COLUMNS, shared=2)
        connection.execute(inserts.sql.partition(" VALUES ")[0].replace("INSERT INTO", "CREATE TABLE"))
        connection.set_trace_callback(lambda sql: told.append(sql) if sql.startswith("INSERT") else None)
        inserts.execute(connection, rows[0][:2], [row[2:] for row in rows], size)
        found = connection.execute("SELECT * FROM run_node_state ORDER BY rowid").fetchall()
    connection.close()
    return found, told


def stored(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return inserted(rows)[0]


def rows_of(many: int) -> list[tuple[Any, ...]]:
    return [("r", NOON, f"n{number}", "running", None if number % 2 else NOON, bool(number % 3)) for number in range(many)]


@pytest.mark.parametrize("many", [1, 2, 3, 7, 127, 128, 700])
def test_rows_with_what_they_share_are_as_one_by_one(many: int) -> None:
    """In order, and in as few statements as the number has bits: the thread that executes them waits for its turn after each."""
    rows = rows_of(many)
    found, told = inserted(rows)
    assert found == [compiled().parameters(row) for row in rows] == inserted(rows, size=1 << 40)[0]
    assert len(told) == many // 128 + (many % 128).bit_count()


def test_as_many_rows_at_once_as_the_library_takes() -> None:
    rows = rows_of(100)
    found, told = inserted(rows, most=len(compiled().parameters(rows[0])) * 40 + 1)
    assert found == stored(rows)
    assert len(told) == 4, "32, 32, 32 and 4"


@pytest.mark.parametrize("size", [0, 1 << 40])
@pytest.mark.parametrize("empty", [(), ("started_at",), ("status", "started_at"), ("updated_at",), COLUMNS[2:]])
def test_columns_that_are_empty_in_all_rows_take_no_values(empty: Sequence[str], size: int) -> None:
    rows = [tuple(None if name in empty else value for name, value in zip(COLUMNS, row, strict=True)) for row in rows_of(5)]
    values = len(compiled().parameters(rows[0])) - len(set(empty) & set(COLUMNS[2:]))
    found, told = inserted(rows, most=4 * values, size=size)
    assert found == [compiled().parameters(row) for row in rows]
    assert len(told) == (5 if size else 2), "4 and 1: as many as there is room for"


@pytest.mark.parametrize(("size", "statements"), [(1 << 20, 3), (2 << 20, 4), (4 << 20, 7), (100 << 20, 100), (1 << 40, 100)])
def test_of_large_rows_the_driver_is_given_few_together(size: int, statements: int) -> None:
    """A mebibyte of them: so much is copied, and kept with a statement until it is executed again."""
    rows = rows_of(100)
    found, told = inserted(rows, size=size)
    assert found == stored(rows)
    assert len(told) == statements
