"""Where the series of values that grow end, as far as stored values are made of them."""

from __future__ import annotations

from typing import Final

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement

__all__ = ["fetch_series_ends"]

ENDS: Final = Statement("checkpoint_plugin.saving.save_sql", "series_ends")


def fetch_series_ends(connection: Connection, run_id: str) -> dict[int, int]:
    """Of each series of a run the end of the last value that is made of it; what lies before it is never pruned."""
    return {row[0]: row[1] for row in connection.execute(ENDS, {"of_run": run_id})}
