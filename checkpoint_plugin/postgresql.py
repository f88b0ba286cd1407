"""PostgreSQL: asyncpg behind SQLAlchemy, with a limit on every wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from checkpoint_plugin.errors import StoreUnreadable, StoreUrlInvalid
from checkpoint_plugin.location import Location
from checkpoint_plugin.refusal import driver_error, unreadable
from checkpoint_plugin.transaction import finish

if TYPE_CHECKING:
    from checkpoint_plugin.writing import CutWriter

__all__ = ["PostgresDatabase"]

T = TypeVar("T")
CONNECT_SECONDS = 10
COMMAND_SECONDS = 60
LOCK_MILLISECONDS = 30_000
SETTINGS = {
    "application_name": "workflow-checkpoint",
    "lock_timeout": str(LOCK_MILLISECONDS),
    "synchronous_commit": "on",  # where a server has it off, a crash of the server loses what was acknowledged
}
DRIVER_ERRORS: Final = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
READ_ONLY: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""A restore makes several queries: what retention deletes between them must still be there."""
LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
"""What tells that the connection is gone, not that the statement was wrong."""
CACHE = "statement_cache_size"
"""A part of the url that asyncpg knows as an argument only; 0 suits a pooler that gives each transaction another server."""


class PostgresDatabase:
    """One connection, made again when it was lost."""

    def __init__(self, location: Location) -> None:
        self._location = location
        parts = urlsplit(location.url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        cached = query.pop(CACHE, "") != "0"
        self._dsn = urlunsplit(parts._replace(query=urlencode(query)))
        self._settings: dict[str, Any] = {} if cached else {CACHE: 0}
        arguments: dict[str, Any] = {"async_creator_fn": self._connect}
        if not cached:
            arguments.update(prepared_statement_cache_size=0, prepared_statement_name_func=lambda: f"workflow-{uuid4()}")
        self._engine = create_async_engine("postgresql+asyncpg://", connect_args=arguments, pool_size=1, max_overflow=2)
        self._saving: AsyncConnection | None = None

    async def _connect(self) -> Any:
        # asyncpg reads the url itself, as every tool of PostgreSQL writes it: sslmode, a socket's folder, several hosts.
        try:
            return await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                server_settings=SETTINGS,
                **self._settings,
            )
        except ValueError:  # its text may hold a part of the password
            raise StoreUrlInvalid(
                f"the url of the store at {self._location.shown} cannot be read. Write postgresql://user:password@host/name, "
                "with other characters than letters and digits percent-encoded."
            ) from None

    async def transact(
        self, work: Callable[[Connection], T], *, write: bool = True, before: Callable[[], object] | None = None
    ) -> T:
        return await finish(self._run(work, before, {} if write else READ_ONLY))

    async def save(self, writer: CutWriter) -> bool:
        if writer.is_light:
            writer.encode()
        else:
            await asyncio.to_thread(writer.encode)
        try:
            if self._saving is None:
                self._saving = await self._engine.connect()
            raw: Any = (await self._saving.get_raw_connection()).driver_connection
            if not writer.is_large:
                return await self._write(raw, *writer.statement())
            # One message holds it all in memory twice and stops the event loop while it is made: better several.
            async with raw.transaction():
                for sql, arguments in writer.payload_statements():
                    await raw.execute(sql, *arguments)
                return await self._write(raw, *writer.statement(payloads=False))
        except DRIVER_ERRORS as error:
            saving, self._saving = self._saving, None
            if saving is not None:
                await saving.invalidate()
                await saving.close()
            raise self._told(error) from error

    async def _write(self, raw: Any, sql: str, arguments: tuple[Any, ...]) -> bool:
        return bool(await raw.fetchval(sql, *arguments))

    def _told(self, error: BaseException) -> StoreUnreadable:
        return unreadable(self._location, error, lost=isinstance(driver_error(error), LOST))

    def beside(self) -> PostgresDatabase:
        return self  # its pool has another connection

    async def give_back(self) -> None:
        """Nothing: autovacuum does it."""

    async def compute(self, work: Callable[[], T]) -> T:
        return await finish(asyncio.to_thread(work))

    async def _run(self, work: Callable[[Connection], T], before: Callable[[], object] | None, options: Mapping[str, Any]) -> T:
        if before is not None:
            await asyncio.to_thread(before)
        try:
            async with self._engine.connect() as connection:
                if options:
                    await connection.execution_options(**options)
                async with connection.begin():
                    return await connection.run_sync(work)
        except DRIVER_ERRORS as error:
            if isinstance(error, TimeoutError):
                await self._engine.dispose()  # the connection may hang in the middle of a command
            raise self._told(error) from error

    async def close(self) -> None:
        if self._saving is not None:
            await self._saving.close()
        await self._engine.dispose()
