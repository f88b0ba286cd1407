"""Statements of SQLAlchemy, compiled: to text for a driver, and for SQLite to the form in which it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import ARRAY, Boolean, DateTime, Dialect, Float, Integer, String, TupleType, TypeDecorator
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.sql.compiler import SQLCompiler

from checkpoint_plugin.database.sqlite_values import TO_SQLITE
from checkpoint_plugin.database.text import Processor, Text

__all__ = ["for_postgresql", "for_sqlite", "kind_of", "sqlite_dialect", "sqlite_entry"]

KINDS: Final[Mapping[type, str]] = {DateTime: "time", Boolean: "flag", Float: "float", Integer: "integer", String: "text"}
"""What is known of columns on SQLite, which keeps anything in any of them. Values of the first three have another form there."""


@cache
def sqlite_dialect() -> Dialect:
    """SQLite as its driver takes it."""
    return pysqlite.dialect()


@cache
def _postgresql_dialect() -> Dialect:
    dialect: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
    return dialect


def for_postgresql(statement: Any) -> Text:
    """A statement as asyncpg takes it; lists are arrays, and rows are as asyncpg gives them."""
    dialect = _postgresql_dialect()
    compiled: SQLCompiler = statement.compile(dialect=dialect)
    processors = {name: found for name, bind in compiled.binds.items() if (found := _processor(bind.type, dialect)) is not None}
    return Text(compiled.string, compiled.positiontup or (), _constants(compiled), processors)


def _processor(kind: Any, dialect: Dialect) -> Processor | None:
    if isinstance(kind, ARRAY):
        return None
    processor: Processor | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor


def for_sqlite(statement: Any) -> Text:
    """A statement as the driver of SQLite takes it."""
    return Text.of_sqlite(sqlite_entry(statement))


def sqlite_entry(statement: Any) -> dict[str, Any]:
    """What is kept of a statement for SQLite: arguments of `Text`, with the kinds of its parameters."""
    compiled: SQLCompiler = statement.compile(dialect=sqlite_dialect())
    places = list(compiled.positiontup or ())
    binds = {name: compiled.binds[name] for name in places}
    entry: dict[str, Any] = {
        "sql": compiled.string,
        "places": places,
        "constants": {name: value for name, value in _constants(compiled).items() if name in binds},
        "kinds": {name: kind for name, bind in binds.items() if (kind := kind_of(bind.type)) in TO_SQLITE},
        "lists": {name: _width(bind.type) for name, bind in binds.items() if bind.expanding},
        "columns": [[column.keyname, kind_of(column.type)] for column in compiled._result_columns],
    }
    if statement.get_execution_options().get("any_column"):
        entry["changes"] = {column.name: kind_of(column.type) for column in statement.table.columns}
    return {name: value for name, value in entry.items() if value}


def _constants(compiled: SQLCompiler) -> dict[str, Any]:
    """The values that the statement itself gives."""
    return {name: bind.value for name, bind in compiled.binds.items() if not bind.required}


def _width(kind: Any) -> int:
    return len(kind.types) if isinstance(kind, TupleType) else 1


def kind_of(kind: Any) -> str:
    """The kind of a column, by its type; empty for one whose values are given as they are."""
    inner = kind.impl if isinstance(kind, TypeDecorator) else kind
    return next((name for base, name in KINDS.items() if isinstance(inner, base)), "")
