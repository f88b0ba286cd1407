"""Values on their way into a statement that was compiled once: as SQLAlchemy itself would give them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import bindparam, insert
from sqlalchemy.dialects.sqlite import pysqlite

from checkpoint_plugin.compiled import Compiled
from checkpoint_plugin.models import RUN_NODE_STATE

COLUMNS = ("run_id", "updated_at", "node_id", "status", "started_at", "retryable")
NOON = datetime(2027, 3, 4, 12, 0, 0, 7, tzinfo=UTC)


def compiled() -> Compiled:
    return Compiled(insert(RUN_NODE_STATE).values({name: bindparam(name) for name in COLUMNS}), pysqlite.dialect(), COLUMNS)


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
    statement = compiled()
    told = statement.parameters(values)
    assert set(expected.values()) <= set(told)
    assert list(statement.rows(values[:2], [values[2:]])) == [told]


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        compiled().parameters(("r", NOON.replace(tzinfo=None), "n", "idle", None, True))


def test_rows_with_what_they_share_are_as_one_by_one() -> None:
    statement = compiled()
    rows = [(f"n{number}", "running", None if number % 2 else NOON, bool(number % 3)) for number in range(6)]
    assert list(statement.rows(("r", NOON), rows)) == [statement.parameters(("r", NOON, *row)) for row in rows]
