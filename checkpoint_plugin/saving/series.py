"""Where the series of values that grow end, as far as stored values are made of them."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from checkpoint_plugin.models import PAYLOAD
from checkpoint_plugin.saving.payloads import PIECES

__all__ = ["fetch_series_ends"]


def fetch_series_ends(connection: Connection, run_id: str) -> dict[int, int]:
    """Of each series of a run the end of the last value that is made of it; what lies before it is never pruned."""
    payload = PAYLOAD.c
    # By the encoding, which stands before the body: SQLite would go through a large one to see that it has no series.
    made = select(payload.series, func.max(payload.series_end)).where(payload.run_id == run_id, payload.encoding == PIECES)
    return {row[0]: row[1] for row in connection.execute(made.group_by(payload.series))}
