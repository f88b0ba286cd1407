"""Statements by name: SQLite is given text that was compiled with this package, so that a run on it needs no SQLAlchemy.

To import SQLAlchemy and the models takes a process three times as long as to begin a run, or to go on with one. What they say of
each statement on SQLite is kept in `statements.json`, which `python -m checkpoint_plugin.compile_statements` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib import import_module
from pkgutil import get_data
from typing import Any, ClassVar, Final

from checkpoint_plugin.database.text import Text

__all__ = ["STATEMENTS", "Statement", "sqlite_schema", "table_columns"]

STATEMENTS: Final = "statements.json"
"""The file, beside this module."""


class Statement:
    """One that both databases are given, or SQLite alone.

    Args:
        module: where a function says it in the language of SQLAlchemy.
        function: its name.
        of: its arguments.
    """

    known: ClassVar[dict[str, Statement]] = {}
    """Every one, by name."""

    def __init__(self, module: str, function: str, *of: str) -> None:
        self._where = module, function
        self._of = of
        self.name = f"{module.removeprefix('checkpoint_plugin.')}.{function}({', '.join(of)})"
        self.known[self.name] = self

    @cached_property
    def definition(self) -> Any:
        """The statement, for SQLAlchemy."""
        module, function = self._where
        return getattr(import_module(module), function)(*self._of)

    @cached_property
    def on_sqlite(self) -> Text:
        """The statement, for the driver of SQLite."""
        return Text.of_sqlite(_kept()["statements"][self.name])

    def text(self, kind: str) -> Text:
        """The statement for the driver of a database."""
        if kind == "sqlite":
            return self.on_sqlite
        from checkpoint_plugin.database.compiling import for_postgresql

        return for_postgresql(self.definition)


def table_columns(table: str) -> tuple[str, ...]:
    """The columns of a table, in their order."""
    columns: Mapping[str, Sequence[str]] = _kept()["tables"]
    return tuple(columns[table])


def sqlite_schema() -> tuple[frozenset[str], Sequence[str]]:
    """The names of all tables, and what makes them and their indexes on SQLite."""
    kept = _kept()
    return frozenset(kept["tables"]), kept["schema"]


@cache
def _kept() -> Mapping[str, Any]:
    text = get_data(__package__, STATEMENTS)
    assert text is not None, "a part of this package"
    kept: Mapping[str, Any] = json.loads(text)
    return kept
