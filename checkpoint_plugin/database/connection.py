"""A connection in a transaction, as the functions of a transaction are given one."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from checkpoint_plugin.database.sqlite_rows import Rows
from checkpoint_plugin.database.sqlite_values import ValueRefused
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.database.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy

__all__ = ["Connection", "PostgresTransaction", "SqliteTransaction"]

REFUSED: Final = (UnicodeEncodeError, OverflowError)
"""What the driver of SQLite raises for a text with a lone surrogate, and for a number beyond 64 bits."""


class TransactionEnded(sqlite3.OperationalError):
    """Raised where an error in a part of a transaction of SQLite has undone all of it, as a full disk does."""


class Connection(ABC):
    """Executes statements by name, and whatever SQLAlchemy can say through `core`.

    Attributes:
        kind: of the database.
    """

    kind: Literal["sqlite", "postgresql"]

    def execute(self, statement: Statement | sqlalchemy.Executable, values: Any = None) -> Any:
        """Execute a statement.

        Args:
            statement: by name, or of SQLAlchemy, which SQLite needs SQLAlchemy for.
            values: of its parameters.

        Returns:
            Its rows: a result of SQLAlchemy, or `Rows`, which can a part of what that can, under the same names.
        """
        if isinstance(statement, Statement):
            return self._execute(statement, values or {})
        return self.core.execute(statement, values)

    @abstractmethod
    def execute_many(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute a statement once for each of some values, which have the same names."""

    @abstractmethod
    def _execute(self, statement: Statement, values: Mapping[str, Any]) -> Any: ...

    @abstractmethod
    def tuples(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Any]:
        """All rows of a query of texts, numbers and bytes as the driver gives them: objects take as long again."""

    @property
    @abstractmethod
    def core(self) -> sqlalchemy.Connection:
        """The connection of SQLAlchemy, in this transaction."""

    @property
    @abstractmethod
    def driver(self) -> Any:
        """The connection of the driver; on PostgreSQL it must be awaited."""

    @abstractmethod
    def nested(self) -> AbstractContextManager[Any]:
        """A part of the transaction that is undone alone where it raises.

        Raises:
            TransactionEnded: what it raised had undone the whole transaction.
        """


class PostgresTransaction(Connection):
    """One on PostgreSQL: SQLAlchemy lets functions wait there that are not coroutines.

    Args:
        core: of SQLAlchemy, begun.
    """

    kind = "postgresql"

    def __init__(self, core: sqlalchemy.Connection) -> None:
        self._core = core

    def _execute(self, statement: Statement, values: Mapping[str, Any]) -> Any:
        return self._core.execute(statement.definition, values)

    def execute_many(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> None:
        self._core.execute(statement.definition, rows)

    def tuples(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Any]:
        result = self._core.execute(statement.definition, values)
        rows = result.cursor.fetchall() if result.cursor is not None else ()
        result.close()
        return rows

    @property
    def core(self) -> sqlalchemy.Connection:
        return self._core

    @property
    def driver(self) -> Any:
        return self._core.connection.driver_connection

    def nested(self) -> AbstractContextManager[Any]:
        return self._core.begin_nested()


class SqliteTransaction(Connection):
    """One on SQLite; who makes it begins it and ends it.

    Args:
        raw: of the standard library.
        engine: gives the engine of SQLAlchemy over it, which most transactions never need.
    """

    kind = "sqlite"

    def __init__(self, raw: sqlite3.Connection, engine: Callable[[], sqlalchemy.Engine]) -> None:
        self._raw = raw
        self._engine = engine
        self._core: sqlalchemy.Connection | None = None

    def _execute(self, statement: Statement, values: Mapping[str, Any]) -> Rows:
        text = statement.on_sqlite
        return Rows(self._sent(text, values), text.row, text.made)

    def execute_many(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> None:
        text = statement.on_sqlite
        try:
            self._raw.executemany(text.sql, (text.filled(row)[1] for row in rows))
        except REFUSED as error:
            raise ValueRefused(str(error)) from error

    def tuples(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Any]:
        return self._sent(statement.on_sqlite, values).fetchall()

    def _sent(self, text: Text, values: Mapping[str, Any]) -> sqlite3.Cursor:
        try:
            return self._raw.execute(*text.filled(values))
        except REFUSED as error:
            raise ValueRefused(str(error)) from error

    @property
    def core(self) -> sqlalchemy.Connection:
        if self._core is None:
            self._core = self._engine().connect()
        return self._core

    @property
    def driver(self) -> sqlite3.Connection:
        return self._raw

    @contextmanager
    def nested(self) -> Iterator[None]:
        self._raw.execute("SAVEPOINT part")
        try:
            yield
        except BaseException as error:
            if not self._raw.in_transaction:
                raise TransactionEnded(str(error)) from error
            self._raw.execute("ROLLBACK TO part")
            self._raw.execute("RELEASE part")
            raise
        self._raw.execute("RELEASE part")

    def close(self) -> None:
        """The transaction is over: SQLAlchemy gives the connection back."""
        if self._core is not None:
            self._core.close()
