"""The statements of the event log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, false, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from checkpoint_plugin.bounds import bounded
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import EVENT, EVENT_HEAD
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.sealed_columns import open_texts

__all__ = ["TEXTS", "append_events", "are_stored", "select_events"]

INSERT: Final = insert(EVENT)
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
        connection.execute(INSERT, [{"run_id": run_id, "seq": seq, **row} for seq, row in enumerate(rows, first)])
    except IntegrityError as error:  # which no second try would mend
        what = f"its log has an event {first} or later, and the row of its next number says {first}"
        raise StoreDamaged(run_id, what) from error
    return first


def _take(connection: Connection, run_id: str, count: int) -> int:
    """Take so many numbers, and with them the lock; the first of them."""
    in_one = connection.dialect.name == "postgresql"
    new = (postgresql if in_one else sqlite).insert(EVENT_HEAD).values(run_id=run_id, next_seq=count)
    take = new.on_conflict_do_update(index_elements=["run_id"], set_={"next_seq": EVENT_HEAD.c.next_seq + new.excluded.next_seq})
    if in_one:
        taken = connection.execute(take.returning(EVENT_HEAD.c.next_seq))
    else:  # SQLite has RETURNING since 3.35, and some systems have 3.26
        connection.execute(take)
        taken = connection.execute(select(EVENT_HEAD.c.next_seq).where(EVENT_HEAD.c.run_id == run_id))
    return int(taken.scalar_one()) - count


def are_stored(connection: Connection, run_id: str, first: int, rows: Sequence[Mapping[str, Any]], seal: Seal) -> bool:
    """Whether these very events are stored from a number on; nobody else writes the log until the end of the transaction."""
    _take(connection, run_id, 0)  # a commit of which the answer was lost may be under way: this waits for it
    query = select(EVENT).where(EVENT.c.run_id == run_id, EVENT.c.seq >= first).order_by(EVENT.c.seq).limit(len(rows))
    opened = (open_texts(run_id, dict(row._mapping), TEXTS, seal) for row in connection.execute(query))
    found = [{name: row[name] for name in rows[0]} for row in opened]
    return found == [dict(row) for row in rows]


def select_events(
    run_id: str, kind: str | Collection[str] | None, node_id: str | None, after: int | None, limit: int | None
) -> Any:
    """The query for events, oldest first. A text that no database keeps is that of no event."""
    query = select(EVENT).where(EVENT.c.run_id == run_id).order_by(EVENT.c.seq)
    if kind is not None:
        kinds = [kind] if isinstance(kind, str) else sorted(kind)
        query = query.where(EVENT.c.kind.in_([each for each in kinds if is_storable_text(each)]))
    if node_id is not None:
        query = query.where(EVENT.c.node_id == node_id if is_storable_text(node_id) else false())
    if after is not None:
        query = query.where(EVENT.c.seq > bounded(after))
    return query if limit is None else query.limit(bounded(limit))
