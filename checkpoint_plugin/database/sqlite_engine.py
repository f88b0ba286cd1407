"""Engines of SQLAlchemy over connections to SQLite that are open, for what is not said by name.

They share what was compiled in their process. A store is opened for every question, and `create_engine` compiles anew for each:
that would take longer than the answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from itertools import chain, repeat
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
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as another:
        given: Iterator[Any] = chain((another,), repeat(raw))
        pool = StaticPool(lambda: next(given), dialect=first.dialect, reset_on_return=None)
        # Whoever listens for all connections of SQLAlchemy, to set a pragma for example, is shown another one: ours is in a
        # transaction, which that may commit, and is set as a store needs it.
        shown = pool.connection
        shown.dbapi_connection = next(given)
    return Engine(pool, first.dialect, first.url, execution_options={"compiled_cache": compiled})


@cache
def _sqlite() -> tuple[Engine, LRUCache[Any, Any]]:
    engine = create_engine("sqlite://")
    with engine.connect():
        pass
    engine.dispose()
    return engine, LRUCache(STATEMENTS)
