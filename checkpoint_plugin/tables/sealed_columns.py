"""Columns that people read, of runs that are encrypted: sealed in the database, opened for whoever has the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Final

from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import KeyMissing, StoreDamaged
from checkpoint_plugin.stored_bytes.sealing import PLAIN, SEALED_TEXT, Seal
from checkpoint_plugin.tables.keys import RunKeys

__all__ = ["JOB_TEXTS", "NODE_TEXTS", "open_texts", "opened_row", "readable_seal", "seal_texts", "shown_row"]

JOB_TEXTS: Final = (
    "error",
    "error_message",
    "suspension_reason",
    "suspension_state_json",
    "suspension_metadata_json",
    "metadata_json",
    "degraded",
    "logs",
    "graph",
    "params",
)
HIDDEN: Final = "(encrypted)"
NODE_TEXTS: Final = ("last_error", "suspension_reason", "suspension_metadata_json", "resume_state_json", "outputs_json")


def seal_texts(values: Mapping[str, Any], names: Iterable[str], seal: Seal) -> dict[str, Any]:
    """Values of columns as they are stored. What was read without a key is sealed already, and stays.

    Args:
        values: by column.
        names: of the columns to seal, where they are given.
        seal: of the run.
    """
    found = dict(values)
    if seal is not PLAIN:
        for name in names:
            text = found.get(name)
            if text is not None and not _is_sealed(text, seal):
                found[name] = seal.seal_text(text)
    return found


def _is_sealed(text: str, seal: Seal) -> bool:
    """Whether it was sealed with the run's key; a text of the caller's own may begin like one that was."""
    if not text.startswith(SEALED_TEXT):
        return False
    try:
        seal.open_text(text)
    except MalformedValue:
        return False
    return True


def open_texts(run_id: str, values: Mapping[str, Any], names: Iterable[str], seal: Seal) -> dict[str, Any]:
    """Values of columns as they were before they were sealed.

    Raises:
        StoreDamaged: one was not sealed with the key of the run.
    """
    found = dict(values)
    if seal is not PLAIN:
        for name in names:
            text = found.get(name)
            try:
                found[name] = None if text is None else seal.open_text(text)
            except (MalformedValue, TypeError) as error:  # SQLite keeps anything in any column
                raise StoreDamaged(run_id, f"its column {name!r}: {error}") from error
    return found


def opened_row(run_id: str, row: Any, names: Iterable[str], seal: Seal) -> Any:
    """A row whose columns are opened, with the same names."""
    return row if seal is PLAIN else SimpleNamespace(**open_texts(run_id, row._mapping, names, seal))


def shown_row(keys: RunKeys, connection: Connection, run_id: str, row: Any, names: Iterable[str]) -> Any:
    """A row for people to read: opened with the run's key; without it, `(encrypted)` stands where a text is sealed.

    Raises:
        StoreDamaged: a text of a run whose key is given was not sealed with it: what people decide by is nobody else's.
    """
    names = tuple(name for name in names if row._mapping.get(name) is not None)
    sealed = tuple(name for name in names if str(row._mapping[name]).startswith(SEALED_TEXT))
    if not sealed and (keys.ring is None or not names):
        return row
    try:
        seal = keys.find(connection, run_id)
    except KeyMissing:
        return SimpleNamespace(**{**row._mapping, **dict.fromkeys(sealed, HIDDEN)})
    return opened_row(run_id, row, names, seal)


def readable_seal(keys: RunKeys, connection: Connection, run_id: str) -> Seal:
    """The seal of a run; without its key one that leaves everything as it is, so that a list can be shown."""
    try:
        return keys.find(connection, run_id)
    except KeyMissing:
        return PLAIN
