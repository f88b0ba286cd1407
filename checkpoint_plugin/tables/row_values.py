"""What callers give for columns of the rows that people read: taken as it is, escaped, or refused before the store sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import Boolean, DateTime, Float, Integer, String, Table
from sqlalchemy.types import TypeDecorator

from checkpoint_plugin.bounds import LARGEST_INTEGER
from checkpoint_plugin.errors import FieldInvalid
from checkpoint_plugin.models import JOB, RUN_NODE_STATE
from checkpoint_plugin.status import NODE_STATUSES, RUN_STATUSES
from checkpoint_plugin.tables.definition import storable_text
from checkpoint_plugin.tables.field_checks import check_flag, check_float, check_moment, check_number, check_text
from hookspecs import shorten

__all__ = ["checked_row"]

ESCAPED: Final = frozenset({"error", "error_message", "last_error", "suspension_reason", "degraded"})
"""Texts that only people read: what no database keeps is escaped in them, as in the errors of nodes."""
STATUSES: Final = {JOB.name: ("run", RUN_STATUSES), RUN_NODE_STATE.name: ("node", NODE_STATUSES)}
"""Of what a table's rows are, and their statuses."""
Check = Callable[[str, str, Any], object]
"""Raises for a value that its column cannot hold; takes what the row is of, the column's name, and the value."""


def checked_row(where: str, table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of columns as every database takes them.

    Args:
        where: what the row is of, for errors.
        table: of the row.
        values: by column.

    Raises:
        FieldInvalid: a column cannot hold its value.
    """
    found = dict(values)
    for name, value in values.items():
        check, nullable = _checks(table)[name]
        if value is None:
            if not nullable:
                raise FieldInvalid(where, f"{name} cannot be cleared. Give it a value.")
            continue
        if name == "status":
            _check_status(where, table, value)
        elif name in ESCAPED and isinstance(value, str):
            found[name] = storable_text(value)
        else:
            check(where, name, value)
    return found


def _check_status(where: str, table: Table, value: object) -> None:
    what, known = STATUSES[table.name]
    if not isinstance(value, str) or value not in known:
        raise FieldInvalid(where, f"{shorten(value)} is no status of a {what}. Use one of {', '.join(sorted(known))}.")


BY_TYPE: Final[Mapping[type, Check]] = {
    String: check_text,
    DateTime: check_moment,
    Boolean: check_flag,
    Integer: check_number,
    Float: check_float,
}
BY_COLUMN: Final[Mapping[tuple[str, str], Check]] = {
    (JOB.name, "attempt"): partial(check_number, least=1, most=LARGEST_INTEGER - 1),  # as `is_attempt` reads it
    (RUN_NODE_STATE.name, "attempt"): partial(check_number, least=0),
}


@cache
def _checks(table: Table) -> Mapping[str, tuple[Check, bool]]:
    """The check of each column, and whether it may be empty."""
    found = {}
    for column in table.columns:
        kind = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
        by_type = next(check for base, check in BY_TYPE.items() if isinstance(kind, base))
        found[column.name] = BY_COLUMN.get((table.name, column.name), by_type), bool(column.nullable)
    return found
