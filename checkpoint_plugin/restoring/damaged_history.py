"""Which rows a run has, for those who go on from one of its checkpoints although something else of it is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from checkpoint_plugin.bounds import LARGEST_INTEGER
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement

__all__ = ["fetch_node_ids", "fetch_numbers"]

SQL: Final = "checkpoint_plugin.restoring.cut_sql"
NODE_IDS: Final = Statement(SQL, "node_ids")
NEWEST_NUMBER: Final = Statement(SQL, "newest_number")
NUMBERS: Final = Statement(SQL, "checkpoint_numbers")


def fetch_node_ids(connection: Connection, run_id: str) -> set[str]:
    """Every node of which a run has a row, of whatever checkpoint; a name that is damaged is none."""
    found = connection.execute(NODE_IDS, {"run": run_id}).scalars()
    return {node_id for node_id in found if type(node_id) is str}


def fetch_numbers(connection: Connection, run_id: str) -> tuple[int | None, Sequence[int]]:
    """Which checkpoints a run has, for those who go on although something is damaged.

    Returns:
        The number of the newest as its lease names it, 0 before the first, `None` where it names none; and the numbers of
        all that are there, the newest first. SQLite keeps anything in any column, so what no run can have is left out.
    """
    newest = connection.execute(NEWEST_NUMBER, {"run": run_id}).scalar_one_or_none()
    found = connection.execute(NUMBERS, {"run": run_id}).scalars()
    return newest if _is_number(newest) else None, [number for number in found if _is_number(number)]


def _is_number(value: object) -> bool:
    """Whether a checkpoint can have this number, and the one after it the next."""
    return type(value) is int and abs(value) < LARGEST_INTEGER
