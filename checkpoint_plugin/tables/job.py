"""A run's row in a transaction: locked, and how the run stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal
from checkpoint_plugin.tables.definition import storable_text
from checkpoint_plugin.tables.suspensions import JOB_COLUMNS
from hookspecs import RunNotFound

__all__ = ["STANDING", "JobEnd", "lock_job", "update_job"]

FINAL: Final = ("completed", "failed", "cancelled", "paused")
STANDING: Final = ("status", "finished_at", "completed_at", "failed_at", "error", "error_message", *JOB_COLUMNS)
"""The columns that tell how a run stands."""
LOCK_JOB: Final = Statement("checkpoint_plugin.tables.row_sql", "lock_job")
UPDATE_JOB: Final = Statement("checkpoint_plugin.tables.row_sql", "update_job")


def lock_job(connection: Connection, run_id: str, shown: str) -> Any:
    """Lock a run's row until the end of the transaction: on SQLite the transaction itself is the lock."""
    row = connection.execute(LOCK_JOB, {"of_run": run_id}).first()
    if row is None:
        raise RunNotFound(run_id, shown)
    return row


def update_job(connection: Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a run's row, which is locked."""
    connection.execute(UPDATE_JOB, {"of_run": run_id, **values})


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a run stands when an attempt is over, or in a checkpoint.

    Args:
        status: of the run.
        error: why it failed.
        at: when it came to stand so.
        stored: the columns that told it, where a run stands again as it did.
    """

    status: str
    error: str | None
    at: datetime | None
    stored: Mapping[str, Any] | None = None

    @classmethod
    def of_row(cls, row: Any) -> JobEnd:
        """How a run stands by its row, which is locked."""
        return cls(row.status, row.error, row.finished_at, {name: getattr(row, name) for name in STANDING})

    def columns(self, now: datetime, seal: Seal = PLAIN) -> dict[str, Any]:
        """The columns of the run's row that tell it."""
        if self.stored is not None:
            return {**self.stored, "updated_at": now}
        text = None if self.error is None else seal.seal_text(storable_text(self.error))
        return {
            "status": self.status,
            "updated_at": now,
            "finished_at": self.at if self.status in FINAL else None,
            "completed_at": self.at if self.status == "completed" else None,
            "failed_at": self.at if self.status == "failed" else None,
            "error": text,
            "error_message": text,
        }
