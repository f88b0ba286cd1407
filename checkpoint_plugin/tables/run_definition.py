"""The row of what a run was started with: large, written once, and so not a part of the row that changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.stored_bytes.digests import digest_of
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.sealed_columns import seal_texts

__all__ = ["DEFINED", "TEXTS", "change_definition", "definition_columns", "opened_definition", "short_texts"]

TEXTS: Final = ("graph", "params")
"""Columns of `job` that show to people what `body` holds."""
DEFINED: Final = ("body", "digest", *TEXTS)
"""Columns of the row beside the run's id."""
LONG: Final = 8_192
"""Characters from which on such a text stands here: SQLite writes all of a row when one of its columns changes."""
CHANGE: Final = Statement("checkpoint_plugin.tables.row_sql", "change_definition")


def short_texts(texts: Mapping[str, str | None]) -> dict[str, str | None]:
    """The columns `TEXTS` of the run's row: what is long stands beside it."""
    return {name: text if text is not None and len(text) < LONG else None for name in TEXTS for text in [texts.get(name)]}


def definition_columns(run_id: str, body: bytes, texts: Mapping[str, str | None], seal: Seal) -> dict[str, Any]:
    """The row of a run.

    Args:
        run_id: the run.
        body: what a resume reads.
        texts: by the names of `TEXTS`, for people.
        seal: of the run.
    """
    sealed = seal.seal(body, b"definition")
    short = short_texts(texts)
    long = {name: texts.get(name) if short[name] is None else None for name in TEXTS}
    return {"body": sealed, "digest": digest_of(run_id.encode(), sealed), **seal_texts(long, TEXTS, seal)}


def change_definition(connection: Connection, run_id: str, body: bytes, texts: Mapping[str, str | None], seal: Seal) -> None:
    """Write the row of a run anew, where it is there; arguments as for `definition_columns`."""
    connection.execute(CHANGE, {"of_run": run_id, **definition_columns(run_id, body, texts, seal)})


def opened_definition(run_id: str, row: Any, seal: Seal) -> bytes:
    """What a row holds, for the codec to decode.

    Args:
        run_id: the run.
        row: with `body` and `digest`, both empty where there is no row.
        seal: of the run.

    Raises:
        StoreDamaged: the row is missing or was changed.
        MalformedValue: it was sealed for something else.
    """
    if row.body is None or row.digest is None or digest_of(run_id.encode(), column_bytes(row.body)) != column_bytes(row.digest):
        raise StoreDamaged(run_id, "its graph and inputs were changed")
    return seal.open(column_bytes(row.body), b"definition")
