"""What is asked of the rows of a cut, in the language of SQLAlchemy; see `database.statement`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Integer, String, and_, bindparam, func, select, tuple_

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

__all__ = [
    "blocks",
    "checkpoint_numbers",
    "continued_rows",
    "head",
    "newest_number",
    "newest_rows",
    "node_ids",
    "payloads",
    "rows_by_pair",
    "rows_by_parts",
    "segments",
    "series_parts",
    "series_stored",
]

RUN: Final[Any] = bindparam("run", type_=String)


def head(which: str) -> Any:
    """Of a run's `newest` checkpoint, or of the one whose number is `wanted`: its row, the newest by the lease, and the last."""
    wanted = LEASE.c.newest_number if which == "newest" else bindparam("wanted", type_=Integer)
    joined = JOB.outerjoin(LEASE, LEASE.c.run_id == JOB.c.id)
    joined = joined.outerjoin(CHECKPOINT, and_(CHECKPOINT.c.run_id == JOB.c.id, CHECKPOINT.c.number == wanted))
    last = select(func.max(CHECKPOINT.c.number)).where(CHECKPOINT.c.run_id == RUN).scalar_subquery().label("last_number")
    return select(LEASE.c.newest_number, last, CHECKPOINT).select_from(joined).where(JOB.c.id == RUN)


def blocks() -> Any:
    """The blocks of completed nodes."""
    table = COMPLETED_NODES.c
    return select(table.number, table.body, table.digest).where(table.run_id == RUN).order_by(table.number)


def _node_rows() -> Any:
    columns = [NODE_VERSION.c[name] for name in ("node_id", "number", "body", "digest", "continues")]
    return select(*columns).where(NODE_VERSION.c.run_id == RUN)


def newest_rows() -> Any:
    """Of each node the newest row of those `after` one checkpoint, and `upto` another."""
    number = NODE_VERSION.c.number
    of_run = and_(NODE_VERSION.c.run_id == RUN, number > bindparam("after"), number <= bindparam("upto"))
    newest = select(NODE_VERSION.c.node_id, func.max(number).label("number")).where(of_run)
    found = newest.group_by(NODE_VERSION.c.node_id).subquery()
    return _node_rows().join(found, and_(NODE_VERSION.c.node_id == found.c.node_id, number == found.c.number))


def rows_by_pair() -> Any:
    """The rows of `pairs` of a number and a node."""
    return _node_rows().where(tuple_(NODE_VERSION.c.number, NODE_VERSION.c.node_id).in_(bindparam("pairs", expanding=True)))


def rows_by_parts() -> Any:
    """The rows of some `node_ids` that have some `numbers`."""
    of_numbers = NODE_VERSION.c.number.in_(bindparam("numbers", expanding=True))
    return _node_rows().where(of_numbers, NODE_VERSION.c.node_id.in_(bindparam("node_ids", expanding=True)))


def continued_rows() -> Any:
    """The rows of `pairs` of a number and a node, and all that they continue.

    One leads to the next by a question of its own, not by a join: PostgreSQL, which cannot know how many follow one another,
    would go through all rows of the run at each.
    """
    row, older = NODE_VERSION.c, NODE_VERSION.alias("older").c
    pair = tuple_(row.number, row.node_id).in_(bindparam("pairs", expanding=True))
    first = select(row.node_id, row.number, row.continues).where(row.run_id == RUN, pair).cte("continued", recursive=True)
    of_older = and_(older.run_id == RUN, older.number == first.c.continues, older.node_id == first.c.node_id)
    continues = select(older.continues).where(of_older).correlate(first).scalar_subquery()
    # A number that is not smaller was forged, and would have no end.
    further = select(first.c.node_id, first.c.continues, continues).where(first.c.continues < first.c.number)
    links = first.union_all(further)
    return _node_rows().join(links, and_(row.number == links.c.number, row.node_id == links.c.node_id))


def segments() -> Any:
    """The rows of items that outputs collected in one `log`, `upto` a checkpoint."""
    table = OUTPUT_SEGMENT.c
    query = select(OUTPUT_SEGMENT).where(table.run_id == RUN, table.log == bindparam("log"))
    return query.where(table.number <= bindparam("upto")).order_by(table.node_id, table.first)


def payloads() -> Any:
    """The rows of values, by their `digests`."""
    table = PAYLOAD.c
    columns = (table.digest, table.encoding, table.size, table.body, table.series, table.series_end, table.blob)
    return select(*columns).where(table.run_id == RUN, table.digest.in_(bindparam("digests", expanding=True)))


def series_parts() -> Any:
    """The parts of some `series` that begin before an `end`."""
    part = PAYLOAD_SEGMENT.c
    columns = (part.series, part.start, part.size, part.encoding, part.body)
    some = part.series.in_(bindparam("series", expanding=True))
    return select(*columns).where(part.run_id == RUN, some, part.start < bindparam("end"))


def series_stored() -> Any:
    """Up to where parts of some `series` are stored."""
    part = PAYLOAD_SEGMENT.c
    some = part.series.in_(bindparam("series", expanding=True))
    return select(part.series, func.max(part.start + part.size)).where(part.run_id == RUN, some).group_by(part.series)


def node_ids() -> Any:
    """Every node of which there is a row."""
    return select(NODE_VERSION.c.node_id).where(NODE_VERSION.c.run_id == RUN).distinct()


def newest_number() -> Any:
    """The number of the newest checkpoint, by the lease."""
    return select(LEASE.c.newest_number).where(LEASE.c.run_id == RUN)


def checkpoint_numbers() -> Any:
    """The numbers of all checkpoints, the newest first."""
    return select(CHECKPOINT.c.number).where(CHECKPOINT.c.run_id == RUN).order_by(CHECKPOINT.c.number.desc())
