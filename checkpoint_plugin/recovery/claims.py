"""Runs that nobody executes though there is something to do: found, and claimed by one recovery each.

A claim is a mark in the run's row, and no right to write: that is the lease, which the process that goes on with the run takes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, case, exists, func, or_, select, true, union_all, update

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import JOB, LEASE, PENDING_ANSWER, RUN_NODE_STATE
from checkpoint_plugin.status import EXECUTED
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import database_now, is_held

__all__ = [
    "CLAIM_SECONDS",
    "Claim",
    "Search",
    "claim_run",
    "end_claim",
    "fetch_waiting",
    "is_claimed",
    "is_left",
    "keep_claim",
    "may_wait",
]

CLAIM_SECONDS: Final = 30.0
"""How long a claim counts after its last sign of life: who claimed the run was killed, and another recovery may."""
LOOKED_AT: Final = 4
"""Rows that a claim locks at a time: others pass over all of them."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that one recovery goes on with.

    Args:
        run_id: the run.
        worker_id: of the recovery.
        status: how the run stood.
        attempt: the newest of the run when it was claimed.
        tries: recoveries that came to no end, without this one.
        strategy: `execution_strategy` of the run.
        set_aside: why it is left alone from now on; nothing else is to be done with it then.
        damaged: what is wrong with its rows, which were not changed; nothing else is to be done with it then.
        at: when it was claimed, by the clock of the database.
    """

    run_id: str
    worker_id: str
    status: str
    attempt: int
    tries: int
    strategy: str | None
    set_aside: str | None = None
    damaged: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """Which runs to go on with, of those that nobody executes though there is something to do.

    Args:
        max_age: for how long a stuck run must have given no sign of life.
        paused: also runs that were stopped, by a signal for example.
        due: also suspended runs of which a node's wake time has come; a node that was answered counts as one.
        strategies: only runs of these; `None` for all.
        before: only runs that gave no sign of life since, by the clock of the database.
        without: runs to leave alone.
    """

    max_age: timedelta
    paused: bool = False
    due: bool = True
    strategies: Collection[str] | None = None
    before: datetime | None = None
    without: Collection[str] = ()


def fetch_waiting(connection: Connection, search: Search) -> Sequence[Any]:
    """The rows of runs that wait, the oldest first."""
    now = database_now(connection)
    without = set(search.without)
    rows = [row for row in connection.execute(_waiting(now, search)).all() if row.id not in without]
    return [row for row in rows if not _is_held(connection, row.id, now)]


def may_wait(connection: Connection, search: Search) -> bool:
    """Whether a claim is worth while: it locks, a look does not."""
    return bool(_first_ids(connection, database_now(connection), search, set(search.without), 1))


def claim_run(connection: Connection, worker_id: str, search: Search, max_attempts: int) -> Claim | None:
    """Claim a run. Of several recoveries one claims it: the others pass over rows that are locked, and a row that was written
    since it was looked at is left alone.

    Args:
        connection: in a transaction that writes.
        worker_id: who claims.
        search: for which runs.
        max_attempts: a run of which so many recoveries came to no end is set aside.

    Returns:
        The claim; `None` when there is nothing to do.
    """
    now, seen, most = database_now(connection), set(search.without), LOOKED_AT
    while found := _first_ids(connection, now, search, seen, most):
        seen.update(found)
        most *= 2  # each look goes through all that wait, and this host may execute thousands of them
        for first in range(0, len(found), LOOKED_AT):
            query = _waiting(now, search).where(JOB.c.id.in_(found[first : first + LOOKED_AT]))
            for row in connection.execute(query.with_for_update(of=LEASE, skip_locked=True)).all():
                try:
                    with telling_damage(str(row.id), "its row"):
                        held = _is_held(connection, row.id, now)
                        claim = None if held else _mark(connection, row, worker_id, now, max_attempts)
                except StoreDamaged as error:  # the other runs are recovered all the same
                    return Claim(error.run_id, worker_id, "", 0, 0, None, damaged=str(error))
                if claim is not None:
                    return claim
    return None


def _first_ids(connection: Connection, now: datetime, search: Search, without: Set[str], most: int) -> Sequence[str]:
    """The ids of the oldest runs that wait, but for some: these may be more than a statement of PostgreSQL takes arguments."""
    query = _waiting(now, search).with_only_columns(JOB.c.id).limit(len(without) + most)
    return [run_id for run_id in connection.execute(query).scalars() if run_id not in without][:most]


def _is_held(connection: Connection, run_id: str, now: datetime) -> bool:
    """Whether somebody holds a run; its lease is read apart, so that one that is damaged is told as that of this run."""
    with telling_damage(str(run_id), "the row of its lease"):
        row = connection.execute(select(LEASE).where(LEASE.c.run_id == run_id)).first()
        return row is not None and is_held(row, now)


def _mark(connection: Connection, row: Any, worker_id: str, now: datetime, max_attempts: int) -> Claim | None:
    aside = _set_aside(row, max_attempts)
    values: dict[str, Any] = {"updated_at": now, "version": JOB.c.version + 1}
    if aside is None:
        values.update(status="recovering", worker_id=worker_id, heartbeat_at=now, retry_count=row.retry_count + 1)
    else:
        values.update(status="failed", set_aside=aside, failed_at=now, finished_at=now)
    mine = update(JOB).where(JOB.c.id == row.id, JOB.c.version == row.version)
    if connection.execute(mine.values(**values)).rowcount != 1:
        return None
    return Claim(row.id, worker_id, row.status, row.attempt, row.retry_count, row.execution_strategy, aside, at=now)


def is_claimed(connection: Connection, claim: Claim) -> bool:
    """Whether a claim of which nobody heard was made all the same; nobody else writes the run until the transaction ends."""
    connection.execute(select(LEASE.c.epoch).where(LEASE.c.run_id == claim.run_id).with_for_update())
    row = connection.execute(select(JOB).where(JOB.c.id == claim.run_id)).first()
    if row is None or claim.damaged is not None:
        return False
    if claim.set_aside is not None:
        return bool(row.set_aside == claim.set_aside)
    return bool((row.status, row.worker_id, row.retry_count) == ("recovering", claim.worker_id, claim.tries + 1))


def is_left(connection: Connection, run_id: str, attempt: int) -> bool:
    """Whether this attempt of a run is told as running, and nobody holds it: its process has left."""
    row = connection.execute(select(JOB.c.attempt, JOB.c.status).where(JOB.c.id == run_id)).first()
    return row is not None and tuple(row) == (attempt, "running") and not _is_held(connection, run_id, database_now(connection))


def keep_claim(connection: Connection, claim: Claim) -> None:
    """Give a sign of life, as long as nobody executes the run."""
    now = database_now(connection)
    mine = (JOB.c.id == claim.run_id, JOB.c.status == "recovering", JOB.c.worker_id == claim.worker_id)
    connection.execute(update(JOB).where(*mine).values(heartbeat_at=now))


def end_claim(connection: Connection, claim: Claim, *, counts: bool | None, stopped: bool = False) -> None:
    """Let a run go. One that was not gone on with stands again as it did.

    Args:
        connection: in a transaction that writes.
        claim: of the run.
        counts: False when the recovery did not begin, None when it came to an end of whatever kind, True when it died. One that
            leaves an answer that it was there for, because that cannot be read, counts as if it had died: the next would, too.
        stopped: the recovery was told to stop: what was paused by that is left for the next one.
    """
    lease = connection.execute(select(LEASE).where(LEASE.c.run_id == claim.run_id).with_for_update()).first()
    if lease is None:
        return
    now = database_now(connection)
    # Who began an attempt and was refused has put the status back that it found, which is that of a claim, under its own name.
    # Whoever has claimed the run since, because that attempt died, has counted one more.
    refused = and_(JOB.c.attempt == claim.attempt + 1, JOB.c.retry_count == claim.tries + 1)
    ours = or_(JOB.c.worker_id == claim.worker_id, refused)
    back = "running" if claim.status == "recovering" else claim.status
    # By the database's clock: an attempt has written that of its host, which may be an hour behind.
    values = {"status": back, "worker_id": None, "heartbeat_at": None, "updated_at": now, "version": JOB.c.version + 1}
    connection.execute(update(JOB).where(JOB.c.id == claim.run_id, JOB.c.status == "recovering", ours).values(**values))
    # So is the sign of life of a run that is saved by hand; one that sleeps again would be found by the same pass for ever.
    connection.execute(update(JOB).where(JOB.c.id == claim.run_id, JOB.c.status == "suspended").values(heartbeat_at=now))
    if stopped and not is_held(lease, now):
        paused = (JOB.c.id == claim.run_id, JOB.c.status == "paused")
        left = {"status": "recovering", "worker_id": None, "finished_at": None, "version": JOB.c.version + 1}
        connection.execute(update(JOB).where(*paused).values(**left))
    if counts is None and claim.at is not None and connection.execute(_unread(claim)).first() is not None:
        counts = True
    if not counts:
        tries = 0 if counts is None else claim.tries
        counted = (JOB.c.id == claim.run_id, JOB.c.retry_count == claim.tries + 1)
        connection.execute(update(JOB).where(*counted).values(retry_count=tries, version=JOB.c.version + 1))


def _brought() -> Any:
    """Whether an answer is for what a node still waits for."""
    state, pending = RUN_NODE_STATE.c, PENDING_ANSWER.c
    of_node = (state.run_id == pending.run_id, state.node_id == pending.node_id, state.suspended_at == pending.since)
    return exists().where(*of_node, state.status == "suspended")


def _unread(claim: Claim) -> Any:
    """The answers that wait for a suspended run since before it was claimed."""
    query = select(PENDING_ANSWER.c.node_id).where(_brought(), PENDING_ANSWER.c.brought_at <= claim.at)
    suspended = exists().where(JOB.c.id == claim.run_id, JOB.c.status == "suspended")
    return query.where(PENDING_ANSWER.c.run_id == claim.run_id, suspended)


def _waiting(now: datetime, search: Search) -> Any:
    """The rows of runs that wait, also of those to leave alone."""
    seen = func.coalesce(JOB.c.heartbeat_at, JOB.c.updated_at)
    old = now - timedelta(seconds=CLAIM_SECONDS)
    stuck = and_(
        JOB.c.status.in_((*EXECUTED, "paused") if search.paused else EXECUTED),
        seen <= now - search.max_age,
        or_(JOB.c.status != "recovering", JOB.c.worker_id.is_(None), seen <= old),  # else it is claimed
    )
    state = RUN_NODE_STATE.c
    over = or_(state.wake_at <= now, state.wake_at <= state.updated_at)  # the latter tells of an answer, by the clock of a host
    woken = select(state.run_id).where(state.wake_at.is_not(None), state.status == "suspended", over)
    brought = select(PENDING_ANSWER.c.run_id).where(_brought())  # as the run was about to suspend
    # Found by what there is to do: a service has a thousand runs that sleep for each that is due. The case is for SQLite, which
    # would go through them all by the index of the status.
    found = [select(JOB.c.id).where(stuck), *((woken, brought) if search.due else ())]
    # Whether a holder of this host still exists, no database knows.
    free = or_(
        LEASE.c.owner.is_(None), LEASE.c.expires_at.is_(None), LEASE.c.expires_at <= now, LEASE.c.host == Holder.here().host
    )
    columns = (JOB.c.id, JOB.c.status, JOB.c.attempt, JOB.c.retry_count, JOB.c.execution_strategy, JOB.c.version)
    query = select(*columns).join(LEASE, LEASE.c.run_id == JOB.c.id)
    due = (JOB.c.id.in_(union_all(*found)), case((JOB.c.status == "suspended", true()), else_=stuck))
    query = query.where(*due, JOB.c.set_aside.is_(None), free)
    if search.strategies is not None:
        query = query.where(JOB.c.execution_strategy.in_(sorted(search.strategies)))
    if search.before is not None:
        query = query.where(seen < search.before)
    return query.order_by(JOB.c.updated_at, JOB.c.id)


def _set_aside(row: Any, max_attempts: int) -> str | None:
    if not row.id:
        return "its id is empty, so it cannot be resumed"
    if row.retry_count >= max_attempts:
        return f"it was resumed {row.retry_count} times and came to no end"
    return None
