"""The statements of a save: on SQLite one a table, on PostgreSQL a single one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from checkpoint_plugin.database.compiled import Compiled, Inserts
from checkpoint_plugin.database.statement import Statement, table_columns
from checkpoint_plugin.tables.suspensions import JOB_COLUMNS as SUSPENSION_COLUMNS
from checkpoint_plugin.tables.suspensions import NODE_COLUMNS

__all__ = [
    "FENCE",
    "HEAD",
    "JOB_COLUMNS",
    "JOB_VALUES",
    "MANY",
    "ONE",
    "SAVES",
    "SHARED",
    "SHOWN",
    "SINCE",
    "STATE",
    "TIMED",
    "Kind",
    "Rows",
    "SqliteStatements",
    "prepare_saves",
    "rows_statement",
    "save_statement",
    "sqlite_statements",
]

FENCE: Final = ("run_id", "number", "epoch", "generation", "previous")
"""The number of the checkpoint, and what must be so for anything to be written."""
SINCE: Final = ("since",)
"""The transaction since which nobody else may have written the run, where a save asks for that."""
SHARED: Final = ("run_id", "number", "updated_at")
"""What all rows of a save have in common."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table that a save writes.

    Args:
        table: which.
        shared: columns of `SHARED` that it has.
        columns: the others, in the order of the rows.
    """

    table: str
    shared: tuple[str, ...]
    columns: tuple[str, ...]


STATE: Final = ("node_id", "status", "attempt", "started_at", "completed_at", "failed_at", "last_error")
SHOWN: Final = ("outputs_json", "resume_state_json", "scheduled_at")
"""What the state of a node of a run that is saved by hand tells beside."""
MANY: Final[Mapping[str, Rows]] = {
    "payloads": Rows("payload", ("run_id",), ("digest", "encoding", "size", "body", "series", "series_end", "blob")),
    "segments": Rows("payload_segment", ("run_id",), ("series", "start", "size", "encoding", "body")),
    "nodes": Rows("node_version", ("run_id", "number"), ("node_id", "body", "mentions", "digest")),
    "changed": Rows("node_version", ("run_id", "number"), ("node_id", "body", "mentions", "digest", "continues")),
    "completed": Rows("completed_nodes", ("run_id", "number"), ("body", "digest")),
    "items": Rows("output_segment", ("run_id", "number"), ("node_id", "log", "first", "count", "body", "mentions", "digest")),
    "states": Rows("run_node_state", SHARED, STATE),
    "waiting": Rows("run_node_state", SHARED, (*STATE, *NODE_COLUMNS)),
    "shown": Rows("run_node_state", SHARED, (*STATE, *SHOWN)),
}
"""The rows of a save by name: `changed` are rows of nodes that tell only what changed since an earlier one, `waiting` states of
nodes that are suspended, of which there is more to tell, `shown` those of runs that are saved by hand."""
TIMED: Final = frozenset({"states", "waiting", "shown"})
"""Rows that tell when they were written, the last of `SHARED`."""


class Kind(NamedTuple):
    """What `save_statement` is asked for.

    Args:
        names: of `MANY`, what is written, in that order.
        job: whether the run's row is written.
        since: whether it is written only where nobody else wrote the run since a transaction that is known; the run's row then
            tells when, and the statement gives its own transaction.
    """

    names: tuple[str, ...]
    job: bool
    since: bool = False

    @property
    def is_timed(self) -> bool:
        """Whether anything tells when it was written."""
        return self.since or not TIMED.isdisjoint(self.names)


ONE: Final = table_columns("checkpoint")
"""The columns of the checkpoint's own row."""
HEAD: Final = tuple(f"head_{name}" for name in ONE)
JOB_COLUMNS: Final = (
    "has_checkpoint",
    "status",
    "updated_at",
    "finished_at",
    "completed_at",
    "failed_at",
    "error",
    "error_message",
    *SUSPENSION_COLUMNS,
)
"""What a save changes in the run's row, where the run does not just go on: then it changes nothing there."""
JOB_VALUES: Final = tuple(f"job_{name}" for name in JOB_COLUMNS)


SQL: Final = "checkpoint_plugin.saving.save_sql"
ADVANCE: Final = Statement(SQL, "advance")
INSERTS: Final = {name: Statement(SQL, "insert_rows", name) for name in MANY}
CHECKPOINT: Final = Statement(SQL, "insert_checkpoint")
JOB: Final = Statement(SQL, "update_job")


class SqliteStatements:
    """One a table; the transaction itself is the lock."""

    def __init__(self) -> None:
        self.advance = Compiled(ADVANCE.on_sqlite, FENCE)
        self.many = {
            name: Inserts(INSERTS[name].on_sqlite, (*rows.shared, *rows.columns), len(rows.shared)) for name, rows in MANY.items()
        }
        self.checkpoint = Compiled(CHECKPOINT.on_sqlite, HEAD)
        self.job = Compiled(JOB.on_sqlite, ("run_id", *JOB_VALUES))


@cache
def sqlite_statements() -> SqliteStatements:
    """Those for SQLite."""
    return SqliteStatements()


SAVES: Final[dict[Kind, Compiled]] = {}
"""What `save_statement` gave; which it has not given yet takes SQLAlchemy several milliseconds."""


def save_statement(kind: Kind) -> Compiled:
    """A whole save for PostgreSQL: it moves the lease on first, and writes nothing where that is not held.

    Its values are those of `FENCE`, the transaction since which nobody may have written, where any are `TIMED` the last of
    `SHARED`, the checkpoint's, an array a column, and the run's. A server takes 20 µs for each table of which there is nothing
    to write, and the driver as much: these are left out.
    """
    found = SAVES.get(kind)
    if found is None:
        found = SAVES[kind] = _compile_save(kind)
    return found


def _compile_save(kind: Kind) -> Compiled:
    from checkpoint_plugin.database.compiling import for_postgresql
    from checkpoint_plugin.saving.save_sql import whole_save

    arrays = [f"{name}_{column}" for name in kind.names for column in MANY[name].columns]
    moment = SHARED[-1:] if kind.is_timed else ()
    given = (*FENCE, *(SINCE if kind.since else ()), *moment, *HEAD, *arrays, *(JOB_VALUES if kind.job else ()))
    return Compiled(for_postgresql(whole_save(kind)), given)


@cache
def rows_statement(name: str) -> Compiled:
    """Rows of one name alone, for PostgreSQL: what they share, and an array a column."""
    from checkpoint_plugin.database.compiling import for_postgresql
    from checkpoint_plugin.saving.save_sql import unnested_rows

    rows = MANY[name]
    arrays = (f"{name}_{column}" for column in rows.columns)
    return Compiled(for_postgresql(unnested_rows(name)), (*rows.shared, *arrays))


def prepare_saves(dialect: str, *kinds: Kind) -> None:
    """Compile what saves need; the first would else take several milliseconds more.

    Args:
        dialect: of the database.
        kinds: on PostgreSQL, as `save_statement`.
    """
    if dialect == "sqlite":
        sqlite_statements()
        return
    for kind in kinds:
        save_statement(kind)
