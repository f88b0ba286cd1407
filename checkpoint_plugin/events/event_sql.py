"""What is asked of the event log, in the language of SQLAlchemy; see `database.statement`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, bindparam, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.models import EVENT, EVENT_HEAD

__all__ = ["events", "insert_event", "next_number", "take_numbers", "take_numbers_in_one"]

RUN: Final[Any] = bindparam("run_id")
COUNT: Final[Any] = bindparam("count", type_=BigInteger)


def _take(make: Any) -> Any:
    new = make(EVENT_HEAD).values(run_id=RUN, next_seq=COUNT)
    return new.on_conflict_do_update(index_elements=["run_id"], set_={"next_seq": EVENT_HEAD.c.next_seq + new.excluded.next_seq})


def take_numbers() -> Any:
    """Take so many numbers, for SQLite, which has RETURNING since 3.35: some systems have 3.26."""
    return _take(sqlite.insert)


def take_numbers_in_one() -> Any:
    """As `take_numbers`, with what `next_number` tells, for PostgreSQL."""
    return _take(postgresql.insert).returning(EVENT_HEAD.c.next_seq)


def next_number() -> Any:
    """The number of the next event."""
    return select(EVENT_HEAD.c.next_seq).where(EVENT_HEAD.c.run_id == RUN)


def insert_event() -> Any:
    """Write an event."""
    return insert(EVENT).values({column.name: bindparam(column.name) for column in EVENT.columns})


def events(kinds: str, nodes: str) -> Any:
    """So `many` events behind a number, `after`, the oldest first.

    Args:
        kinds: `all`, or `some`, which are in `kinds`.
        nodes: `all`, or `one`, which is `node_id`.
    """
    query = select(EVENT).where(EVENT.c.run_id == RUN, EVENT.c.seq > bindparam("after", type_=BigInteger))
    if kinds == "some":
        query = query.where(EVENT.c.kind.in_(bindparam("kinds", expanding=True)))
    if nodes == "one":
        query = query.where(EVENT.c.node_id == bindparam("node_id"))
    return query.order_by(EVENT.c.seq).limit(bindparam("many", type_=BigInteger))
