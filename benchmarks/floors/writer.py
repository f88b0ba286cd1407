"""Tables written by hand: one upsert a commit, or whatever waits in one commit; SQLite in one thread, PostgreSQL by asyncpg."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.request import Request

__all__ = ["PostgresqlWriter", "Row", "SqliteWriter", "Writer", "open_writer"]

Row = tuple[int, bytes]

CREATE = "CREATE TABLE IF NOT EXISTS node (id INTEGER PRIMARY KEY, value {type})"
UPSERT = "INSERT INTO node VALUES ({values}) ON CONFLICT (id) DO UPDATE SET value = excluded.value"
UPSERT_MANY = """INSERT INTO node SELECT * FROM unnest($1::integer[], $2::bytea[])
ON CONFLICT (id) DO UPDATE SET value = excluded.value"""


class SqliteWriter:
    """stdlib sqlite3 in one thread, WAL and FULL: one hop a commit."""

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._path = path

    async def open(self) -> None:
        """Connect and make the table."""
        await self._call(self._open)

    async def write(self, rows: Sequence[Row]) -> None:
        """One transaction."""
        await self._call(self._write, rows)

    async def fetch(self, statement: str) -> list[Any]:
        """The rows of a statement."""
        return await self._call(lambda: self._connection.execute(statement).fetchall())  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Disconnect."""
        await self._call(self._connection.close)
        self._thread.shutdown()

    async def _call(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=wal")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(CREATE.format(type="BLOB"))
        self._upsert = UPSERT.format(values="?, ?")

    def _write(self, rows: Sequence[Row]) -> None:
        if len(rows) == 1:
            self._connection.execute(self._upsert, rows[0])
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(self._upsert, rows)
        self._connection.execute("COMMIT")


class PostgresqlWriter:
    """asyncpg: one prepared, autocommitted statement."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        """Connect and make the table."""
        import asyncpg

        self._connection = await asyncpg.connect(self._url)
        await self._connection.execute(CREATE.format(type="BYTEA"))
        self._one = await self._connection.prepare(UPSERT.format(values="$1, $2"))
        self._many = await self._connection.prepare(UPSERT_MANY)

    async def write(self, rows: Sequence[Row]) -> None:
        """One transaction."""
        if len(rows) == 1:
            await self._one.fetch(*rows[0])
            return
        numbers, values = zip(*rows, strict=True)
        await self._many.fetch(numbers, values)

    async def fetch(self, statement: str) -> list[Any]:
        """The rows of a statement."""
        return await self._connection.fetch(statement)  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()


Writer = SqliteWriter | PostgresqlWriter


@asynccontextmanager
async def open_writer(request: Request) -> AsyncIterator[Writer]:
    """A writer of the store of a request."""
    writer: Writer = PostgresqlWriter(request.store) if request.is_postgresql else SqliteWriter(request.path)
    await writer.open()
    try:
        yield writer
    finally:
        await writer.close()
