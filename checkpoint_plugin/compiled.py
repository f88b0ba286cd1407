"""A statement that was compiled once: SQLAlchemy takes longer to make a statement than a database to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ARRAY, DateTime, Dialect, TypeDecorator
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Compiled"]

Processor = Callable[[Any], Any]
AS_TEXT: Final = 26
"""Characters of a time on SQLite, where the zone is left out: all are UTC."""


class Compiled:
    """A statement as text, and how values become its parameters.

    Args:
        statement: any statement of SQLAlchemy.
        dialect: for which.
        names: of its parameters, in the order in which values are given.
        shared: how many of the first are the same for all rows; see `rows`.
    """

    def __init__(self, statement: Any, dialect: Dialect, names: Sequence[str], shared: int = 0) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect)
        self.sql = compiled.string
        places = tuple(compiled.positiontup or ())
        self._constants = [value for name, value in compiled.params.items() if name not in names]
        given = [*names, *(name for name in compiled.params if name not in names)]
        wanted = [given.index(name) for name in places]
        self._pick: Callable[[list[Any]], tuple[Any, ...]] = itemgetter(*wanted)
        if len(wanted) == 1:  # which gives no tuple then
            (only,) = wanted
            self._pick = lambda given: (given[only],)
        self._processors: list[tuple[int, Processor]] = []
        for place, name in enumerate(given):
            processor = _processor(compiled.binds[name].type, dialect)
            if processor is not None:
                self._processors.append((place, processor))
        self._of_shared = [(place, processor) for place, processor in self._processors if place < shared]
        self._of_rows = [(place, processor) for place, processor in self._processors if place >= shared]

    def parameters(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """Values as the statement takes them."""
        given = [*values, *self._constants]
        for place, processor in self._processors:
            if (value := given[place]) is not None:
                given[place] = processor(value)
        return self._pick(given)

    def rows(self, shared: Sequence[Any], rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """As `parameters` for many rows, whose first values are the same; made one by one, as a driver takes them."""
        head = list(shared)
        for place, processor in self._of_shared:
            if head[place] is not None:
                head[place] = processor(head[place])
        constants, processors, pick = self._constants, self._of_rows, self._pick
        for row in rows:
            given = [*head, *row, *constants]
            for place, processor in processors:
                if (value := given[place]) is not None:
                    given[place] = processor(value)
            yield pick(given)


def _processor(kind: Any, dialect: Dialect) -> Processor | None:
    """What a value that is not `None` goes through on its way to the driver; no processor where it is given as it is."""
    if isinstance(kind, ARRAY):
        return None
    inner = kind.impl if isinstance(kind, TypeDecorator) else kind
    if dialect.name == "sqlite" and isinstance(inner, DateTime):
        return _time_as_text
    processor: Processor | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor


@lru_cache(maxsize=64)
def _time_as_text(moment: datetime) -> str:
    """A time as SQLAlchemy writes it on SQLite, which takes it nine microseconds: three times a row were most of a row.

    That of a save stands in most of its rows.
    """
    if moment.tzinfo is not UTC:
        if moment.utcoffset() is None:
            raise ValueError(f"{moment} has no time zone, and could be any moment. Use datetime.now(UTC).")
        moment = moment.astimezone(UTC)
    return moment.isoformat(" ", "microseconds")[:AS_TEXT]
