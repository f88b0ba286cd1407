"""A statement as text, and what its values go through: all that is left of it once SQLAlchemy has compiled it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from checkpoint_plugin.database.sqlite_rows import FROM_SQLITE, Row, row_class
from checkpoint_plugin.database.sqlite_values import TO_SQLITE

__all__ = ["Processor", "Text"]

Processor = Callable[[Any], Any]


@dataclass(frozen=True)
class Text:
    """A statement for one database.

    Args:
        sql: as it is sent.
        places: the names of its parameters, in the order in which it has them.
        constants: the values of those that the statement itself gives.
        processors: what values that are not `None` go through on their way to the driver, by the names of their parameters.
        lists: of each parameter that is a list, how many columns its values have.
        changes: of an update that may change any column of its table, the kind of each column.
        columns: the name and the kind of each column of its rows.
    """

    sql: str
    places: Sequence[str] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    processors: Mapping[str, Processor] = field(default_factory=dict)
    lists: Mapping[str, int] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[tuple[str, str]] = ()

    @classmethod
    def of_sqlite(cls, entry: Mapping[str, Any]) -> Text:
        """One from the form in which it is kept; see `compiling.sqlite_entry`."""
        kinds = entry.get("kinds", {})
        processors = {name: TO_SQLITE[kind] for name, kind in kinds.items()}
        return cls(processors=processors, **{name: value for name, value in entry.items() if name != "kinds"})

    @cached_property
    def row(self) -> type[Row] | None:
        """What its rows are on SQLite; `None` where it has none."""
        return row_class([name for name, _ in self.columns]) if self.columns else None

    @cached_property
    def made(self) -> Sequence[tuple[int, Processor]]:
        """What the values of its rows are made into on SQLite, by place."""
        return [(place, FROM_SQLITE[kind]) for place, (_, kind) in enumerate(self.columns) if kind in FROM_SQLITE]

    def filled(self, values: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
        """The statement with values, by name, as SQLite takes them; those that it does not have are columns to change."""
        sql, places = self.sql, self.places
        if self.changes:
            changed = [name for name in values if name not in places]
            sql = sql.replace(" SET ", f" SET {''.join(f'{name}=?, ' for name in changed)}", 1)
            places = [*changed, *places]
        for name, width in self.lists.items():
            sql = sql.replace(_hole(name), _marks(len(values[name]), width), 1)
        return sql, list(self._in_order(places, values))

    def _in_order(self, places: Sequence[str], values: Mapping[str, Any]) -> Iterator[Any]:
        for name in places:
            value = self.constants[name] if name in self.constants else values[name]
            if (width := self.lists.get(name)) is not None:
                yield from value if width == 1 else (part for row in value for part in row)
            elif value is None:
                yield None
            else:
                processor = self.processors.get(name) or TO_SQLITE.get(self.changes.get(name, ""))
                yield value if processor is None else processor(value)


def _hole(name: str) -> str:
    """Where SQLAlchemy leaves room for a list."""
    return f"__[POSTCOMPILE_{name}]"


def _marks(many: int, width: int) -> str:
    """As many question marks as a list needs; SQLite takes rows as values only."""
    if width == 1:
        return ", ".join("?" * many)
    row = f"({', '.join('?' * width)})"
    return f"VALUES {', '.join([row] * many)}"
