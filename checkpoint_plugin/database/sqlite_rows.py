"""Rows as SQLite gives them: SQLite keeps anything in any column, and what cannot be read raises here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from sqlite3 import Cursor
from typing import TYPE_CHECKING, Any, ClassVar, Final

__all__ = ["FROM_SQLITE", "Row", "Rows", "row_class"]


def _time_from_text(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


FROM_SQLITE: Final[Mapping[str, Callable[[Any], Any]]] = {"time": _time_from_text, "flag": bool}
"""What values that are not `None` are made into, by the kind of their column; those of other kinds stay as they are."""


class Row(tuple[Any, ...]):
    """Values of a row by place, and by the names of their columns: each statement has a class of its own for its rows."""

    __slots__ = ()
    names: ClassVar[Sequence[str]] = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @property
    def _mapping(self) -> Mapping[str, Any]:
        """By name, as SQLAlchemy's rows have it."""
        return dict(zip(self.names, self, strict=True))


def row_class(names: Sequence[str]) -> type[Row]:
    """The class of rows that have these columns."""
    by_name = {name: property(itemgetter(place)) for place, name in enumerate(names)}
    return type("Row", (Row,), {"__slots__": (), "names": tuple(names), **by_name})


class Rows:
    """What came of a statement: a part of what SQLAlchemy's results can do, under the same names.

    Args:
        cursor: that has executed it.
        kind: of its rows; `None` where it has none.
        made: by place, what values are made into.
    """

    def __init__(self, cursor: Cursor, kind: type[Row] | None, made: Sequence[tuple[int, Callable[[Any], Any]]]) -> None:
        self.rowcount: int = cursor.rowcount
        self._rows: Sequence[Row] = ()
        if kind is not None:
            found = cursor.fetchall()
            self._rows = [kind(_made(row, made)) for row in found] if made else [kind(row) for row in found]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def all(self) -> Sequence[Row]:
        """Every row."""
        return self._rows

    def first(self) -> Row | None:
        """The first row; `None` where there is none."""
        return self._rows[0] if self._rows else None

    def scalars(self) -> Iterator[Any]:
        """The first column of every row."""
        return (row[0] for row in self._rows)

    def scalar_one_or_none(self) -> Any:
        """The first column of the only row; `None` where there is none.

        Raises:
            ValueError: there are several.
        """
        if not self._rows:
            return None
        (row,) = self._rows
        return row[0]


def _made(row: Sequence[Any], made: Sequence[tuple[int, Callable[[Any], Any]]]) -> Sequence[Any]:
    values = list(row)
    for place, make in made:
        if (value := values[place]) is not None:
            values[place] = make(value)
    return values
