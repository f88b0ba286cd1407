"""PostgreSQL: asyncpg behind SQLAlchemy, with a limit on every wait, and again where a connection was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4
from weakref import WeakSet

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from checkpoint_plugin.database.connection import Connection, PostgresTransaction
from checkpoint_plugin.database.limits import Limits
from checkpoint_plugin.database.location import Location
from checkpoint_plugin.database.postgresql_connection import KnowingConnection
from checkpoint_plugin.database.postgresql_engine import CONNECTIONS, make_postgres_engine, was_reached
from checkpoint_plugin.database.refusal import driver_error, told_by, unreadable
from checkpoint_plugin.database.transaction import Save, Step
from checkpoint_plugin.database.unbroken import finish
from checkpoint_plugin.database.worker import Worker
from checkpoint_plugin.errors import StoreBusy, StoreUnreachable, StoreUnreadable, StoreUrlInvalid, ValueNotStorable

__all__ = ["PostgresDatabase"]

T = TypeVar("T")
BROKEN: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises by itself: also where the server threw it out in the middle of preparing a statement."""
DRIVER_ERRORS: Final = (SQLAlchemyError, asyncpg.PostgresError, *BROKEN, OSError, TimeoutError)
READ_ONLY: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""A restore makes several queries: what retention deletes between them must still be there."""
STARTING: Final = (
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)
"""What a server says that takes no connection in this moment."""
LOST: Final = (
    *STARTING,
    asyncpg.PostgresConnectionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # of a server that has become a standby: another may have taken its place
    *BROKEN,
    OSError,
    TimeoutError,
)
"""What tells that the connection is gone, not that the statement was wrong."""
CACHE: Final = "statement_cache_size"
"""A part of the url that asyncpg knows as an argument only; 0 suits a pooler that gives each transaction another server."""
CLIENT_GRACE: Final = 5.0
"""The server ends a statement that takes too long, and says so; so much later the client gives up on one that is silent."""
CLOSE_SECONDS: Final = 5.0
BESIDE_LOCK_SECONDS: Final = 0.5
CERTIFICATE: Final = "root certificate file"
PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE: Final = 1.0
ISOLATION: Final = "read committed"
"""Who has waited for a lock must see what the holder wrote; other levels refuse then, or show what was there before."""
POOLED_CHECK: Final = (
    "SELECT pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('default_transaction_isolation'), "
    "pg_catalog.current_schema()"
)
UNHURRIED: Final = Limits(statement_seconds=86_400.0, lock_seconds=86_400.0)


class _NotHeld(Exception):
    """Raised inside the transaction of a large save that is refused, of which nothing may stay."""


class PostgresDatabase:
    """A few connections, made again when they are lost.

    A transaction that has surely not been committed is done again while the server is away, for `reconnect_seconds`, once it
    has been reached in this process: a server that was never there is told at once.

    Args:
        location: of the database.
        limits: other ones than those of the location.
        instead: the same database, whose connections serve where the server has no other left.
    """

    groups_saves: ClassVar[bool] = False

    def __init__(self, location: Location, limits: Limits | None = None, instead: PostgresDatabase | None = None) -> None:
        assert location.dsn is not None
        self._location = location
        self._limits = limits or location.limits
        self._instead = instead
        parts = urlsplit(location.dsn)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        cached = query.pop(CACHE, "") != "0" and not location.pooled
        self._dsn = urlunsplit(parts._replace(query=urlencode(query)))
        self._arguments: dict[str, Any] = {} if cached else {CACHE: 0}
        self._arguments["server_settings"] = self._settings(query)
        arguments: dict[str, Any] = {"async_creator_fn": self._connect}
        if not cached:
            arguments.update(prepared_statement_cache_size=0, prepared_statement_name_func=lambda: f"workflow-{uuid4()}")
        server = repr((self._dsn, location.schema, cached, location.environment))
        self._reached = was_reached(server)
        self._engine = make_postgres_engine(server, arguments)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._saving: AsyncConnection | None = None
        self._raw: Any = None
        self._saves = 0
        """Those under way."""
        self._closed = False
        self._worker = Worker("workflow-checkpoint")  # the threads of the event loop may all wait, for a save even
        self._open: WeakSet[Any] = WeakSet()

    def _settings(self, query: Mapping[str, str]) -> dict[str, str]:
        """What a connection asks of the server. A pooler would refuse it, or give it to others."""
        name = {"application_name": query.get("application_name", "workflow-checkpoint")}
        if self._location.pooled:
            return name
        statement, lock = (f"{seconds * 1000:.0f}" for seconds in (self._limits.statement_seconds, self._limits.lock_seconds))
        settings = {
            "statement_timeout": statement,
            "idle_in_transaction_session_timeout": statement,  # a stopped process must not hold a run's lease for ever
            "lock_timeout": lock,
        }
        settings = {key: value for key, value in settings.items() if key not in query}
        if self._location.schema is not None:
            settings["search_path"] = f'"{self._location.schema}"'
        # Where a server has it off, a crash of the server loses what was acknowledged.
        return {**settings, **name, "synchronous_commit": "on", "default_transaction_isolation": ISOLATION}

    async def _connect(self) -> Any:
        # asyncpg reads the url itself, as every tool of PostgreSQL writes it: sslmode, a socket's folder, several hosts.
        seconds = self._limits.statement_seconds
        try:
            connection = await asyncpg.connect(
                self._dsn,
                timeout=self._limits.connect_seconds,
                command_timeout=seconds if self._location.pooled else seconds + CLIENT_GRACE,
                connection_class=KnowingConnection,
                **self._arguments,
            )
        except (KeyError, ImportError):  # of `getpass`
            raise StoreUrlInvalid(
                f"the url of the store at {self._location.shown} names no user, and the system knows none for this process. "
                "Write postgresql://user:password@host/name, or set PGUSER."
            ) from None
        except ValueError as error:
            if (told := told_by(error)).startswith(CERTIFICATE):
                raise StoreUrlInvalid(
                    f"the store at {self._location.shown} cannot be used: {told}. Name it with sslrootcert=, or choose another "
                    "sslmode."
                ) from None
            # The text of others may hold a part of the password.
            raise StoreUrlInvalid(
                f"the url of the store at {self._location.shown} cannot be read. Write postgresql://user:password@host/name, "
                "with other characters than letters and digits percent-encoded."
            ) from None
        if self._location.pooled:
            try:
                await self._check_pooled(connection)
            except BaseException:
                connection.terminate()
                raise
        self._reached = True
        self._open.add(connection)
        return connection

    async def _check_pooled(self, connection: Any) -> None:
        """Read back what cannot be asked for through a pooler."""
        commit, isolation, schema = await connection.fetchrow(POOLED_CHECK)
        wanted = self._location.schema
        if commit == "off":
            raise StoreUnreadable(
                f"the store at {self._location.shown} has synchronous_commit off, so a crash of the server loses saves. "
                "Set it for the role: ALTER ROLE … SET synchronous_commit = on."
            )
        if isolation != ISOLATION:
            raise StoreUnreadable(
                f"the store at {self._location.shown} has default_transaction_isolation {isolation}, in which writers refuse "
                f"each other. Set it for the role: ALTER ROLE … SET default_transaction_isolation = '{ISOLATION}'."
            )
        if wanted is not None and schema != wanted:
            raise StoreUnreadable(
                f"the store at {self._location.shown} is reached through a pooler, which keeps no search_path, and that of the "
                f"role is {schema!r}. Make the schema, and set it for the role: ALTER ROLE … SET search_path = {wanted}."
            )

    def _check_loop(self) -> None:
        """Refuse where another event loop runs than that of the connections, which can be used and closed there alone."""
        loop, before = asyncio.get_running_loop(), self._loop
        if before is loop:
            return
        if before is None or (before.is_closed() and all(connection.is_closed() for connection in self._open)):
            self._loop, self._turn = loop, asyncio.Lock()
            self._free = asyncio.Semaphore(CONNECTIONS if self._saving is None else CONNECTIONS - 1)
        else:
            raise StoreUnreadable(
                f"the store at {self._location.shown} was opened in another event loop, to which its connections belong; nothing "
                "was read or written. Open it here, too."
            )

    async def transact(
        self, work: Callable[[Connection], T], *, write: bool = True, before: Callable[[], object] | None = None
    ) -> T:
        self._check_loop()
        return await finish(self._run(work, before, {} if write else READ_ONLY))

    async def save(self, save: Save) -> bool:
        self._check_loop()
        if save.is_light:
            save.encode()
        else:
            await self._call(save.encode)
        if not save.is_large:
            return await self.take(save)
        await self._compiled(save.is_compiled(whole=False), partial(save.compile, whole=False))

        async def write(raw: Any) -> bool:
            # One message holds it all in memory twice and stops the event loop while it is made: better several.
            try:
                async with raw.transaction():
                    for sql, arguments in save.payload_statements():
                        await raw.execute(sql, *arguments)
                    sql, arguments = save.statement(whole=False)
                    if not save.outcome(await raw.fetchrow(sql, *arguments)):
                        raise _NotHeld  # or a value would stay without what it is made of, and be taken for a whole one
                    for sql, arguments in save.more_statements():
                        await raw.execute(sql, *arguments)
            except _NotHeld:
                return False
            return True

        return await self._saved(write)

    async def take(self, step: Step[T]) -> T:
        self._check_loop()
        await self._compiled(step.is_compiled(), step.compile)

        async def write(raw: Any) -> T:
            sql, arguments = step.statement()
            return step.outcome(await raw.fetchrow(sql, *arguments))

        return await self._saved(write)

    async def _compiled(self, is_compiled: bool, compile_: Callable[[], None]) -> None:
        if not is_compiled:  # it takes several milliseconds, in which the event loop would stand still
            await self._call(compile_)

    async def _saved(self, write: Callable[[Any], Awaitable[T]]) -> T:
        """Write on the connection of the saves, which is kept from one to the next; one after the other, as it can."""
        self._saves += 1
        try:
            async with self._turn:
                return await self._sent(write)
        finally:
            self._saves -= 1
            if self._closed:
                await finish(self._let_go())

    async def _sent(self, write: Callable[[Any], Awaitable[T]]) -> T:
        sent = False
        try:
            raw = self._raw if self._raw is not None else await finish(self._connect_for_saves())
            sent = True
            return await write(raw)
        except DRIVER_ERRORS as error:
            await finish(self._let_go())
            raise self._told(error, undone=not sent) from error

    async def _connect_for_saves(self) -> Any:
        if self._saving is None:
            self._saving = await self._take()
        self._raw = (await self._saving.get_raw_connection()).driver_connection
        return self._raw

    async def _take(self) -> AsyncConnection:
        """A connection, as soon as one is free. Who waits for that of a pool is forgotten where another cannot be made."""
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeout from None
        try:
            return await self._engine.connect()
        except BaseException:
            self._free.release()
            raise

    async def _give(self, connection: AsyncConnection) -> None:
        try:
            await connection.close()
        finally:
            self._free.release()

    async def _lend(self) -> None:
        """Give the connection of the saves back, while none is under way: the transaction that comes needs no other then."""
        saving, self._saving, self._raw = self._saving, None, None
        if saving is not None:
            await self._give(saving)

    async def _let_go(self) -> None:
        saving, self._saving, self._raw = self._saving, None, None
        if saving is not None:
            try:
                await saving.invalidate()
            finally:
                await self._give(saving)

    def _told(self, error: BaseException, *, undone: bool) -> StoreUnreadable | ValueNotStorable:
        cause = driver_error(error)
        if not isinstance(cause, LOST):
            return unreadable(self._location, error)
        if isinstance(cause, asyncpg.ProtocolViolationError) and "startup parameter" in str(cause):
            return StoreUnreadable(
                f"the store at {self._location.shown} is behind a pooler: {told_by(cause)}. Add pgbouncer=1 to the url."
            )
        what = f"the store at {self._location.shown} cannot be used: {told_by(cause)}."
        if not undone:
            what += " Whether it was written is not known."
        message = f"{what} Check that it is there and can be written."
        return StoreUnreachable(message, undone=undone, starting=isinstance(cause, STARTING))

    def beside(self) -> PostgresDatabase:
        # Connections of its own, which wait for none of these; who beats tries again by itself, and must hear of it. Who waits
        # for a row keeps a connection from the signs of life of others, so nobody does so for long.
        lock = min(BESIDE_LOCK_SECONDS, self._limits.lock_seconds)
        limits = replace(self._limits, reconnect_seconds=PAUSE_SECONDS, lock_seconds=lock)
        return PostgresDatabase(self._location, limits, instead=self)

    def stands(self) -> bool:
        return True  # one that is lost is found when it is used, and made again

    def told(self, error: Exception) -> Exception:
        return self._told(error, undone=False) if isinstance(error, DRIVER_ERRORS) else error

    def unhurried(self) -> PostgresDatabase:
        return PostgresDatabase(self._location, UNHURRIED)

    async def give_back(self) -> None:
        """Nothing: autovacuum does it."""

    async def rest(self) -> None:
        """Nothing: the server has it."""

    async def compute(self, work: Callable[[], T]) -> T:
        return await finish(self._call(work))

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await self._worker.call(work)
        finally:
            if self._closed:  # meanwhile, or before
                self._worker.close()

    async def _run(self, work: Callable[[Connection], T], before: Callable[[], object] | None, options: Mapping[str, Any]) -> T:
        if before is not None:
            await self._call(before)
        return await self._again(lambda: self._somehow(work, options))

    async def _somehow(self, work: Callable[[Connection], T], options: Mapping[str, Any]) -> T:
        """On a connection from the pool, else, where the server has none left, on that of the saves."""
        try:
            return await self._once(work, options)
        except StoreUnreachable as error:
            if not isinstance(driver_error(error.__cause__ or error), asyncpg.TooManyConnectionsError):
                raise
        return await (self._instead or self)._between_saves(work, options)

    async def _between_saves(self, work: Callable[[Connection], T], options: Mapping[str, Any]) -> T:
        """On the connection of the saves when its turn has come: of many runs there may always be one that saves."""
        self._check_loop()
        async with self._turn:
            await self._lend()
            return await self._once(work, options)

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do something, again while the server is away and it has surely not been done."""
        deadline = time.monotonic() + self._limits.reconnect_seconds
        pause = PAUSE_SECONDS
        while True:
            try:
                return await attempt()
            except StoreUnreachable as error:
                may = error.undone and (self._reached or error.starting)
                if not may or time.monotonic() + pause > deadline:
                    raise
            except StoreBusy:  # it waited for a lock already
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _once(self, work: Callable[[Connection], T], options: Mapping[str, Any]) -> T:
        committing = False
        try:
            if not self._saves:
                await self._lend()
            connection = await self._take()
            try:
                if options:
                    await connection.execution_options(**options)
                async with connection.begin():
                    found = await connection.run_sync(lambda core: work(PostgresTransaction(core)))
                    committing = not options
                return found
            except DRIVER_ERRORS as error:
                if isinstance(driver_error(error), LOST):
                    await connection.invalidate()  # it may hang in the middle of a command: not back to the pool
                raise
            finally:
                try:
                    if self._closed:  # there is no pool any more that it could go back to
                        await connection.invalidate()
                finally:
                    await finish(self._give(connection))
        except DRIVER_ERRORS as error:
            raise self._told(error, undone=not committing) from error

    async def close(self) -> None:
        self._closed = True  # a transaction that is under way closes its connection itself
        saving, self._saving, self._raw = self._saving, None, None
        try:
            await finish(self._dispose(saving))  # torn apart it would leave connections open, and SQLAlchemy tells of it
        finally:
            self._loop = None
            if self._worker.is_started:
                await finish(self._call(lambda: None))  # the event loop must not stand still until the thread is done

    async def _dispose(self, saving: AsyncConnection | None) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if saving is not None:
                    await self._give(saving)
                await self._engine.dispose()
        except TimeoutError:  # a server that is silent says no farewell, either
            for connection in self._open:
                connection.terminate()
