"""An open store: its connections, its writer, and tables that are up to date when the first transaction begins."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import Location
from checkpoint_plugin.database.refusal import driver_error, told_by
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.database.transaction import Step
from checkpoint_plugin.database.unbroken import Unbroken
from checkpoint_plugin.errors import SchemaChanged, StoreBusy, StoreMissing, StoreReadOnly, StoreUnreachable, StoreUnreadable
from checkpoint_plugin.opening.connections import Connections
from checkpoint_plugin.opening.witness import Witness
from checkpoint_plugin.saving.group import Write
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.keys import RunKeys
from checkpoint_plugin.tables.schema import (
    SCHEMA_VERSION,
    check_upgradable,
    create_schema,
    is_current,
    read_version,
    upgrade_schema,
)

__all__ = ["RECONNECT_PAUSE", "OpenStore"]

T = TypeVar("T")
STORE_ID: Final = Statement("checkpoint_plugin.tables.row_sql", "store_id")
RECONNECT_PAUSE: Final = 0.05
"""Seconds before a server that went away is tried again for the first time."""


class OpenStore:
    """One store, open.

    Args:
        location: where it is.
        create: make it where there is none.
        codec: how values are written and read; default: with the types of installed packages, looked up when first needed.
        ring: the master keys of encrypted runs; default those of `WORKFLOW_CHECKPOINT_KEY`.
        witness: remembers the newest checkpoints elsewhere.
        auto_migrate: upgrade older tables on PostgreSQL, too; those on SQLite always are.
        blobs: where large values become files; default: where `WORKFLOW_CHECKPOINT_BLOBS` says, and not at all without it.
        connections: those that were taken, or that another store at the same place left; they are closed with this one.

    Raises:
        StoreMissing: there is none, and `create` is off.
    """

    def __init__(
        self,
        location: Location,
        *,
        create: bool,
        codec: Codec | None = None,
        ring: KeyRing | None = None,
        witness: Witness | None = None,
        auto_migrate: bool = False,
        blobs: Blobs | None = None,
        connections: Connections | None = None,
    ) -> None:
        self.location = location
        self.blobs = blobs if blobs is not None else Blobs(location)
        self._auto_migrate = auto_migrate
        self.keys = RunKeys(ring if ring is not None else KeyRing.from_environment())
        self._witness = witness
        self._codec = codec
        self._create = create
        self._connections = connections if connections is not None else Connections(location, create=create)
        self._database = self._connections.database
        self._ready = self._connections.is_current and not self.blobs.has_url

    @property
    def codec(self) -> Codec:
        """How values are written and read."""
        if self._codec is None:
            self._codec = Codec.taught()  # imports what installed packages bring: not for a store whose values nobody asks for
        return self._codec

    def leave(self) -> Connections:
        """Leave the connections to another store; this one is then used no more."""
        return self._connections

    async def close(self) -> None:
        """Write what was handed over, and close every connection; nothing in a process that was forked meanwhile."""
        await self._connections.close()

    async def transact(
        self, work: Callable[[Connection], T], *, write: bool = True, before: Callable[[], object] | None = None
    ) -> T:
        """Run a function in one transaction, after the schema was made or checked once; as `Database.transact`.

        Raises:
            StoreError: the store cannot be used, or the function refuses.
        """
        await self._get_ready()
        with self._noticing_change():
            return await self._database.transact(work, write=write, before=before)

    async def write(self, write: Write[T]) -> T:
        """Hand something to the writer, which shares its transactions among all that wait; as `GroupWriter.write`.

        Raises:
            StoreError: the store cannot be used.
        """
        await self._get_ready()
        with self._noticing_change():
            return await Unbroken(self._connections.group.write(write))

    async def write_alone(self, cut: CutWriter) -> bool:
        """Write a cut in a transaction of its own, which one statement may be.

        Returns:
            Whether it was written; where it was not, or nobody knows, a transaction that looks how the run stands can tell why.

        Raises:
            ValueNotStorable: a value cannot be stored; nothing was written.
        """
        await self._get_ready()
        try:
            return await Unbroken(self._connections.group.save(cut))
        except StoreUnreadable:
            return False

    async def compute(self, work: Callable[[], T]) -> T:
        """Run a function that takes long off the event loop.

        Raises:
            StoreUnreadable: this process is a fork of the one that opened the store.
        """
        self._check_process()
        return await self._database.compute(work)

    async def seal(self, run_id: str) -> Seal:
        """What seals and opens the bytes of a run.

        Raises:
            KeyMissing: the run is encrypted and its key is not given, or it is not and one is given.
        """
        known = self.keys.known(run_id)
        return known if known is not None else await self._read(lambda connection: self.keys.find(connection, run_id))

    async def _get_ready(self) -> None:
        self._check_process()
        if not self._ready:
            async with self._connections.look:
                if not self._ready:
                    await self._look()

    async def _look(self) -> None:
        shown = self.location.shown
        may = self._auto_migrate or self.location.kind == "sqlite"
        # Reads: what is refused here is not touched.
        current = await self._database.transact(lambda c: is_current(c, shown, may_upgrade=may), write=False)
        if current is None and not self._create:
            raise StoreMissing(f"the database {shown} holds no store of runs. Name another with --url.")
        if current is not True:
            await (self._make() if current is None else self._upgrade(unused=True))
        if self.blobs.has_url:
            self.blobs.store_id = await self._database.transact(lambda c: c.execute(STORE_ID).scalar_one_or_none(), write=False)
        self._ready = self._connections.is_current = True

    @contextmanager
    def _noticing_change(self) -> Iterator[None]:
        """Look at the tables again before the next transaction, where another program has changed them."""
        try:
            yield
        except SchemaChanged:
            self._ready = self._connections.is_current = False
            raise

    def _check_process(self) -> None:
        opened_by = self._connections.process_id
        if opened_by != os.getpid():  # threads are not copied by a fork, and what two read from one connection is torn
            mend = "Open it here, too." if self.location.kind == "postgresql" else "Start this process with `spawn`, not `fork`."
            raise StoreUnreadable(
                f"the store at {self.location.shown} was opened by process {opened_by}, of which this one is a fork; "
                f"nothing was read or written. {mend}"
            )

    async def _make(self) -> None:
        await self._unhurried(lambda connection: create_schema(connection, self.location.shown, self.location.schema))

    async def _upgrade(self, *, unused: bool = False) -> tuple[int, int]:
        shown, schema = self.location.shown, self.location.schema
        try:
            return await self._unhurried(lambda connection: upgrade_schema(connection, shown, schema, unused=unused))
        except StoreReadOnly as error:
            if self.location.kind == "sqlite":  # it names the file or the folder
                raise
            said = told_by(driver_error(error.__cause__ or error))
            raise StoreReadOnly(
                f"the tables of the store at {shown} cannot be upgraded by this role: {said}; they are as they were. "
                "Let the role that owns them do it: workflow db upgrade. Then grant the roles that use them their rights on "
                "the tables that are new."
            ) from error

    async def _unhurried(self, work: Callable[[Connection], T]) -> T:
        """A transaction that may take long, or wait long for another that does the same."""
        database = self._database.unhurried()
        try:
            return await database.transact(work)
        finally:
            await database.close()

    async def layout(self) -> tuple[int | None, int]:
        """The version of the tables, `None` without any, and the one that this program writes; nothing is touched.

        Raises:
            StoreError: the store cannot be read.
        """
        shown = self.location.shown
        return await self._database.transact(lambda c: read_version(c, shown), write=False), SCHEMA_VERSION

    async def upgrade(self) -> tuple[int, int]:
        """Bring the tables up to date.

        Returns:
            The versions before and after.

        Raises:
            StoreError: there are none, they are newer, or the store cannot be written.
        """
        shown = self.location.shown
        # Read first: to open a file of SQLite for writing changes it, and what is refused is not touched.
        await self._database.transact(lambda connection: check_upgradable(connection, shown), write=False)
        return await self._upgrade()

    async def _promptly(self, step: Step[T]) -> tuple[T | None, bool]:
        """Take a step at once, where an earlier run found the tables up to date: it says itself what it needs of them.

        Returns:
            What came of it, `None` where it is not done or nobody knows; and whether it may have been done then.

        Raises:
            StoreError: the file was moved meanwhile, or others wrote for as long as may be waited.
        """
        if not self._ready and (not self._connections.was_current or self.blobs.has_url):
            return None, False
        self._check_process()
        try:
            return await Unbroken(self._database.take(step)), True
        except StoreUnreadable as error:
            if self.location.kind == "sqlite" and (isinstance(error, StoreBusy) or not error.undone):
                raise
            return None, not error.undone

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self.transact(work, write=False)

    async def surely(self, work: Callable[[Connection], T], is_done: Callable[[Connection], bool]) -> T:
        """A transaction, again where the answer to its commit was lost and it was not done.

        Args:
            work: the transaction.
            is_done: whether it was done after all; called first in a transaction that repeats it, and locks what that writes.
        """
        deadline = time.monotonic() + self.location.limits.reconnect_seconds
        pause = RECONNECT_PAUSE
        unheard: StoreUnreachable | None = None
        last: list[T] = []

        def first(connection: Connection) -> T:
            last[:] = [work(connection)]
            return last[0]

        def again(connection: Connection) -> T:
            return last[0] if last and is_done(connection) else first(connection)

        attempt = first
        while True:
            try:
                return await self.transact(attempt)
            except StoreUnreadable as error:
                if not isinstance(error, StoreUnreachable) or error.undone or time.monotonic() + pause > deadline:
                    if unheard is not None:  # that this try was not done tells nothing of the one before it
                        raise unheard from error
                    raise
                unheard = error
            attempt = again
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)
