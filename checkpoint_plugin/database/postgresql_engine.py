"""Engines over servers, which share what was compiled in their process, and what a server was asked at the first connection."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Final

from sqlalchemy import Dialect, Engine, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import LRUCache

__all__ = ["make_postgres_engine", "was_reached"]

DRIVER: Final = "postgresql+asyncpg://"
SERVERS: Final = 16
"""Servers to remember."""
STATEMENTS: Final = 1_000
"""Compiled statements to keep of each."""
CONNECTIONS: Final = 3
"""To a server, at once: that of the saves, and two for what comes meanwhile. One above that would be made anew each time."""


def make_postgres_engine(server: str, arguments: Mapping[str, Any]) -> AsyncEngine:
    """An engine of a few connections.

    Args:
        server: tells one server, database, role and search path from others.
        arguments: of asyncpg, for a connection.
    """
    met = _met(server)
    shared = {"compiled_cache": met.compiled}
    bounds: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0}
    if met.dialect is None:
        engine = create_async_engine(DRIVER, connect_args=dict(arguments), execution_options=shared, **bounds)
        event.listen(engine.sync_engine, "engine_connect", lambda _: met.remember(engine.dialect), once=True)
        return engine
    connect = partial(met.dialect.connect, **arguments)
    pool = AsyncAdaptedQueuePool(connect, dialect=met.dialect, **bounds)
    return AsyncEngine(Engine(pool, met.dialect, make_url(DRIVER), execution_options=shared))


def was_reached(server: str) -> bool:
    """Whether a server has answered in this process, to whomever.

    Args:
        server: as of `make_postgres_engine`.
    """
    return _met(server).dialect is not None


class _Met:
    """What is known of a server once it was asked for its version and settings."""

    dialect: Dialect | None = None

    def __init__(self) -> None:
        self.compiled: LRUCache[Any, Any] = LRUCache(STATEMENTS)

    def remember(self, dialect: Dialect) -> None:
        """It has answered."""
        self.dialect = dialect


@lru_cache(SERVERS)
def _met(server: str) -> _Met:
    return _Met()
