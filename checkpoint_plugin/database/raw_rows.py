"""Rows as the driver gives them: for who looks at what may be damaged, or at very many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import and_, or_, type_coerce
from sqlalchemy.types import NullType

from checkpoint_plugin.database.connection import Connection

__all__ = ["PAGE", "pages", "raw"]

PAGE: Final = 2_000


def raw(column: Any) -> Any:
    """A column as the driver gives it: a value of another type is then one row's damage, not that of all."""
    return type_coerce(column, NullType()).label(column.name)


def pages(connection: Connection, query: Any, order: Sequence[Any]) -> Iterator[Any]:
    """Rows by their key, some at a time: a run may have millions."""
    after: Any = None
    while True:
        part = query.order_by(*order).limit(PAGE)
        rows = connection.execute(part if after is None else part.where(after)).all()
        yield from rows
        if len(rows) < PAGE:
            return
        last = rows[-1]._mapping
        after = or_(
            *(
                and_(*(column == last[column.name] for column in order[:place]), column > last[column.name])
                for place, column in enumerate(order)
            )
        )
