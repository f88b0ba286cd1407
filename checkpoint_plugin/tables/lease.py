"""The right to execute a run: taken for a while, renewed while it is executed, and let go."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from checkpoint_plugin.bounds import is_epoch
from checkpoint_plugin.database.compiled import Compiled
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.database.transaction import write_step
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.tables.holder import Holder
from hookspecs import LeaseLost, RunHeld, RunNotFound, shorten

__all__ = [
    "HELD",
    "HOLDER",
    "LOCK_LEASE",
    "TAKEN",
    "Lease",
    "Release",
    "check_unheld",
    "database_now",
    "first_epoch",
    "holder_of",
    "is_held",
    "is_own",
    "lease_lost",
    "lock_lease",
    "own_epoch",
    "release_lease",
    "renew_lease",
    "take_lease",
]

HOLDER: Final = ("owner", "host", "pid", "process_started")
"""The columns that tell who holds a run."""
HELD: Final = (*HOLDER, "expires_at")
"""Those that are empty where nobody does."""
TAKEN: Final = ("epoch", *HOLDER, "acquired_at", "expires_at")
"""Those that a taking writes."""
SQL: Final = "checkpoint_plugin.tables.row_sql"
LOCK_LEASE: Final = Statement(SQL, "lock_lease")
TAKE_LEASE: Final = Statement(SQL, "take_lease")
RENEW_LEASE: Final = Statement(SQL, "renew_lease")
SHOW_ALIVE: Final = Statement(SQL, "show_alive")
RELEASE_LEASE: Final = Statement(SQL, "release_lease")


@dataclass(frozen=True, slots=True)
class Lease:
    """A run that is held.

    Args:
        run_id: the run.
        holder: who holds it.
        epoch: under which its holder writes.
        generation: of the run's rows.
        expires_at: when it ends unless it is renewed, by the clock of the database.
        taken_from: who held it, and until when, where it was taken by force.
    """

    run_id: str
    holder: Holder
    epoch: int
    generation: int
    expires_at: datetime
    taken_from: str | None = None


def first_epoch() -> int:
    """The least epoch for a run that is made, or taken: the milliseconds since 1970.

    One that had its id before, and was deleted, had others, so that a worker of that one which wakes now writes nothing; nor
    does one that took the run in a part of the history that the database has forgotten, as an older copy in its place has.
    """
    return time.time_ns() // 1_000_000


def database_now(connection: Connection) -> datetime:
    """The time by the clock of the database, which several hosts share; that of SQLite is this host's."""
    if connection.kind == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.core.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return now


def holder_of(row: Any) -> Holder | None:
    """Who a row of the table names; `None` where nobody is named."""
    return None if row.owner is None else Holder(row.owner, row.host, row.pid, row.process_started)


def is_held(row: Any, now: datetime) -> bool:
    """Whether a row of the table tells of somebody who holds the run now."""
    holder = holder_of(row)
    return holder is not None and row.expires_at is not None and row.expires_at > now and not holder.is_gone


def is_own(connection: Connection, run_id: str, holder: Holder) -> bool:
    """Whether a run is held by this very holder; nobody else writes it until the end of the transaction."""
    return own_epoch(connection, run_id, holder) is not None


def own_epoch(connection: Connection, run_id: str, holder: Holder) -> int | None:
    """Under which epoch a run is held by this very holder, as `is_own`; `None` where it is not."""
    row = _lock(connection, run_id)
    return row.epoch if row is not None and holder_of(row) == holder else None


def take_lease(
    connection: Connection, run_id: str, holder: Holder, seconds: float, *, steal: bool = False, shown: str = "the store"
) -> Lease:
    """Take a run that nobody holds. Who wrote it before writes no more.

    Args:
        connection: in a transaction that writes.
        run_id: the run.
        holder: who takes it.
        seconds: how long, unless it is renewed.
        steal: take it from whoever holds it.
        shown: the store, for an error.

    Raises:
        RunNotFound: there is no such run.
        RunHeld: somebody holds it; nothing was changed.
        StoreDamaged: the row has an epoch or a generation that none can follow.
    """
    row = _lock(connection, run_id)
    if row is None:
        raise RunNotFound(run_id, shown)
    for name, number in (("epoch", row.epoch), ("generation", row.generation)):
        if not is_epoch(number):
            raise StoreDamaged(run_id, f"the {name} of its lease is {shorten(number, 200)}")
    now, before = database_now(connection), holder_of(row)
    held = is_held(row, now)
    if held and not steal:
        raise RunHeld(run_id, str(before), row.expires_at)
    columns, epoch = _columns(holder, now, seconds), max(row.epoch + 1, first_epoch())
    connection.execute(TAKE_LEASE, {"of_run": run_id, "epoch": epoch, **columns})
    taken_from = f"{before}, who held it until {row.expires_at.isoformat(timespec='seconds')}" if held else None
    return Lease(run_id, holder, epoch, row.generation, columns["expires_at"], taken_from)


def check_unheld(connection: Connection, run_id: str) -> None:
    """Refuse a run that somebody holds; nobody takes it until the end of the transaction.

    Args:
        connection: in a transaction that writes.
        run_id: the run.

    Raises:
        RunHeld: somebody holds it.
    """
    row = _lock(connection, run_id)
    if row is not None and is_held(row, database_now(connection)):
        raise RunHeld(run_id, str(holder_of(row)), row.expires_at)


def lock_lease(connection: Connection, run_id: str, epoch: int) -> int:
    """Lock a run until the end of the transaction; nobody else writes it meanwhile.

    Returns:
        The generation of its rows.

    Raises:
        LeaseLost: the epoch is over; nothing may be written under it.
    """
    row = _lock(connection, run_id)
    if row is None or row.epoch != epoch:
        raise lease_lost(run_id, epoch, row)
    generation: int = row.generation
    return generation


def renew_lease(connection: Connection, lease: Lease, seconds: float) -> datetime:
    """Hold a run for longer.

    Returns:
        When it ends now.

    Raises:
        LeaseLost: another worker took it, or somebody cancelled the run.
    """
    lock_lease(connection, lease.run_id, lease.epoch)
    now = database_now(connection)
    until = now + timedelta(seconds=seconds)
    connection.execute(RENEW_LEASE, {"of_run": lease.run_id, "expires_at": until})
    if connection.execute(SHOW_ALIVE, {"of_run": lease.run_id, "heartbeat_at": now}).rowcount != 1:
        raise LeaseLost(lease.run_id, lease.epoch, cancelled=True)
    return until


def release_lease(connection: Connection, run_id: str, epoch: int) -> None:
    """Let a run go; one that another worker took is left to it."""
    write_step(connection, Release(run_id, epoch))


class Release:
    """Lets a run go, as `release_lease`, by itself.

    Args:
        run_id: the run.
        epoch: under which it was held.
    """

    def __init__(self, run_id: str, epoch: int) -> None:
        self._values = run_id, epoch

    def is_compiled(self) -> bool:
        """Whether `statement` only has to fill in values."""
        return True

    def compile(self) -> None:
        """Nothing: it is so simple that it takes no time."""

    def statement(self) -> tuple[str, tuple[Any, ...]]:
        """For PostgreSQL."""
        statement = _release("postgresql")
        return statement.sql, statement.parameters(self._values)

    def outcome(self, row: Any) -> bool:
        """That it was done: who has lost the run lets nothing go."""
        return True

    def write_sqlite(self, connection: Any) -> bool:
        """On a connection of the standard library."""
        statement = _release("sqlite")
        connection.execute(statement.sql, statement.parameters(self._values))
        return True


@cache
def _release(kind: str) -> Compiled:
    return Compiled(RELEASE_LEASE.text(kind), ("of_run", "under"))


def _columns(holder: Holder, now: datetime, seconds: float) -> dict[str, Any]:
    return {
        "owner": holder.owner,
        "host": holder.host,
        "pid": holder.pid,
        "process_started": holder.started,
        "acquired_at": now,
        "expires_at": now + timedelta(seconds=seconds),
    }


def _lock(connection: Connection, run_id: str) -> Any:
    # Locked before it is looked at: of two that take a run at once, the second sees what the first has written.
    return connection.execute(LOCK_LEASE, {"of_run": run_id}).first()


def lease_lost(run_id: str, epoch: int, row: Any) -> LeaseLost:
    """What to tell a worker whose epoch is over, by the row of the table as it is now."""
    holder = None if row is None else holder_of(row)
    return LeaseLost(run_id, epoch, None if row is None else row.epoch, None if holder is None else str(holder))
