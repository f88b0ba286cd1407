"""What a database does: one whole transaction as one function over a connection, so the statements exist once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, TypeVar

from checkpoint_plugin.database.connection import Connection

__all__ = ["Database", "Save", "Step", "write_step"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Step(Protocol[T_co]):
    """A write that is one statement on PostgreSQL, and a few on SQLite, which answers at once."""

    def is_compiled(self) -> bool:
        """Whether `statement` only has to fill in values."""

    def compile(self) -> None:
        """Make what `statement` fills in, once in the life of a process; it takes several milliseconds."""

    def statement(self) -> tuple[str, tuple[Any, ...]]:
        """For PostgreSQL."""

    def outcome(self, row: Any) -> T_co:
        """What came of it, by the row that `statement` gave; `None` where it gave none."""

    def write_sqlite(self, connection: Any) -> T_co:
        """The same on a connection of the standard library, in whose transaction nobody else can write."""


class Save(Step[bool], Protocol):
    """A step that is made first, and may be so large that a server is sent it in parts; its outcome is whether it was written."""

    @property
    def is_light(self) -> bool:
        """Whether encoding takes so little time that it is done on the event loop, where what it reads was just made."""

    @property
    def is_large(self) -> bool:
        """Whether it is too large for one message."""

    def encode(self) -> None:
        """Do what takes long and needs no connection."""

    def is_compiled(self, *, whole: bool = True) -> bool:
        """As of every step; not `whole` for a statement beside which parts are sent."""

    def compile(self, *, whole: bool = True) -> None:
        """As of every step; `whole` as in `is_compiled`."""

    def statement(self, *, whole: bool = True) -> tuple[str, tuple[Any, ...]]:
        """As of every step; `whole` as in `is_compiled`."""

    def payload_statements(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The parts that go before the statement."""

    def more_statements(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Those that follow it, where it was written."""


def write_step(connection: Connection, step: Step[T]) -> T:
    """Take a step in a transaction that has more to do."""
    if connection.kind == "postgresql":
        found = connection.core.exec_driver_sql(*step.statement())
        return step.outcome(found.first() if found.returns_rows else None)
    return step.write_sqlite(connection.driver)


class Database(Protocol):
    """Runs transactions."""

    groups_saves: ClassVar[bool]
    """Whether saves that wait for one another are sooner written in one transaction than one by one."""

    async def transact(
        self, work: Callable[[Connection], T], *, write: bool = True, before: Callable[[], object] | None = None
    ) -> T:
        """Run a function in one transaction: committed when it returns, rolled back when it raises.

        Once begun it is not interrupted by the cancellation of the caller, who still learns of the outcome first.

        Args:
            work: takes the connection.
            write: off for a function that only reads: it waits for no writer, and sees one moment in all its queries.
                Where the connection is lost and surely nothing was committed, the function is called again.
            before: what takes long and needs no connection: called first, off the event loop, while nothing is locked.

        Raises:
            StoreUnreachable: the connection was lost; it tells whether surely nothing was written.
            StoreUnreadable: the database refuses.
        """

    async def take(self, step: Step[T]) -> T:
        """A transaction of one step: one message to a server. Unlike `transact` it must not be cancelled.

        Raises:
            StoreUnreachable, StoreUnreadable: as `transact`.
        """

    async def save(self, save: Save) -> bool:
        """Encode and write one cut, in as few steps as the database has. Unlike `transact` it must not be cancelled.

        Returns:
            Whether it was written.

        Raises:
            StoreUnreachable: the connection was lost, and nobody knows whether it was written.
            StoreUnreadable: the database refuses.
            ValueNotStorable: a value cannot be stored; nothing was written.
        """

    async def give_back(self) -> None:
        """Give the space of deleted rows back to the system, where the database does not do so by itself."""

    async def rest(self) -> None:
        """Leave the database to itself, as a close does, but keep the connections: who moves or copies its file has it all."""

    async def compute(self, work: Callable[[], T]) -> T:
        """Run a function that takes long off the event loop."""

    def beside(self) -> Database:
        """The same database for what must not wait behind a long transaction of this one; it is closed apart from this."""

    def stands(self) -> bool:
        """Whether its connections, if it has any, lead to where new ones would."""

    def told(self, error: Exception) -> Exception:
        """What to tell for an error of its driver; any other is itself."""

    def unhurried(self) -> Database:
        """The same database for what may take long, as an upgrade of its tables; it is closed apart from this."""

    async def close(self) -> None:
        """Close every connection."""
