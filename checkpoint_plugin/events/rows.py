"""The statements of the event log."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from checkpoint_plugin.bounds import LARGEST, bounded
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.refusal import of_sqlalchemy
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.sealed_columns import open_texts

__all__ = ["TEXTS", "append_events", "are_stored", "fetch_events"]

SQL: Final = "checkpoint_plugin.events.event_sql"
INSERT: Final = Statement(SQL, "insert_event")
TAKE: Final = Statement(SQL, "take_numbers")
NEXT: Final = Statement(SQL, "next_number")
EVENTS: Final = {(kinds, nodes): Statement(SQL, "events", kinds, nodes) for kinds in ("all", "some") for nodes in ("all", "one")}
TEXTS: Final = ("payload_json",)
"""What is sealed of an event of an encrypted run."""


def append_events(connection: Connection, run_id: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Give events the next numbers and write them. The row of the next number is the lock, held until the commit: who
    writes meanwhile waits, and a transaction that is rolled back gives its numbers back.

    Returns:
        The number of the first.

    Raises:
        StoreDamaged: they are taken.
    """
    first = _take(connection, run_id, len(rows))
    try:
        connection.execute_many(INSERT, [{"run_id": run_id, "seq": seq, **row} for seq, row in enumerate(rows, first)])
    except _refusals() as error:  # which no second try would mend
        what = f"its log has an event {first} or later, and the row of its next number says {first}"
        raise StoreDamaged(run_id, what) from error
    return first


def _refusals() -> tuple[type[BaseException], ...]:
    """What it is refused with that a number has been given already."""
    return sqlite3.IntegrityError, *of_sqlalchemy("IntegrityError")


def _take(connection: Connection, run_id: str, count: int) -> int:
    """Take so many numbers, and with them the lock; the first of them."""
    values = {"run_id": run_id, "count": count}
    if connection.kind == "postgresql":
        from checkpoint_plugin.events.event_sql import take_numbers_in_one

        following = connection.execute(take_numbers_in_one(), values).scalar_one()
    else:
        connection.execute(TAKE, values)
        following = connection.execute(NEXT, values).scalar_one_or_none()
    return int(following) - count


def are_stored(connection: Connection, run_id: str, first: int, rows: Sequence[Mapping[str, Any]], seal: Seal) -> bool:
    """Whether these very events are stored from a number on; nobody else writes the log until the end of the transaction."""
    _take(connection, run_id, 0)  # a commit of which the answer was lost may be under way: this waits for it
    stored = connection.execute(EVENTS["all", "all"], {"run_id": run_id, "after": first - 1, "many": len(rows)})
    opened = (open_texts(run_id, dict(row._mapping), TEXTS, seal) for row in stored)
    found = [{name: row[name] for name in rows[0]} for row in opened]
    return found == [dict(row) for row in rows]


def fetch_events(
    connection: Connection,
    run_id: str,
    kinds: Collection[str] | None,
    node_id: str | None,
    after: int | None,
    limit: int | None,
) -> Sequence[Any]:
    """The rows of events, oldest first. A text that no database keeps is that of no event."""
    if node_id is not None and not is_storable_text(node_id):
        return ()
    many = LARGEST if limit is None else bounded(limit)
    values: dict[str, Any] = {
        "run_id": run_id,
        "after": -1 if after is None else bounded(after),
        "many": many,
        "node_id": node_id,
    }
    if kinds is not None:
        values["kinds"] = [kind for kind in kinds if is_storable_text(kind)]
    query = EVENTS["all" if kinds is None else "some", "all" if node_id is None else "one"]
    rows: Sequence[Any] = connection.execute(query, values).all()
    return rows
