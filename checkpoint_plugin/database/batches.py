"""Lists that a statement looks for, in parts that it can take."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from checkpoint_plugin.database.connection import Connection

__all__ = ["batches"]

T = TypeVar("T")
MOST: Final = 10_000
"""Values at most: below what either database takes now."""
OTHERS: Final = 100
"""Values of a statement beside the list."""


def batches(connection: Connection, values: Sequence[T], columns: int = 1) -> Iterator[Sequence[T]]:
    """Parts of a list for `IN (…)`; SQLite before 3.32 takes 999 values a statement.

    Args:
        connection: to the database.
        values: all of them.
        columns: values that each takes.
    """
    size = MOST
    if connection.kind == "sqlite":
        size = min(size, (connection.driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - OTHERS) // columns)
    return (values[first : first + size] for first in range(0, len(values), size))
