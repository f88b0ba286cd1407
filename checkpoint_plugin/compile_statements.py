"""Writes `database/statements.json`: what SQLAlchemy makes of the statements that SQLite is given as text.

Run `python -m checkpoint_plugin.compile_statements` after the models or such a statement have changed; a test compares both.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sqlalchemy.schema import CreateIndex, CreateTable

from checkpoint_plugin.database import statement
from checkpoint_plugin.database.compiling import sqlite_dialect, sqlite_entry
from checkpoint_plugin.models import Base

__all__ = ["compile_all", "main"]

USERS: Final = ("store", "events.rows", "runs.answers", "runs.suspended_nodes")
"""Modules that import every one that names a statement."""


def _tables() -> dict[str, Any]:
    tables = Base.metadata.sorted_tables
    dialect = sqlite_dialect()
    made = [str(part.compile(dialect=dialect)).strip() for table in tables for part in _parts(table)]
    return {"tables": {table.name: [column.name for column in table.columns] for table in tables}, "schema": made}


def _parts(table: Any) -> list[Any]:
    return [CreateTable(table), *(CreateIndex(index) for index in sorted(table.indexes, key=lambda index: str(index.name)))]


def compile_all() -> dict[str, Any]:
    """The content of the file."""
    for name in USERS:
        import_module(f"checkpoint_plugin.{name}")
    known = statement.Statement.known
    return {**_tables(), "statements": {name: sqlite_entry(known[name].definition) for name in sorted(known)}}


def main() -> None:
    """Write it."""
    path = Path(str(statement.__file__)).with_name(statement.STATEMENTS)
    path.write_text(json.dumps({**_tables(), "statements": {}}))  # the columns of tables, which other modules read
    path.write_text(json.dumps(compile_all(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
