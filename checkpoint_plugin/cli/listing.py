"""How commands print: a table for people, one JSON object for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

__all__ = ["one_line", "print_listing", "shown_time"]


def shown_time(moment: datetime | None) -> str | None:
    """A time in ISO form."""
    return None if moment is None else moment.isoformat()


def one_line(value: object) -> str:
    """A value on one line of a terminal: ids and errors may hold line breaks and escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def print_listing(
    document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool, quiet: bool
) -> None:
    """Print a document as JSON, or its rows as a table of some columns, empty where there is `None`; nothing when quiet."""
    if as_json:
        click.echo(json.dumps(document, default=str))  # SQLite keeps anything in any column, also where an id belongs
    elif not quiet:
        table = [columns, *([one_line("" if row[name] is None else row[name]) for name in columns] for row in rows)]
        widths = [max(len(row[place]) for row in table) for place in range(len(columns))]
        for row in table:
            click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
