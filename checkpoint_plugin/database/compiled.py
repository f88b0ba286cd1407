"""Statements of a hot path: values are given in a fixed order, and rows many at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat, zip_longest
from operator import itemgetter
from sqlite3 import SQLITE_LIMIT_VARIABLE_NUMBER, Connection
from typing import Any, Final

from checkpoint_plugin.database.text import Processor, Text

__all__ = ["Compiled", "Inserts"]

ROW: Final = re.compile(r"VALUES (\([^()]*\))")
"""Where the statement of a row has its values."""
ROWS: Final = (128, 64, 32, 16, 8, 4, 2, 1)
"""Of how many rows SQLite has a statement: more would not be faster."""
FEW: Final = 5
"""Rows of which one by one is faster than by column."""
LARGE_COPY: Final = 1 << 20
"""Bytes that SQLite is given together, about: the driver copies them, and each statement keeps its last ones while it is kept."""


class Compiled:
    """A statement whose values are given in an order of their own, not by name.

    Args:
        text: of the statement.
        names: of its parameters, in the order in which values are given.
        shared: how many of the first are the same for all rows, where there are many.
    """

    def __init__(self, text: Text, names: Sequence[str], shared: int = 0) -> None:
        self.sql = text.sql
        constants = {name: value for name, value in text.constants.items() if name not in names}
        self._constants = list(constants.values())
        given = [*names, *constants]
        self._wanted = [given.index(name) for name in text.places]
        self._pick: Callable[[list[Any]], tuple[Any, ...]] = itemgetter(*self._wanted)
        if len(self._wanted) == 1:  # which gives no tuple then
            (only,) = self._wanted
            self._pick = lambda given: (given[only],)
        self._processors: list[tuple[int, Processor]] = [
            (place, text.processors[name]) for place, name in enumerate(given) if name in text.processors
        ]

    def parameters(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """Values as the statement takes them."""
        given = [*values, *self._constants]
        for place, processor in self._processors:
            if (value := given[place]) is not None:
                given[place] = processor(value)
        return self._pick(given)


class Inserts(Compiled):
    """An insert of any number of rows into SQLite, in as few statements as there are bits in it.

    The driver lets other threads go on while a statement is executed, and waits for its turn after it. `executemany` does so
    at each row, which takes 3 µs alone, and ten times as long beside an event loop that is busy.

    Columns that are empty in all rows are so in the text: of each `None` that it is given, Python 3.11 asks whether somebody
    has registered another form, which takes it a quarter of a microsecond.
    """

    def __init__(self, text: Text, names: Sequence[str], shared: int = 0) -> None:
        super().__init__(text, names, shared)
        found = ROW.search(self.sql)
        assert found is not None
        assert found[1].count("?") == self.sql.count("?") == len(self._wanted), "only its rows have values"
        self._around = self.sql[: found.start(1)], found[1].split("?"), self.sql[found.end(1) :]
        self._of_rows = [(place, processor) for place, processor in self._processors if place >= shared]
        self._of_shared = [(place, processor) for place, processor in self._processors if place < shared]
        self._some: dict[int, _Some] = {}

    def execute(self, connection: Connection, shared: Sequence[Any], rows: Sequence[tuple[Any, ...]], size: int) -> None:
        """Insert rows.

        Args:
            connection: in a transaction.
            shared: the first values of all of them.
            rows: the others of each.
            size: bytes that all rows have at most.
        """
        left = len(rows)
        some, given = self._by_row(shared, rows) if left < FEW else self._by_column(shared, rows)
        most = min(connection.getlimit(SQLITE_LIMIT_VARIABLE_NUMBER) // len(some.wanted), LARGE_COPY * left // max(size, 1))
        if most <= 1:
            connection.executemany(some.statements[-1][1], given)
            return
        for many, sql in some.statements[-left.bit_length() :]:
            while many <= min(left, most):
                connection.execute(sql, tuple(chain.from_iterable(islice(given, many))))
                left -= many

    def _by_row(self, shared: Sequence[Any], rows: Sequence[tuple[Any, ...]]) -> tuple[_Some, Iterator[tuple[Any, ...]]]:
        return self._those(0), iter([self.parameters((*shared, *row)) for row in rows])

    def _by_column(self, shared: Sequence[Any], rows: Sequence[tuple[Any, ...]]) -> tuple[_Some, Iterator[tuple[Any, ...]]]:
        """Values as `parameters` gives them for each row, made a column at a time, without those that are empty."""
        columns: list[Any] = list(shared)
        for place, processor in self._of_shared:
            if columns[place] is not None:
                columns[place] = processor(columns[place])
        columns = list(map(repeat, columns))
        empty = 0
        for place, values in enumerate(zip(*rows, strict=True), len(columns)):
            if values[0] is None and values.count(None) == len(rows):
                empty |= 1 << place
            columns.append(values)
        columns += map(repeat, self._constants)
        for place, processor in self._of_rows:
            if not empty >> place & 1:
                columns[place] = [None if value is None else processor(value) for value in columns[place]]
        some = self._those(empty)
        of_rows = zip(*(columns[place] for place in some.wanted), strict=False)  # what all rows share has no end
        return some, islice(of_rows, len(rows))

    def _those(self, empty: int) -> _Some:
        """Those of rows in which some columns are empty, one bit a place."""
        some = self._some.get(empty)
        if some is None:
            before, texts, after = self._around
            values = ("NULL" if empty >> place & 1 else "?" for place in self._wanted)
            row = "".join(chain.from_iterable(zip_longest(texts, values, fillvalue="")))
            statements = [(many, f"{before}{', '.join([row] * many)}{after}") for many in ROWS]
            some = self._some[empty] = _Some([place for place in self._wanted if not empty >> place & 1], statements)
        return some


@dataclass(frozen=True, slots=True)
class _Some:
    """Inserts of rows in which the same columns are empty.

    Args:
        wanted: the places of the others, in the order of the statement.
        statements: by the number of their rows, the largest first.
    """

    wanted: Sequence[int]
    statements: Sequence[tuple[int, str]]
