"""Engines of SQLAlchemy over connections to SQLite that are open, for what is not said by name.

They share what was compiled in their process. A store is opened for every question, and `create_engine` compiles anew for each:
that would take longer than the answer.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Any, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import LRUCache

__all__ = ["make_sqlite_engine"]

STATEMENTS: Final = 1_000
"""Compiled statements to keep."""


def make_sqlite_engine(raw: sqlite3.Connection) -> Engine:
    """An engine over a connection, whose transactions others begin and end.

    Args:
        raw: which; who opened it closes it.
    """
    first, compiled = _sqlite()
    open_already: Any = lambda: raw  # noqa: E731
    pool = StaticPool(open_already, dialect=first.dialect, reset_on_return=None)
    return Engine(pool, first.dialect, first.url, execution_options={"compiled_cache": compiled})


@cache
def _sqlite() -> tuple[Engine, LRUCache[Any, Any]]:
    engine = create_engine("sqlite://")
    with engine.connect():
        pass
    engine.dispose()
    return engine, LRUCache(STATEMENTS)
