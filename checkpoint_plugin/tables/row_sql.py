"""What is asked of the rows that begin, hold and end a run, in the language of SQLAlchemy; see `database.statement`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Interval, Table, bindparam, case, func, insert, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.database.raw_rows import raw
from checkpoint_plugin.models import (
    COMPLETED_NODES,
    JOB,
    LEASE,
    PENDING_ANSWER,
    RUN_DEFINITION,
    RUN_KEY,
    RUN_NODE_STATE,
    SCHEMA,
)
from checkpoint_plugin.tables.first_rows import GIVEN, TIMES
from checkpoint_plugin.tables.job import STANDING
from checkpoint_plugin.tables.lease import HELD, TAKEN
from checkpoint_plugin.tables.run_definition import DEFINED, TEXTS
from checkpoint_plugin.tables.schema import SCHEMA_VERSION

__all__ = [
    "JOBS",
    "change_definition",
    "drop_answer",
    "drop_any_answer",
    "drop_blocks",
    "execution_strategy",
    "first_block",
    "first_row",
    "first_rows",
    "first_version",
    "held_leases",
    "keys_of_run",
    "keys_of_stored_run",
    "lock_job",
    "lock_lease",
    "pending_answers",
    "put_answer",
    "release_lease",
    "renew_lease",
    "schema_version",
    "set_newest",
    "show_alive",
    "store_id",
    "stored_job",
    "take_back",
    "take_lease",
    "update_job",
    "waiting_node",
]

RUN: Final[Any] = bindparam("of_run")
NODE: Final[Any] = bindparam("of_node")
TABLES: Final[Mapping[str, Table]] = {"job": JOB, "lease": LEASE, "definition": RUN_DEFINITION, "key": RUN_KEY}
"""The tables of the first rows of a run."""
JOBS: Final = select(
    *(column for column in JOB.columns if column.name not in TEXTS),
    *(func.coalesce(JOB.c[name], RUN_DEFINITION.c[name]).label(name) for name in TEXTS),
).outerjoin(RUN_DEFINITION, RUN_DEFINITION.c.run_id == JOB.c.id)
"""The rows of runs, with the texts wherever they stand."""


def lock_lease() -> Any:
    """The row of a run's lease, locked until the end of the transaction."""
    return select(LEASE).where(LEASE.c.run_id == RUN).with_for_update()


def take_lease() -> Any:
    """Name another holder, under another epoch."""
    return update(LEASE).where(LEASE.c.run_id == RUN).values({name: bindparam(name) for name in TAKEN})


def renew_lease() -> Any:
    """Let it end later; of a run that has completed since the last sign of life nobody holds the lease any more."""
    return update(LEASE).where(LEASE.c.run_id == RUN, LEASE.c.owner.is_not(None)).values(expires_at=bindparam("expires_at"))


def show_alive() -> Any:
    """A sign of life in a run's row, where it is not cancelled."""
    alive = update(JOB).where(JOB.c.id == RUN, JOB.c.status != "cancelled")
    return alive.values(heartbeat_at=bindparam("heartbeat_at"))


def release_lease() -> Any:
    """Name nobody, where it is still that of this epoch."""
    nobody: dict[str, Any] = dict.fromkeys(HELD, null())
    return update(LEASE).where(LEASE.c.run_id == RUN, LEASE.c.epoch == bindparam("under")).values(nobody)


def set_newest() -> Any:
    """Name the newest checkpoint."""
    return update(LEASE).where(LEASE.c.run_id == RUN).values(newest_number=bindparam("newest_number"))


def lock_job() -> Any:
    """How a run stands, its row locked until the end of the transaction."""
    return select(JOB.c.attempt, *(JOB.c[name] for name in STANDING)).where(JOB.c.id == RUN).with_for_update()


def update_job() -> Any:
    """Change any columns of a run's row."""
    changed = update(JOB).where(JOB.c.id == RUN).values(version=JOB.c.version + 1)
    return changed.execution_options(any_column=True)


def take_back() -> Any:
    """A run that was set aside is one of those that are recovered again: who resumes it by hand wants it."""
    aside = update(JOB).where(JOB.c.id == RUN, JOB.c.set_aside.is_not(None))
    return aside.values(set_aside=None, retry_count=0)


def execution_strategy() -> Any:
    """What executes a run."""
    return select(JOB.c.execution_strategy).where(JOB.c.id == RUN)


def stored_job() -> Any:
    """What a resume reads of a run's row, and what it was started with."""
    columns = (JOB.c.attempt, JOB.c.status, JOB.c.execution_strategy, RUN_DEFINITION.c.body, RUN_DEFINITION.c.digest)
    joined = JOB.outerjoin(RUN_DEFINITION, RUN_DEFINITION.c.run_id == JOB.c.id)
    return select(*columns).select_from(joined).where(JOB.c.id == RUN)


def change_definition() -> Any:
    """Write anew what a run is started with."""
    return update(RUN_DEFINITION).where(RUN_DEFINITION.c.run_id == RUN).values({name: bindparam(name) for name in DEFINED})


def keys_of_run() -> Any:
    """The row of a run's keys."""
    return select(RUN_KEY.c.key_id, RUN_KEY.c.wrapped).where(RUN_KEY.c.run_id == RUN)


def keys_of_stored_run() -> Any:
    """The same, of a run that is there: one row, empty where it is not encrypted."""
    joined = JOB.outerjoin(RUN_KEY, RUN_KEY.c.run_id == JOB.c.id)
    return select(RUN_KEY.c.key_id, RUN_KEY.c.wrapped).select_from(joined).where(JOB.c.id == RUN)


def store_id() -> Any:
    """What tells the store from others."""
    return select(SCHEMA.c.store_id)


def first_block() -> Any:
    """One row where blocks of completed nodes are told."""
    return select(COMPLETED_NODES.c.number).where(COMPLETED_NODES.c.run_id == RUN).limit(1)


def drop_blocks() -> Any:
    """Forget them."""
    return COMPLETED_NODES.delete().where(COMPLETED_NODES.c.run_id == RUN)


def waiting_node() -> Any:
    """What a node waits for, and what was brought for that; one row where there is such a run."""
    state, pending = RUN_NODE_STATE.c, PENDING_ANSWER.c
    columns = (JOB.c.status.label("run_status"), state.status, state.suspended_at, state.wake_at, state.updated_at)
    node = JOB.outerjoin(RUN_NODE_STATE, (state.run_id == JOB.c.id) & (state.node_id == NODE))
    brought = (pending.run_id == JOB.c.id) & (pending.node_id == NODE) & (pending.since == state.suspended_at)
    both = node.outerjoin(PENDING_ANSWER, brought)
    return select(*columns, pending.body, pending.digest).select_from(both).where(JOB.c.id == RUN)


def put_answer() -> Any:
    """Keep an answer."""
    given: dict[str, Any] = {column.name: bindparam(column.name) for column in PENDING_ANSWER.c}
    return insert(PENDING_ANSWER).values({**given, "run_id": RUN, "node_id": NODE})


def pending_answers() -> Any:
    """The answers that are kept for a run; a time that is none is damage of its own row alone."""
    pending = PENDING_ANSWER.c
    return select(pending.node_id, raw(pending.since), pending.body, pending.digest).where(pending.run_id == RUN)


def drop_answer() -> Any:
    """Forget the answer for what a node has waited for."""
    return drop_any_answer().where(PENDING_ANSWER.c.since == bindparam("since"))


def drop_any_answer() -> Any:
    """Forget an answer for whatever a node has waited for, also by the clock of another host."""
    return PENDING_ANSWER.delete().where(PENDING_ANSWER.c.run_id == RUN, PENDING_ANSWER.c.node_id == NODE)


def schema_version() -> Any:
    """The layout of the tables."""
    return select(SCHEMA.c.version)


def first_version() -> Any:
    """Write the layout of tables that were just made."""
    return insert(SCHEMA).values(id=1, version=bindparam("version"), store_id=bindparam("store_id"))


def held_leases() -> Any:
    """Who executes what; every layout that can be upgraded has these columns."""
    return select(*(LEASE.c[name] for name in ("run_id", *HELD))).where(LEASE.c.owner.is_not(None))


def first_row(name: str) -> Any:
    """One of the first rows of a run, for SQLite; the first of them is not written where there is such a run."""
    columns = (*GIVEN[name], *(TIMES if name == "lease" else ()))
    new = sqlite.insert(TABLES[name]).values({column: bindparam(column) for column in columns})
    return new.on_conflict_do_nothing() if name == "job" else new


def first_rows(names: Sequence[str]) -> Any:
    """All of them as one statement for PostgreSQL: of two that start the same run at once, a look first shows neither the other.

    Args:
        names: of `TABLES`. The parameters are `held_for`, and each column behind the name of its table.
    """
    held_for, now = bindparam("held_for", type_=Interval), func.clock_timestamp()
    parts: list[Any] = []
    for name in names:
        table = TABLES[name]
        values: dict[str, Any] = {column: bindparam(f"{name}_{column}", type_=table.c[column].type) for column in GIVEN[name]}
        if name == "lease":
            values.update(zip(TIMES, (case((held_for.is_not(None), now)), now + held_for), strict=True))
        if name == "job":
            values["heartbeat_at"] = case((held_for.is_not(None), now), else_=values["heartbeat_at"])
            fits = select(*values.values()).where(SCHEMA.c.version == SCHEMA_VERSION)
            new = postgresql.insert(table).from_select(list(values), fits).on_conflict_do_nothing()
            parts.append(new.returning(JOB.c.id).cte("new_job"))
            continue
        row = insert(table).from_select(list(values), select(*values.values()).select_from(parts[0]))
        parts.append((row.returning(LEASE.c.expires_at) if name == "lease" else row).cte(f"new_{name}"))
    current = func.count(SCHEMA.c.id).filter(SCHEMA.c.version == SCHEMA_VERSION)
    told = [select(part).scalar_subquery() for part in (current, func.count(parts[0].c.id), parts[1].c.expires_at)]
    return select(*told).add_cte(*parts)
