"""SQLite: one connection, in one thread of its own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from checkpoint_plugin.errors import StoreUnreadable
from checkpoint_plugin.location import Location
from checkpoint_plugin.transaction import finish, unreadable

if TYPE_CHECKING:
    from checkpoint_plugin.writing import CutWriter

__all__ = ["SqliteDatabase", "create_file"]

T = TypeVar("T")
BUSY_MILLISECONDS = 30_000
BESIDE_MILLISECONDS = 1_000
RETRY_SECONDS = 0.005


class SqliteDatabase:
    """One connection in one thread; a transaction costs one hop. WAL and synchronous=FULL: a commit survives power loss."""

    def __init__(self, location: Location, busy_milliseconds: int = BUSY_MILLISECONDS) -> None:
        assert location.path is not None
        self._location = location
        self._busy = busy_milliseconds
        self._path = location.path
        self._thread = ThreadPoolExecutor(1, "workflow-checkpoint")
        self._engine: Engine | None = None
        self._begin = "BEGIN"
        self._may_write = False
        self._raw: sqlite3.Connection | None = None

    async def transact(
        self, work: Callable[[Connection], T], *, write: bool = True, before: Callable[[], object] | None = None
    ) -> T:
        return await self.compute(lambda: self._run(work, write, before))

    async def save(self, writer: CutWriter) -> bool:
        # The caller finishes it whatever happens, and a save is too frequent for another task to see to that.
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._save, writer)

    def _save(self, writer: CutWriter) -> bool:
        writer.encode()
        try:
            connection = self._writable()
            connection.execute("BEGIN IMMEDIATE")
            try:
                held = writer.write_sqlite(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT" if held else "ROLLBACK")
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise unreadable(self._location, error) from error
        return held

    def _writable(self) -> sqlite3.Connection:
        if self._engine is None:
            self._engine = self._connect()
        if not self._may_write:
            self._use_wal(self._engine)
        if self._raw is None:
            pooled = self._engine.raw_connection()
            assert isinstance(pooled.driver_connection, sqlite3.Connection)
            self._raw = pooled.driver_connection
            pooled.close()  # back to a pool of one, which keeps it open
        return self._raw

    async def give_back(self) -> None:
        def work() -> None:
            try:
                connection = self._writable()
                connection.execute("PRAGMA incremental_vacuum").fetchall()
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except (SQLAlchemyError, sqlite3.Error) as error:
                raise unreadable(self._location, error) from error

        await self.compute(work)

    async def compute(self, work: Callable[[], T]) -> T:
        return await finish(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _run(self, work: Callable[[Connection], T], write: bool, before: Callable[[], object] | None) -> T:
        if before is not None:
            before()
        # A writer takes its lock from the start: a read lock that becomes a write lock fails at once where two do it.
        self._begin = "BEGIN IMMEDIATE" if write else "BEGIN"
        try:
            if self._engine is None:
                self._engine = self._connect()
            if write and not self._may_write:
                self._use_wal(self._engine)
            with self._engine.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise unreadable(self._location, error) from error

    def _connect(self) -> Engine:
        engine = create_engine("sqlite://", creator=self._open, poolclass=StaticPool)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(self._begin))
        return engine

    def _open(self) -> sqlite3.Connection:
        # mode=rw: a file that vanished is an error, never an empty database.
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._set(connection, {"synchronous": 2, "foreign_keys": 1, "mmap_size": 0})
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, engine: Engine) -> None:
        # Not when opened: it writes to the file, and who only reads, or is refused, leaves the file as it was.
        raw = engine.raw_connection()
        try:
            assert isinstance(raw.driver_connection, sqlite3.Connection)
            if raw.driver_connection.execute("PRAGMA page_count").fetchone() == (0,):
                raw.driver_connection.execute("PRAGMA auto_vacuum=2")  # incremental; only an empty database takes it
            deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
            while not self._has_wal(raw.driver_connection):
                if time.monotonic() > deadline:
                    raise StoreUnreadable(f"the store at {self._location.shown} is held by another program. Close it there.")
                time.sleep(RETRY_SECONDS)
        finally:
            raw.close()
        self._may_write = True

    def _has_wal(self, connection: sqlite3.Connection) -> bool:
        # Of several that do this to a new file, SQLite refuses all but one at once, without its busy timeout.
        try:
            self._set(connection, {"journal_mode": "wal"})
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the rest tells the kind of busy
                raise
            return False
        return True

    def _set(self, connection: sqlite3.Connection, wanted: Mapping[str, object]) -> None:
        """Set pragmas and read them back."""
        for pragma, value in wanted.items():
            connection.execute(f"PRAGMA {pragma}={value}")
            (found,) = connection.execute(f"PRAGMA {pragma}").fetchone() or (value,)
            if found != value:
                raise StoreUnreadable(
                    f"the store at {self._location.shown} does not keep {pragma}={value} (it is {found}): saves there would not "
                    "survive power loss. Put it on a local disk."
                )

    def beside(self) -> SqliteDatabase:
        return SqliteDatabase(self._location, BESIDE_MILLISECONDS)  # a thread and a connection of its own

    async def close(self) -> None:
        def dispose() -> None:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = self._raw = None

        try:
            await self.compute(dispose)
        finally:
            self._thread.shutdown()  # it has nothing left to do: this waits for no work


def create_file(path: Path) -> None:
    """Make the file and its folder, for their owner only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreUnreadable(
            f"the store {path} cannot be created: {error.strerror}. Choose another place with its url."
        ) from error
