"""The queries of a restore: how many they are does not depend on the number of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.bounds import check_number, no_checkpoint
from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.saving.completed import Blocks
from checkpoint_plugin.saving.payloads import PayloadReader, PayloadRow, SegmentRow
from checkpoint_plugin.stored_bytes.sealing import Seal

__all__ = ["fetch_blocks", "fetch_continued", "fetch_head", "fetch_nodes", "fetch_segments", "load_payloads"]

FEW: Final = 8
"""Numbers of checkpoints among which the rows of nodes are looked for one by one."""
SQL: Final = "checkpoint_plugin.restoring.cut_sql"
NEWEST: Final = Statement(SQL, "head", "newest")
WANTED: Final = Statement(SQL, "head", "wanted")
BLOCKS: Final = Statement(SQL, "blocks")
NEWEST_ROWS: Final = Statement(SQL, "newest_rows")
ROWS_BY_PAIR: Final = Statement(SQL, "rows_by_pair")
ROWS_BY_PARTS: Final = Statement(SQL, "rows_by_parts")
CONTINUED: Final = Statement(SQL, "continued_rows")
SEGMENTS: Final = Statement(SQL, "segments")
PAYLOADS: Final = Statement(SQL, "payloads")
PARTS: Final = Statement(SQL, "series_parts")
STORED: Final = Statement(SQL, "series_stored")


def fetch_head(connection: Connection, run_id: str, number: int | None) -> Any:
    """The row of a checkpoint, of the newest without a number, and what the lease and the rows say is the newest.

    Returns:
        `None` when the run has no checkpoint.

    Raises:
        StoreDamaged: they do not agree.
        StoreError: there is no checkpoint of that number.
    """
    check_number(run_id, number)
    head = connection.execute(NEWEST if number is None else WANTED, {"run": run_id, "wanted": number}).first()
    if head is not None and head.newest_number is None:
        raise StoreDamaged(run_id, "it has no row in lease")
    if head is not None and head.number is not None:
        if number is None and head.last_number != head.newest_number:
            raise StoreDamaged(
                run_id, f"its lease names {head.newest_number} as the newest checkpoint, which is {head.last_number}"
            )
        return head
    if number is not None:
        raise no_checkpoint(run_id, number)
    if head is not None and head.newest_number:
        raise StoreDamaged(run_id, "the checkpoint itself is missing", head.newest_number)
    return None


def fetch_blocks(connection: Connection, run_id: str) -> Sequence[Any]:
    """The blocks of completed nodes, in the order of their numbers: number, body and digest."""
    return connection.tuples(BLOCKS, {"run": run_id})


def fetch_nodes(connection: Connection, run_id: str, head: Any, blocks: Blocks) -> Sequence[Any]:
    """The rows of all nodes of a checkpoint but those of which blocks tell: id, number, body, digest, and what it continues."""
    rows: Sequence[Any] = ()
    if blocks.number < head.number:
        rows = connection.tuples(NEWEST_ROWS, {"run": run_id, "after": blocks.number, "upto": head.number})
    newer = {row[0] for row in rows} if blocks.open else set()
    older = {node_id: number for node_id, number in blocks.open.items() if node_id not in newer}
    return [*rows, *_fetch_older(connection, run_id, older)] if older else rows


def _fetch_older(connection: Connection, run_id: str, wanted: Mapping[str, int]) -> Sequence[Any]:
    """The rows of nodes of which each has the number that is named."""
    numbers = sorted(set(wanted.values()))
    if len(numbers) > FEW:
        pairs = [(number, node_id) for node_id, number in wanted.items()]
        parts = batches(connection, pairs, columns=2)
        return [row for part in parts for row in connection.tuples(ROWS_BY_PAIR, {"run": run_id, "pairs": part})]
    # SQLite finds each by its key; with pairs it looks at all rows of a number, which may be those of the whole run.
    found: list[Any] = []
    for batch in batches(connection, sorted(wanted)):
        found += connection.tuples(ROWS_BY_PARTS, {"run": run_id, "numbers": numbers, "node_ids": batch})
    return [row for row in found if wanted[row[0]] == row[1]]


def fetch_continued(connection: Connection, run_id: str, rows: Iterable[Any]) -> Mapping[str, Sequence[Any]]:
    """The rows that others continue, of each node from its oldest.

    Args:
        connection: for reading.
        run_id: the run.
        rows: newest rows of nodes, as `fetch_nodes` gives them.
    """
    pairs = [(row[4], row[0]) for row in rows if row[4] is not None]
    found: dict[str, list[Any]] = {}
    for part in batches(connection, pairs, columns=2):
        for row in connection.tuples(CONTINUED, {"run": run_id, "pairs": part}):
            found.setdefault(row[0], []).append(row)
    return {node_id: sorted(older, key=itemgetter(1)) for node_id, older in found.items()}


def fetch_segments(connection: Connection, run_id: str, head: Any) -> Sequence[Any]:
    """The rows of the items that outputs had collected at a checkpoint, in their order."""
    rows: Sequence[Any] = connection.execute(SEGMENTS, {"run": run_id, "log": head.log, "upto": head.number}).all()
    return rows


def load_payloads(
    connection: Connection, run_id: str, digests: Iterable[bytes], seal: Seal, blobs: Blobs | None
) -> PayloadReader:
    """Read payloads and what they grew out of, not yet compared with their digests."""
    found: dict[bytes, PayloadRow] = {}
    for batch in batches(connection, sorted(digests)):
        for digest, encoding, size, body, *series in connection.execute(PAYLOADS, {"run": run_id, "digests": batch}):
            body, digest = column_bytes(body), column_bytes(digest)
            found[digest] = PayloadRow(digest, encoding, len(body) if size is None else size, body, *series)
    ends: dict[int, int] = {}
    for row in found.values():
        if row.series is not None:
            ends[row.series] = max(ends.get(row.series, 0), row.series_end or 0)
    segments: list[SegmentRow] = []
    for some in batches(connection, sorted(ends)):
        of_some = {"run": run_id, "series": some}
        rows = connection.execute(PARTS, {**of_some, "end": max(ends[series] for series in some)})
        segments += [
            SegmentRow(series, start, size, encoding, column_bytes(body)) for series, start, size, encoding, body in rows
        ]
        stored = connection.execute(STORED, of_some)  # a later value may have grown out of the same one
        ends.update((series, end) for series, end in stored if type(end) is int)
    return PayloadReader(found, segments, seal, None if blobs is None else partial(blobs.read, run_id), ends)
