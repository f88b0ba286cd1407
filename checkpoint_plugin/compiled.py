"""A statement that was compiled once: SQLAlchemy takes longer to make a statement than a database to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import ARRAY, Dialect
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Compiled"]


class Compiled:
    """A statement as text, and how values become its parameters.

    Args:
        statement: any statement of SQLAlchemy.
        dialect: for which.
        names: of its parameters, in the order in which values are given.
    """

    def __init__(self, statement: Any, dialect: Dialect, names: Sequence[str]) -> None:
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
        self._processors: list[tuple[int, Callable[[Any], Any]]] = []
        for place, name in enumerate(given):
            kind = compiled.binds[name].type
            processor = None if isinstance(kind, ARRAY) else kind.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None:
                self._processors.append((place, _remembering(processor)))

    def parameters(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """Values as the statement takes them."""
        given = [*values, *self._constants]
        for place, processor in self._processors:
            given[place] = processor(given[place])
        return self._pick(given)

    def rows(self, shared: Sequence[Any], rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """As `parameters` for many rows, whose first values are the same; made one by one, as a driver takes them."""
        return (self.parameters((*shared, *row)) for row in rows)


def _remembering(processor: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same, for a value that often is the one before: all rows of a save have the same time, whose text takes 3 µs."""
    before: tuple[Any, Any] = (None, processor(None))

    def process(value: Any) -> Any:
        nonlocal before
        seen = before  # one object: several threads save
        if seen[0] is not value:
            before = seen = value, processor(value)
        return seen[1]

    return process
