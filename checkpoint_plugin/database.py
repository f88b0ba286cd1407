"""The two ways to a database: SQLite in one thread of its own, PostgreSQL through asyncpg.

Both run a whole transaction as one function over a SQLAlchemy connection, so the statements exist once.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from checkpoint_plugin.errors import StoreMissing, StoreUnreadable
from checkpoint_plugin.location import Location

__all__ = ["Database", "PostgresDatabase", "SqliteDatabase", "open_database"]

T = TypeVar("T")
BUSY_MILLISECONDS = 30_000
CONNECT_SECONDS = 10
COMMAND_SECONDS = 60
LOCK_MILLISECONDS = 30_000


class Database(Protocol):
    """Runs transactions."""

    async def transact(self, work: Callable[[Connection], T], *, write: bool = True) -> T:
        """Run a function in one transaction: committed when it returns, rolled back when it raises.

        Once begun it is not interrupted by the cancellation of the caller, who still learns of the outcome first.

        Args:
            work: takes the connection.
            write: off for a function that only reads, which then waits for no writer.

        Raises:
            StoreUnreadable: the database cannot be reached or refuses.
        """

    async def close(self) -> None:
        """Close every connection."""


def open_database(location: Location, *, create: bool) -> Database:
    """A database; connections are made when the first transaction needs one.

    Args:
        location: which.
        create: make the SQLite file and its folder where there is none.

    Raises:
        StoreMissing: there is no such file, and `create` is off.
    """
    if location.kind == "postgresql":
        return PostgresDatabase(location)
    assert location.path is not None
    if create:
        _create_file(location.path)
    elif not location.path.is_file():
        raise StoreMissing(
            f"there is no store at {location.shown}. Name another with --url, or start a run that enables checkpoint."
        )
    return SqliteDatabase(location)


async def _finish(task: asyncio.Future[T]) -> T:
    """Wait for a task that must not be torn apart: a cancelled COMMIT may have been done."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


class SqliteDatabase:
    """One connection in one thread; a transaction costs one hop. WAL and synchronous=FULL: a commit survives power loss."""

    def __init__(self, location: Location) -> None:
        assert location.path is not None
        self._location = location
        self._path = location.path
        self._thread = ThreadPoolExecutor(1, "workflow-checkpoint")
        self._engine: Engine | None = None
        self._begin = "BEGIN"

    async def transact(self, work: Callable[[Connection], T], *, write: bool = True) -> T:
        return await _finish(asyncio.get_running_loop().run_in_executor(self._thread, self._run, work, write))

    def _run(self, work: Callable[[Connection], T], write: bool) -> T:
        # A writer takes its lock from the start: a read lock that becomes a write lock fails at once where two do it.
        self._begin = "BEGIN IMMEDIATE" if write else "BEGIN"
        try:
            if self._engine is None:
                self._engine = self._connect()
            with self._engine.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _unreadable(self._location, error) from error

    def _connect(self) -> Engine:
        engine = create_engine("sqlite://", creator=self._open, poolclass=StaticPool)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(self._begin))
        return engine

    def _open(self) -> sqlite3.Connection:
        # mode=rw: a file that vanished is an error, never an empty database.
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_MILLISECONDS / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "mmap_size": 0}
        for pragma, value in wanted.items():
            connection.execute(f"PRAGMA {pragma}={value}")
        for pragma, value in wanted.items():
            (found,) = connection.execute(f"PRAGMA {pragma}").fetchone() or (value,)
            if found != value:
                connection.close()
                raise StoreUnreadable(
                    f"the store at {self._location.shown} does not keep {pragma}={value} (it is {found}): saves there would not "
                    "survive power loss. Put it on a local disk."
                )
        return connection

    async def close(self) -> None:
        def dispose() -> None:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

        await _finish(asyncio.get_running_loop().run_in_executor(self._thread, dispose))
        self._thread.shutdown(wait=False)


class PostgresDatabase:
    """asyncpg behind SQLAlchemy, with a limit on every wait."""

    def __init__(self, location: Location) -> None:
        self._location = location
        settings = {"lock_timeout": str(LOCK_MILLISECONDS), "application_name": "workflow-checkpoint"}
        arguments: dict[str, Any] = {"timeout": CONNECT_SECONDS, "command_timeout": COMMAND_SECONDS, "server_settings": settings}
        self._engine = create_async_engine(location.url, connect_args=arguments, pool_size=1, max_overflow=1)

    async def transact(self, work: Callable[[Connection], T], *, write: bool = True) -> T:
        return await _finish(asyncio.ensure_future(self._run(work)))

    async def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            async with self._engine.begin() as connection:
                return await connection.run_sync(work)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                await self._engine.dispose()  # the connection may hang in the middle of a command
            raise _unreadable(self._location, error) from error

    async def close(self) -> None:
        await self._engine.dispose()


def _create_file(path: Path) -> None:
    """Make the file and its folder, for their owner only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreUnreadable(
            f"the store {path} cannot be created: {error.strerror}. Choose another place with its url."
        ) from error


def _unreadable(location: Location, error: BaseException) -> StoreUnreadable:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return StoreUnreadable(f"the store at {location.shown} cannot be used: {text}. Check that it is there and can be written.")
