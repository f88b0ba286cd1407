"""What is asked of runs that are listed, in the language of SQLAlchemy; see `database.statement`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, bindparam, func, select

from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, PENDING_ANSWER, RUN_NODE_STATE

__all__ = ["checkpoints", "lease", "newest", "node_states", "one_job", "suspended_nodes"]

RUN: Final[Any] = bindparam("of_run")
SHOWN: Final = tuple(
    JOB.c[name]
    for name in ("id", "status", "attempt", "created_at", "updated_at", "finished_at", "error", "set_aside", "degraded")
)
"""What is told of a run in a list."""


def newest(what: str, which: str) -> Any:
    """So `many` runs, the newest first.

    Args:
        what: is told of each: `shown`, or its `id` alone.
        which: `all`, or `some`, whose statuses are in `statuses`.
    """
    query = select(*SHOWN) if what == "shown" else select(JOB.c.id)
    if which == "some":
        query = query.where(JOB.c.status.in_(bindparam("statuses", expanding=True)))
    return query.order_by(JOB.c.created_at.desc(), JOB.c.id.desc()).limit(bindparam("many", type_=BigInteger))


def one_job() -> Any:
    """One run, as in a list."""
    return select(*SHOWN).where(JOB.c.id == RUN)


def lease() -> Any:
    """The row of a run's lease."""
    return select(LEASE).where(LEASE.c.run_id == RUN)


def node_states() -> Any:
    """The rows of `run_node_state` of a run."""
    return select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == RUN)


def suspended_nodes() -> Any:
    """The suspended nodes of runs that are not over, those that wait for the longest time first."""
    state, pending = RUN_NODE_STATE.c, PENDING_ANSWER.c
    told = (state[name] for name in ("run_id", "node_id", "suspension_reason", "suspended_at"))
    wakes = func.coalesce(pending.brought_at, state.wake_at, type_=state.wake_at.type).label("wake_at")
    brought = (pending.run_id == state.run_id) & (pending.node_id == state.node_id) & (pending.since == state.suspended_at)
    joined = RUN_NODE_STATE.join(JOB, JOB.c.id == state.run_id).outerjoin(PENDING_ANSWER, brought)
    columns = (*told, wakes, state.suspension_metadata_json, state.updated_at)
    query = select(*columns).select_from(joined).where(state.status == "suspended")
    waiting = query.where(JOB.c.status != "completed", JOB.c.status != "cancelled")
    return waiting.order_by(state.suspended_at, state.run_id, state.node_id)


def checkpoints() -> Any:
    """The checkpoints of a run, oldest first."""
    return select(CHECKPOINT).where(CHECKPOINT.c.run_id == RUN).order_by(CHECKPOINT.c.number)
