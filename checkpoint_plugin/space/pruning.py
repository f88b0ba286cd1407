"""Deleting what no kept checkpoint needs, under the lock that every save takes.

A save that comes after it sees another `generation` of the run's rows, forgets what it knew of payloads, and offers again
what it mentions: so nothing is ever mentioned that is not there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from sqlalchemy import Table, bindparam, delete, func, select, update

from checkpoint_plugin.blobs.mentioned import fetch_names, named
from checkpoint_plugin.blobs.name import BlobName
from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    EVENT,
    EVENT_HEAD,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    PENDING_ANSWER,
    RUN_DEFINITION,
    RUN_KEY,
    RUN_NODE_STATE,
)
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.series import fetch_series_ends
from checkpoint_plugin.space.candidates import find_candidates
from checkpoint_plugin.store import Store

__all__ = ["Pruned", "prune_run", "prune_runs", "stored_bytes"]

DIGEST_SIZE: Final = 32
WEIGHED: Final[Sequence[tuple[Table, tuple[str, ...]]]] = (
    (PAYLOAD, ("body",)),
    (PAYLOAD_SEGMENT, ("body",)),
    (NODE_VERSION, ("body", "mentions")),
    (OUTPUT_SEGMENT, ("body", "mentions")),
    (COMPLETED_NODES, ("body",)),
    (CHECKPOINT, ("reason", "cut_hash", "digest", "context")),
)
"""What takes the space."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted of a run.

    Args:
        run_id: the run.
        checkpoints: numbers of those that are gone.
        dropped: whether all of the run is.
        freed: bytes of values and rows, also of those that are files.
        blobs: files that hold values nobody mentions any more; to be deleted once this is durable.
    """

    run_id: str
    checkpoints: tuple[int, ...]
    dropped: bool
    freed: int
    blobs: tuple[BlobName, ...] = ()


class _Undo(Exception):
    """Raised inside a transaction that shall only tell what it would do."""

    def __init__(self, pruned: Pruned) -> None:
        self.pruned = pruned


async def prune_runs(
    store: Store,
    rules: Retention,
    run_ids: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
    damage: Callable[[StoreDamaged], object] | None = None,
    tell: Callable[[int, int], object] | None = None,
) -> Sequence[Pruned]:
    """Delete what the rules do not keep, one transaction a run, and give back the space.

    Args:
        store: an open one.
        rules: what is kept.
        run_ids: of these runs; of all without.
        dry_run: undo it, and only tell.
        damage: told of each run whose rows are damaged, which stays as it is; without, the first of them ends it.
        tell: called after every run with how many are done, and how many there are.

    Returns:
        What was deleted, of runs of which something was.

    Raises:
        RunNotFound: a run that is named is not there.
        StoreDamaged: the rows of a run are damaged, and there is no `damage`.
        BlobsUnusable: values lie in files whose place is not known; nothing of that run was deleted.
        StoreError: the store cannot be used.
    """
    note, now = damage if damage is not None else _refuse, datetime.now(UTC)
    if run_ids is None:
        rows, damaged = await store.readable_jobs()
        run_ids = [row.id for row in rows]
        for error in damaged:
            note(error)
        chosen = await find_candidates(store, rules, rows, now)
    else:
        run_ids = list(dict.fromkeys(run_ids))
        for run_id in run_ids:
            await store.job(run_id)
        chosen = set(run_ids)

    def work(connection: Connection, run_id: str) -> Pruned:
        with telling_damage(run_id, "a row of it"):
            found = prune_run(connection, run_id, rules, now)
        store.blobs.check(found.blobs)
        if dry_run:
            raise _Undo(found)
        return found

    pruned: list[Pruned] = []
    for done, run_id in enumerate(run_ids, 1):
        try:
            if run_id in chosen:
                found = await store.transact(partial(work, run_id=run_id))
                await store.remove_files(found.blobs)
                pruned.append(found)
        except _Undo as undone:
            pruned.append(undone.pruned)
        except StoreDamaged as error:
            note(error)
        if tell is not None:
            tell(done, len(run_ids))
    if not dry_run and any(found.freed for found in pruned):
        await store.give_back()
    return [found for found in pruned if found.checkpoints or found.dropped]


def _refuse(error: StoreDamaged) -> None:
    raise error


def prune_run(connection: Connection, run_id: str, rules: Retention, now: datetime) -> Pruned:
    """Apply the rules to a run, in one transaction.

    Args:
        connection: in a transaction that writes.
        run_id: the run.
        rules: what is kept.
        now: aware.
    """
    connection.execute(select(LEASE.c.epoch).where(LEASE.c.run_id == run_id).with_for_update())
    job = connection.execute(select(JOB.c.status, JOB.c.finished_at).where(JOB.c.id == run_id)).first()
    if job is None:
        return Pruned(run_id, (), False, 0)
    found = select(CHECKPOINT.c.number, CHECKPOINT.c.created_at, CHECKPOINT.c.label).where(CHECKPOINT.c.run_id == run_id)
    rows = connection.execute(found.order_by(CHECKPOINT.c.number)).all()
    labelled = any(row.label is not None for row in rows)
    if rules.drops(job.status, job.finished_at, now) and not labelled:
        freed, files = stored_bytes(connection, run_id), named(run_id, fetch_names(connection, run_id))
        _drop(connection, run_id)
        return _pruned(run_id, [row.number for row in rows], freed, files, dropped=True)
    kept = rules.kept(rows, job.status, now)
    gone = [row.number for row in rows if row.number not in kept]
    if not gone:
        return Pruned(run_id, (), False, 0)
    before = stored_bytes(connection, run_id)
    connection.execute(update(LEASE).where(LEASE.c.run_id == run_id).values(generation=LEASE.c.generation + 1))
    for batch in batches(connection, gone):
        connection.execute(delete(CHECKPOINT).where(CHECKPOINT.c.run_id == run_id, CHECKPOINT.c.number.in_(batch)))
    _delete_rows(connection, run_id, [row.number for row in rows if row.number in kept])
    blobs = _delete_payloads(connection, run_id)
    return _pruned(run_id, gone, before - stored_bytes(connection, run_id), blobs)


def _pruned(run_id: str, gone: Sequence[int], freed: int, blobs: Sequence[BlobName], *, dropped: bool = False) -> Pruned:
    return Pruned(run_id, tuple(gone), dropped, freed + sum(name.size for name in blobs), tuple(blobs))


def stored_bytes(connection: Connection, run_id: str) -> int:
    """Bytes of a run's values and history in the database."""
    total = 0
    for table, columns in WEIGHED:
        parts = [func.coalesce(func.length(table.c[name]), 0) for name in columns]
        query = select(func.coalesce(func.sum(sum(parts[1:], parts[0])), 0)).where(table.c.run_id == run_id)
        total += int(connection.execute(query).scalar_one())
    return total


def _delete_rows(connection: Connection, run_id: str, kept: Sequence[int]) -> None:
    """A row goes when no kept checkpoint lies between it and the next version of the same node, and none that stays continues it.

    That is not left to the database: from each row on PostgreSQL would go through all checkpoints that were deleted just now.
    """
    version = NODE_VERSION.c
    following = func.lead(version.number).over(partition_by=version.node_id, order_by=version.number)
    query = select(version.number, version.node_id, following, version.continues).where(version.run_id == run_id)
    unneeded: list[tuple[int, str]] = []
    older: dict[tuple[int, str], tuple[int, str]] = {}
    ends: list[tuple[int, str]] = []
    for number, node_id, next_number, continues in connection.execute(query):
        needed = _is_needed(number, next_number, kept)
        if not needed:
            unneeded.append((number, node_id))
        if continues is not None:
            older[number, node_id] = continues, node_id
            if needed:
                ends.append((number, node_id))
    continued: set[tuple[int, str]] = set()
    for row in ends:
        while (before := older.get(row)) is not None and before not in continued:
            continued.add(before)
            row = before
    gone = [{"of_number": row[0], "of_node": row[1]} for row in unneeded if row not in continued]
    if gone:
        of_row = (version.number == bindparam("of_number"), version.node_id == bindparam("of_node"))
        connection.execute(delete(NODE_VERSION).where(version.run_id == run_id, *of_row), gone)
    _delete_items(connection, run_id)


def _is_needed(number: int, following: int | None, kept: Sequence[int]) -> bool:
    first = bisect_left(kept, number)
    return first < len(kept) and (following is None or kept[first] < following)


def _delete_items(connection: Connection, run_id: str) -> None:
    """Of each log of outputs what came after the last checkpoint that reads it."""
    newest = [
        select(table.c.log, func.max(table.c.number)).where(table.c.run_id == run_id).group_by(table.c.log)
        for table in (CHECKPOINT, OUTPUT_SEGMENT)
    ]
    ends, written = ({row[0]: row[1] for row in connection.execute(query)} for query in newest)
    longer = [log for log, number in written.items() if number > ends.get(log, 0)]
    if longer:
        segment = OUTPUT_SEGMENT.c
        behind = (segment.log == bindparam("of_log"), segment.number > bindparam("end"))
        gone = delete(OUTPUT_SEGMENT).where(segment.run_id == run_id, *behind)
        connection.execute(gone, [{"of_log": log, "end": ends.get(log, 0)} for log in longer])


def _delete_payloads(connection: Connection, run_id: str) -> Sequence[BlobName]:
    mentioned = _mentioned(connection, run_id)
    stored = connection.execute(select(PAYLOAD.c.digest, PAYLOAD.c.blob).where(PAYLOAD.c.run_id == run_id))
    unneeded = [(column_bytes(digest), blob) for digest, blob in stored if column_bytes(digest) not in mentioned]
    gone = [digest for digest, _ in unneeded]
    for batch in batches(connection, gone):
        connection.execute(delete(PAYLOAD).where(PAYLOAD.c.run_id == run_id, PAYLOAD.c.digest.in_(batch)))
    _delete_segments(connection, run_id)
    return named(run_id, (blob for _, blob in unneeded if blob is not None))


def _delete_segments(connection: Connection, run_id: str) -> None:
    """Of each series what lies behind the last value that is made of it; no index leads from a part to those values."""
    segment, ends = PAYLOAD_SEGMENT.c, fetch_series_ends(connection, run_id)
    stored = select(segment.series, func.max(segment.start)).where(segment.run_id == run_id).group_by(segment.series)
    longer = [(series, ends.get(series, 0)) for series, start in connection.execute(stored) if start >= ends.get(series, 0)]
    if longer:
        behind = (segment.series == bindparam("of_series"), segment.start >= bindparam("end"))
        gone = delete(PAYLOAD_SEGMENT).where(segment.run_id == run_id, *behind)
        connection.execute(gone, [{"of_series": series, "end": end} for series, end in longer])


def _mentioned(connection: Connection, run_id: str) -> set[bytes]:
    """The digests of every payload that a row of the run mentions."""
    found: set[bytes] = set()
    for table in (NODE_VERSION, OUTPUT_SEGMENT, CHECKPOINT):
        query = select(table.c.mentions).where(table.c.run_id == run_id, table.c.mentions.is_not(None))
        for mentions in connection.execute(query).scalars():
            found.update(_digests(mentions))
    return found


def _digests(mentions: bytes) -> Iterable[bytes]:
    return (bytes(mentions[at : at + DIGEST_SIZE]) for at in range(0, len(mentions), DIGEST_SIZE))


def _drop(connection: Connection, run_id: str) -> None:
    """Delete every row of a run."""
    for table in (
        PAYLOAD_SEGMENT, PAYLOAD, OUTPUT_SEGMENT, COMPLETED_NODES, NODE_VERSION, CHECKPOINT, RUN_NODE_STATE, PENDING_ANSWER,
        RUN_KEY, EVENT, EVENT_HEAD, RUN_DEFINITION, LEASE,
    ):  # fmt: skip
        connection.execute(delete(table).where(table.c.run_id == run_id))
    connection.execute(delete(JOB).where(JOB.c.id == run_id))
