"""Which files the rows of a run mention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select

from checkpoint_plugin.blobs.name import BlobName, read_name
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.models import PAYLOAD

__all__ = ["fetch_names", "named"]


def fetch_names(connection: Connection, run_id: str) -> Sequence[str]:
    """The names of a run's files, as its rows keep them."""
    query = select(PAYLOAD.c.blob).where(PAYLOAD.c.run_id == run_id, PAYLOAD.c.blob.is_not(None))
    return list(connection.execute(query).scalars())


def named(run_id: str, names: Iterable[str]) -> list[BlobName]:
    """Names that rows keep; one that is none of ours names no file, and is left out."""
    found = []
    for name in names:
        try:
            found.append(read_name(name, run_id))
        except MalformedValue:
            continue
    return found
