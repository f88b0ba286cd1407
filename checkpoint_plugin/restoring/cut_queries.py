"""The queries of a restore: how many they are does not depend on the number of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import Connection, Integer, String, and_, bindparam, func, select, tuple_

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.bounds import check_number, no_checkpoint
from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.damage import column_bytes
from checkpoint_plugin.database.raw_rows import fetch_tuples
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
)
from checkpoint_plugin.saving.completed import Blocks
from checkpoint_plugin.saving.payloads import PayloadReader, PayloadRow, SegmentRow
from checkpoint_plugin.stored_bytes.sealing import Seal

__all__ = ["fetch_blocks", "fetch_head", "fetch_nodes", "fetch_segments", "load_payloads"]

FEW: Final = 8
"""Numbers of checkpoints among which the rows of nodes are looked for one by one."""
RUN: Final = bindparam("run", type_=String)


def fetch_head(connection: Connection, run_id: str, number: int | None) -> Any:
    """The row of a checkpoint, of the newest without a number, and what the lease and the rows say is the newest.

    Returns:
        `None` when the run has no checkpoint.

    Raises:
        StoreDamaged: they do not agree.
        StoreError: there is no checkpoint of that number.
    """
    check_number(run_id, number)
    head = connection.execute(_head(number is None), {"run": run_id, "wanted": number}).first()
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


@cache
def _head(newest: bool) -> Any:
    """Of a run's newest checkpoint, or of one by its number (`wanted`): the checkpoint, the newest by the lease, and the last.

    This statement and those below are made once: SQLAlchemy takes longer to make one anew than SQLite to answer it.
    """
    wanted = LEASE.c.newest_number if newest else bindparam("wanted", type_=Integer)
    joined = JOB.outerjoin(LEASE, LEASE.c.run_id == JOB.c.id)
    joined = joined.outerjoin(CHECKPOINT, and_(CHECKPOINT.c.run_id == JOB.c.id, CHECKPOINT.c.number == wanted))
    last = select(func.max(CHECKPOINT.c.number)).where(CHECKPOINT.c.run_id == RUN).scalar_subquery().label("last_number")
    return select(LEASE.c.newest_number, last, CHECKPOINT).select_from(joined).where(JOB.c.id == RUN)


def fetch_blocks(connection: Connection, run_id: str) -> Sequence[Any]:
    """The blocks of completed nodes, in the order of their numbers: number, body and digest."""
    return connection.execute(_blocks(), {"run": run_id}).all()


def fetch_nodes(connection: Connection, run_id: str, head: Any, blocks: Blocks) -> Sequence[Any]:
    """The rows of all nodes of a checkpoint but those of which blocks tell: id, number, body and digest."""
    rows: Sequence[Any] = ()
    if blocks.number < head.number:
        rows = fetch_tuples(connection, _newest_rows(), {"run": run_id, "after": blocks.number, "upto": head.number})
    newer = {row[0] for row in rows} if blocks.open else set()
    older = {node_id: number for node_id, number in blocks.open.items() if node_id not in newer}
    return [*rows, *_fetch_older(connection, run_id, older)] if older else rows


def _fetch_older(connection: Connection, run_id: str, wanted: Mapping[str, int]) -> Sequence[Any]:
    """The rows of nodes of which each has the number that is named."""
    numbers = sorted(set(wanted.values()))
    if len(numbers) > FEW:
        pairs = [(number, node_id) for node_id, number in wanted.items()]
        parts = batches(connection, pairs, columns=2)
        return [row for part in parts for row in fetch_tuples(connection, _rows_by_pair(), {"run": run_id, "pairs": part})]
    # SQLite finds each by its key; with pairs it looks at all rows of a number, which may be those of the whole run.
    found: list[Any] = []
    for batch in batches(connection, sorted(wanted)):
        found += fetch_tuples(connection, _rows_by_parts(), {"run": run_id, "numbers": numbers, "node_ids": batch})
    return [row for row in found if wanted[row[0]] == row[1]]


def fetch_segments(connection: Connection, run_id: str, head: Any) -> Sequence[Any]:
    """The rows of the items that outputs had collected at a checkpoint, in their order."""
    return connection.execute(_segments(), {"run": run_id, "log": head.log, "upto": head.number}).all()


def load_payloads(
    connection: Connection, run_id: str, digests: Iterable[bytes], seal: Seal, blobs: Blobs | None
) -> PayloadReader:
    """Read payloads and what they grew out of, not yet compared with their digests."""
    table = PAYLOAD.c
    columns = (table.digest, table.encoding, table.size, table.body, table.series, table.series_end, table.blob)
    of_run = select(*columns).where(PAYLOAD.c.run_id == run_id)
    found: dict[bytes, PayloadRow] = {}
    for batch in batches(connection, sorted(digests)):
        for digest, encoding, size, body, *series in connection.execute(of_run.where(PAYLOAD.c.digest.in_(batch))):
            body, digest = column_bytes(body), column_bytes(digest)
            found[digest] = PayloadRow(digest, encoding, len(body) if size is None else size, body, *series)
    ends: dict[int, int] = {}
    for row in found.values():
        if row.series is not None:
            ends[row.series] = max(ends.get(row.series, 0), row.series_end or 0)
    part = PAYLOAD_SEGMENT.c
    parts = select(part.series, part.start, part.size, part.encoding, part.body).where(part.run_id == run_id)
    last = select(part.series, func.max(part.start + part.size)).where(part.run_id == run_id).group_by(part.series)
    segments: list[SegmentRow] = []
    for some in batches(connection, sorted(ends)):
        rows = connection.execute(parts.where(part.series.in_(some), part.start < max(ends[series] for series in some)))
        segments += [
            SegmentRow(series, start, size, encoding, column_bytes(body)) for series, start, size, encoding, body in rows
        ]
        stored = connection.execute(last.where(part.series.in_(some)))  # a later value may have grown out of the same one
        ends.update((series, end) for series, end in stored if type(end) is int)
    return PayloadReader(found, segments, seal, None if blobs is None else partial(blobs.read, run_id), ends)


@cache
def _blocks() -> Any:
    table = COMPLETED_NODES.c
    return select(table.number, table.body, table.digest).where(table.run_id == RUN).order_by(table.number)


def _node_rows() -> Any:
    columns = [NODE_VERSION.c[name] for name in ("node_id", "number", "body", "digest")]
    return select(*columns).where(NODE_VERSION.c.run_id == RUN)


@cache
def _newest_rows() -> Any:
    number = NODE_VERSION.c.number
    of_run = and_(NODE_VERSION.c.run_id == RUN, number > bindparam("after"), number <= bindparam("upto"))
    newest = select(NODE_VERSION.c.node_id, func.max(number).label("number")).where(of_run)
    found = newest.group_by(NODE_VERSION.c.node_id).subquery()
    return _node_rows().join(found, and_(NODE_VERSION.c.node_id == found.c.node_id, number == found.c.number))


@cache
def _rows_by_pair() -> Any:
    return _node_rows().where(tuple_(NODE_VERSION.c.number, NODE_VERSION.c.node_id).in_(bindparam("pairs", expanding=True)))


@cache
def _rows_by_parts() -> Any:
    of_numbers = NODE_VERSION.c.number.in_(bindparam("numbers", expanding=True))
    return _node_rows().where(of_numbers, NODE_VERSION.c.node_id.in_(bindparam("node_ids", expanding=True)))


@cache
def _segments() -> Any:
    table = OUTPUT_SEGMENT.c
    query = select(OUTPUT_SEGMENT).where(table.run_id == RUN, table.log == bindparam("log"))
    return query.where(table.number <= bindparam("upto")).order_by(table.node_id, table.first)
