"""Engines over SQLite, which share what was compiled in their process.

A store is opened for every question, and `create_engine` compiles anew for each: that would take longer than the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import LRUCache

__all__ = ["make_sqlite_engine"]

STATEMENTS: Final = 1_000
"""Compiled statements to keep."""


def make_sqlite_engine(connect: Callable[[], Any]) -> Engine:
    """An engine over one connection.

    Args:
        connect: opens it, when it is first needed.
    """
    first, compiled = _sqlite()
    return Engine(
        StaticPool(connect, dialect=first.dialect), first.dialect, first.url, execution_options={"compiled_cache": compiled}
    )


@cache
def _sqlite() -> tuple[Engine, LRUCache[Any, Any]]:
    engine = create_engine("sqlite://")
    with engine.connect():
        pass
    engine.dispose()
    return engine, LRUCache(STATEMENTS)
