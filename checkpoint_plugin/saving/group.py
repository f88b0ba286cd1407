"""Group commit: what is to be written at the same time shares a transaction.

It is the natural state of the writer, not a timer: while one transaction is on its way to the disk, others gather, and the
next takes them all. One that is refused fails alone, also where it fills the disk, which undoes them all: then each has a
transaction of its own. A server is sent the cuts of runs one by one, each in one message, and
lets commits that come at the same time share the disk by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeVar, runtime_checkable

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.refusal import concerns_all
from checkpoint_plugin.database.transaction import Database
from checkpoint_plugin.database.unbroken import Unbroken
from checkpoint_plugin.errors import StoreBusy, StoreUnreachable, StoreUnreadable
from checkpoint_plugin.saving.writing import CutWriter

__all__ = ["GroupWriter", "Write"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


@runtime_checkable
class Write(Protocol[T_co]):
    """Something to be written."""

    @property
    def run_id(self) -> str:
        """Of which run: its lease is locked while it is written."""

    def encode(self) -> None:
        """Do what takes long and needs no connection; called off the event loop, while nothing is locked."""

    def write(self, connection: Connection) -> T_co:
        """Write it in a transaction, which others may share: what it raises undoes this one alone."""


class GroupWriter:
    """Writes what is handed to it, of each run in order, one transaction after the other.

    Args:
        database: where.
        most: writes that share a transaction at most.
    """

    def __init__(self, database: Database, most: int = 256) -> None:
        self._database = database
        self._most = most
        self._waiting: list[tuple[Write[Any], asyncio.Future[Any]]] = []
        self._idle = asyncio.Event()
        """Whether nothing is written in turn, and so nothing waits."""
        self._idle.set()
        self._alone = 0
        """Cuts that are written by themselves."""
        self._none_alone = asyncio.Event()
        self._none_alone.set()
        self._task: asyncio.Task[None] | None = None

    async def save(self, cut: CutWriter) -> bool:
        """Write a cut; as `write`.

        Returns:
            Whether it was written.
        """
        if self._database.groups_saves:
            return await self.write(cut)
        self._alone += 1
        self._none_alone.clear()
        try:
            return await self._database.save(cut)
        finally:
            self._alone -= 1
            if not self._alone:
                self._none_alone.set()

    async def write(self, write: Write[T]) -> T:
        """Write something; who calls it must not be cancelled (`Unbroken`): others may wait with it.

        Returns:
            What its `write` gave, once it is durable.

        Raises:
            StoreError: the store cannot be used.
            Exception: what its `encode` or `write` raised; nothing of it was written.
        """
        if not self._idle.is_set():
            future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._waiting.append((write, future))
            return await future
        self._idle.clear()
        try:
            (outcome,) = await self._write([write])
        finally:
            self._next()
        if isinstance(outcome, BaseException):
            raise outcome
        found: T = outcome
        return found

    async def finish(self) -> None:
        """Wait until everything that was handed to it is written, also when cancelled meanwhile.

        Raises:
            asyncio.CancelledError: the caller was cancelled; raised when all is written.
        """
        cancelled: asyncio.CancelledError | None = None
        while self._alone or not self._idle.is_set():
            try:
                await self._idle.wait()
                await self._none_alone.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _next(self) -> None:
        """A transaction is over: the next takes all that wait, in a task of its own, so that nobody works for others."""
        if self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._drain(), name="workflow-checkpoint-writer")
        else:
            self._idle.set()
            self._task = None

    async def _drain(self) -> None:
        group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        outcomes: list[Any] = []

        async def write() -> None:
            outcomes.extend(await self._write_together([write for write, _ in group]))

        cancelled: asyncio.CancelledError | None = None
        try:
            await Unbroken(write())
        except asyncio.CancelledError as error:  # an event loop that ends cancels all tasks, and waits for who waits here
            cancelled = error
            outcomes = outcomes or [error.__cause__ or error] * len(group)
        except Exception as error:  # the transaction as a whole: everybody in it is told
            outcomes = [error] * len(group)
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._next()
        if cancelled is not None:
            raise cancelled

    async def _write_together(self, group: list[Write[Any]]) -> list[Any]:
        try:
            return await self._write(group)
        except (StoreBusy, StoreUnreachable):  # it would be so for each of them
            raise
        except StoreUnreadable as error:
            if len(group) == 1 or not error.undone:
                raise
        outcomes: list[Any] = []
        for write in group:
            try:
                outcomes += await self._write([write])
            except (StoreBusy, StoreUnreachable) as error:  # now, too: nobody waits for it as often as there are others
                return outcomes + [error] * (len(group) - len(outcomes))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    async def _write(self, group: list[Write[Any]]) -> list[Any]:
        first = group[0]
        if len(group) == 1 and isinstance(first, CutWriter):
            return [await self._database.save(first)]
        refused: dict[int, Exception] = {}
        # Sorted by their runs: processes that lock the same ones in different orders wait for each other, until one is refused.
        places = sorted(range(len(group)), key=lambda place: group[place].run_id)

        def encode() -> None:
            for place, write in enumerate(group):
                try:
                    write.encode()
                except Exception as error:
                    refused[place] = error

        def write_all(connection: Connection) -> list[Any]:
            outcomes: list[Any] = [None] * len(group)  # made anew each time that a lost connection lets this be called again
            for place in places:
                if place in refused:
                    outcomes[place] = refused[place]
                    continue
                if len(group) == 1:
                    outcomes[place] = group[place].write(connection)
                    continue
                try:
                    with connection.nested():
                        outcomes[place] = group[place].write(connection)
                except Exception as error:
                    if concerns_all(error):
                        raise
                    outcomes[place] = self._database.told(error)
            return outcomes

        found: list[Any] = await self._database.transact(write_all, before=encode)
        return found
