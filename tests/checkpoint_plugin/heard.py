"""What a database is asked, whoever asks it."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import event

from checkpoint_plugin.database.connection import Connection

__all__ = ["hear"]


def hear(connection: Connection, heard: Callable[[str], object]) -> None:
    """Tell of every statement from now on.

    Args:
        connection: of a store, to which all others are asked through the same engine, or the same driver's connection.
        heard: takes each as text.
    """
    if connection.kind == "sqlite":  # most statements never pass SQLAlchemy
        connection.driver.set_trace_callback(heard)
    else:
        event.listen(connection.core.engine, "before_cursor_execute", lambda *told: heard(told[2]))
