"""Runs that nobody executes though there is something to do: found, and claimed by one recovery each.

A claim is a mark in the run's row, and no right to write: that is the lease, which the process that goes on with the run takes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, case, exists, func, or_, select, update

from checkpoint_plugin.lease import database_now, is_held
from checkpoint_plugin.models import JOB, LEASE, RUN_NODE_STATE

__all__ = ["CLAIM_SECONDS", "Claim", "claim_run", "end_claim", "fetch_waiting", "keep_claim"]

CLAIM_SECONDS: Final = 30.0
"""How long a claim counts after its last sign of life: who claimed the run was killed, and another recovery may."""
STUCK: Final = ("running", "recovering")


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
    """

    run_id: str
    worker_id: str
    status: str
    attempt: int
    tries: int
    strategy: str | None
    set_aside: str | None = None


def fetch_waiting(
    connection: Connection, max_age: timedelta, *, due: bool = True, strategies: Collection[str] | None = None
) -> Sequence[Any]:
    """The rows of runs that nobody executes though there is something to do, the oldest first.

    Args:
        connection: in any transaction.
        max_age: for how long a stuck run must have given no sign of life.
        due: also suspended runs of which a node's wake time has come; a node that was answered counts as one.
        strategies: only runs of these; `None` for all.
    """
    now = database_now(connection)
    return [row for row in connection.execute(_waiting(now, max_age, due, strategies)) if not is_held(row, now)]


def claim_run(
    connection: Connection,
    worker_id: str,
    max_age: timedelta,
    *,
    max_attempts: int,
    strategies: Collection[str] | None,
    without: Collection[str],
) -> Claim | None:
    """Claim a run, in a transaction that writes. Of several recoveries one claims it: the others pass over rows that are locked,
    and a row that was written since it was looked at is left alone.

    Args:
        connection: in a transaction that writes.
        worker_id: who claims.
        max_age: as `fetch_waiting`.
        max_attempts: a run of which so many recoveries came to no end is set aside.
        strategies: as `fetch_waiting`.
        without: runs to leave alone.

    Returns:
        The claim; `None` when there is nothing to do.
    """
    now = database_now(connection)
    query = _waiting(now, max_age, True, strategies)
    if without:
        query = query.where(JOB.c.id.not_in(sorted(without)))
    for row in connection.execute(query.with_for_update(of=LEASE, skip_locked=True)):
        if is_held(row, now):
            continue
        aside = _set_aside(row, max_attempts)
        values: dict[str, Any] = {"updated_at": now, "version": JOB.c.version + 1}
        if aside is None:
            values.update(status="recovering", worker_id=worker_id, heartbeat_at=now, retry_count=row.retry_count + 1)
        else:
            values.update(status="failed", set_aside=aside, failed_at=now, finished_at=now)
        mine = update(JOB).where(JOB.c.id == row.id, JOB.c.version == row.version)
        if connection.execute(mine.values(**values)).rowcount == 1:
            return Claim(row.id, worker_id, row.status, row.attempt, row.retry_count, row.execution_strategy, aside)
    return None


def keep_claim(connection: Connection, claim: Claim) -> None:
    """Give a sign of life, as long as nobody executes the run."""
    now = database_now(connection)
    mine = (JOB.c.id == claim.run_id, JOB.c.status == "recovering", JOB.c.worker_id == claim.worker_id)
    connection.execute(update(JOB).where(*mine).values(heartbeat_at=now))


def end_claim(connection: Connection, claim: Claim, *, counts: bool | None) -> None:
    """Let a run go. One that was not gone on with stands again as it did.

    Args:
        connection: in a transaction that writes.
        claim: of the run.
        counts: False when the recovery did not begin, None when it came to an end of whatever kind, True when it died.
    """
    lease = connection.execute(select(LEASE).where(LEASE.c.run_id == claim.run_id).with_for_update()).first()
    if lease is None or is_held(lease, database_now(connection)):
        return
    # Who began an attempt and was refused has put the status back that it found, which is that of a claim, under its own name.
    ours = or_(JOB.c.worker_id == claim.worker_id, JOB.c.attempt > claim.attempt)
    back = "running" if claim.status == "recovering" else claim.status
    values = {"status": back, "worker_id": None, "heartbeat_at": None, "version": JOB.c.version + 1}
    connection.execute(update(JOB).where(JOB.c.id == claim.run_id, JOB.c.status == "recovering", ours).values(**values))
    if not counts:
        tries = 0 if counts is None else claim.tries
        counted = (JOB.c.id == claim.run_id, JOB.c.retry_count == claim.tries + 1)
        connection.execute(update(JOB).where(*counted).values(retry_count=tries, version=JOB.c.version + 1))


def _waiting(now: datetime, max_age: timedelta, due: bool, strategies: Collection[str] | None) -> Any:
    seen = func.coalesce(JOB.c.heartbeat_at, JOB.c.updated_at)
    old = now - timedelta(seconds=CLAIM_SECONDS)
    stuck = and_(
        JOB.c.status.in_(STUCK),
        seen <= now - max_age,
        or_(JOB.c.status == "running", seen <= case((JOB.c.worker_id.is_(None), now), else_=old)),
    )
    woken = exists().where(
        RUN_NODE_STATE.c.run_id == JOB.c.id, RUN_NODE_STATE.c.status == "suspended", RUN_NODE_STATE.c.wake_at <= now
    )
    asleep = and_(JOB.c.status == "suspended", woken)
    columns = (JOB.c.id, JOB.c.status, JOB.c.attempt, JOB.c.retry_count, JOB.c.execution_strategy, JOB.c.version)
    query = select(*columns, *LEASE.columns).join(LEASE, LEASE.c.run_id == JOB.c.id)
    query = query.where(or_(stuck, asleep) if due else stuck, JOB.c.set_aside.is_(None))
    if strategies is not None:
        query = query.where(JOB.c.execution_strategy.in_(sorted(strategies)))
    return query.order_by(JOB.c.updated_at, JOB.c.id)


def _set_aside(row: Any, max_attempts: int) -> str | None:
    if not row.id:
        return "its id is empty, so it cannot be resumed"
    if row.retry_count >= max_attempts:
        return f"it was resumed {row.retry_count} times and came to no end"
    return None
