"""A checkpoint from its rows: each is checked before anything is read from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from checkpoint_plugin.blobs.files import BlobMissing, Blobs
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.restoring.cut_queries import (
    fetch_blocks,
    fetch_continued,
    fetch_head,
    fetch_nodes,
    fetch_segments,
    load_payloads,
)
from checkpoint_plugin.restoring.remembered import Weight, held_again
from checkpoint_plugin.restoring.restored import RowReader
from checkpoint_plugin.restoring.row_shape import mentioned_in_refs
from checkpoint_plugin.saving.completed import NO_BLOCKS, Blocks, Tally, block_digest, read_blocks
from checkpoint_plugin.saving.cut_encoder import head_digest
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.saving.holding import Holding
from checkpoint_plugin.saving.payloads import BaseCache
from checkpoint_plugin.saving.rows import CONTEXT
from checkpoint_plugin.stored_bytes.digests import MODULUS, cut_hash_of, row_digester, segment_digest, sum_digests
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal
from hookspecs import NodeSnapshot, Snapshot

__all__ = ["Seen", "StoredCut", "fetch_cut", "fetch_seen", "read_whole"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a run's newest checkpoint: a restore that finds the same one there checks it, and reads no row again.

    Args:
        number: of the checkpoint.
        cut_hash: of all its rows.
        blocks: what blocks tell of it.
        rows: those of the nodes of which no block tells.
        over: the nodes that have completed and hold nothing, of blocks and rows.
    """

    number: int
    cut_hash: bytes
    blocks: Blocks
    rows: Sequence[Any]
    over: frozenset[str]


@dataclass(frozen=True, slots=True)
class StoredCut:
    """The rows of one checkpoint, each what was written; values still encoded."""

    head: Any
    total: int
    digests: dict[str, bytes]
    rows: Mapping[str, Sequence[Any]]
    numbers: Mapping[str, int]
    joined: Mapping[str, Weight]
    segments: Sequence[tuple[str, Sequence[Any]]]
    mentioned: Iterable[bytes]
    reader: RowReader
    over: frozenset[str] = frozenset()
    unread: int = 0
    tally: Tally | None = None
    context: Any = None

    def snapshot(self, history: RunHistory) -> Snapshot:
        """Decode the values, and bring the history up to this checkpoint.

        Raises:
            StoreDamaged: a payload is missing or changed.
        """
        with telling_damage(self.head.run_id, "a row of it", self.head.number):
            return self._decoded(history)

    def _decoded(self, history: RunHistory) -> Snapshot:
        head, reader = self.head, self.reader
        items: dict[str, list[Any]] = {}
        for node_id, refs in self.segments:
            where = f"output {node_id!r}"
            items.setdefault(node_id, []).extend(reader.value(ref, where) for ref in refs)
        found = (reader.node(node_id, row, items.get(node_id, ())) for node_id, row in self.rows.items())
        nodes = tuple(node for node in found if not is_as_new(node))
        history.number = head.number
        history.digests = self.digests
        history.unread, history.tally = self.unread, self.tally
        history.held = self._held(nodes)
        history.saved_items = {node_id: len(found) for node_id, found in items.items()}
        history.log = head.log
        history.suspended = {node.node_id: node.suspension for node in nodes if node.suspension is not None}
        history.total = self.total
        history.payloads.clear()
        history.remember(self.mentioned)
        context = None if self.context is None else reader.value(self.context, "its context")
        history.bases = BaseCache()
        for node_id, row in self.rows.items():
            reader.remember(history.bases, reader.placed(node_id, row))
        reader.remember(history.bases, ((("output", node_id), refs[-1]) for node_id, refs in self.segments if refs))
        reader.remember(history.bases, [(CONTEXT, self.context)])
        error = None if head.error is None else reader.text(head.error)
        told = (error, head.error_node_id, head.number, context, self.over)
        return Snapshot(head.run_id, head.attempt, head.status, nodes, head.created_at, *told)

    def _held(self, nodes: Iterable[NodeSnapshot]) -> dict[str, Holding]:
        """What nodes hold that hold much: the next save continues their rows."""
        found: dict[str, Holding] = {}
        for node in nodes:
            node_id = node.node_id
            held = held_again(node, self.rows[node_id], self.numbers[node_id], self.joined.get(node_id))
            if held is not None:
                found[node_id] = held
        return found


def is_as_new(node: NodeSnapshot) -> bool:
    """Whether a node has not moved: going back to an older checkpoint writes such rows over those that came later."""
    holds = node.arguments is not None or node.state is not None or node.error is not None
    return node.status == "idle" and not (holds or node.firing or node.inbox or node.collected)


def fetch_cut(
    connection: Connection,
    run_id: str,
    number: int | None,
    codec: Codec,
    seal: Seal = PLAIN,
    blobs: Blobs | None = None,
    *,
    brief: bool = False,
    seen: Seen | None = None,
) -> StoredCut | None:
    """Read a checkpoint's rows, of the newest without a number; a digest is checked before anything is read from its row.

    Args:
        connection: for reading.
        run_id: the run.
        number: of the checkpoint.
        codec: decodes values.
        seal: opens what is sealed.
        blobs: where large values may be files.
        brief: of nodes that have completed and hold nothing, tell only that, in `over`.
        seen: what was read before; a brief restore of the same checkpoint uses it.

    Returns:
        The rows; `None` when the run has no checkpoint.

    Raises:
        StoreDamaged: a row is not what was written.
        StoreError: there is no checkpoint of that number.
    """
    with telling_damage(run_id, "the row of the checkpoint", number):
        head = fetch_head(connection, run_id, number)
    if head is None:
        return None
    with telling_damage(run_id, "a row of it", head.number):
        return _fetch_rows(connection, run_id, head, RowReader(run_id, head.number, codec, seal), blobs, brief, seen)


def _fetch_rows(
    connection: Connection, run_id: str, head: Any, reader: RowReader, blobs: Blobs | None, brief: bool, seen: Seen | None
) -> StoredCut:
    """The rows of a checkpoint."""
    if not brief or seen is None or (seen.number, seen.cut_hash) != (head.number, column_bytes(head.cut_hash)):
        seen = None
    if seen is not None:
        blocks, rows = seen.blocks, seen.rows
    elif brief:
        blocks, rows = _look(connection, run_id, head, reader)
    else:
        blocks, rows = NO_BLOCKS, fetch_nodes(connection, run_id, head, NO_BLOCKS)
    segments = fetch_segments(connection, run_id, head)
    total = _check_cut(run_id, head, rows, blocks, reader.seal)
    digests = {row[0]: row[3] for row in rows}
    tally: Tally | None = None
    over: frozenset[str] = frozenset()
    if brief:
        over = _over(blocks, rows, reader) if seen is None else seen.over
        loose = {row[0]: row[3] for row in rows if row[0] in over}
        rows = [row for row in rows if row[0] not in loose]
        tally = Tally(loose, {row[0]: row[1] for row in rows})
    unpacked = {row[0]: reader.unpack(row[0], row[2], row[1]) for row in rows if row[4] is None}
    numbers = {row[0]: row[1] for row in rows}
    joined: dict[str, Weight] = {}
    if len(unpacked) < len(rows):
        for node_id, (fields, weight) in _join(connection, run_id, head.number, rows, reader):
            unpacked[node_id], joined[node_id] = fields, weight
    _check_segments(run_id, head.number, segments)
    items = [(part.node_id, reader.unpack_segment(part.node_id, part.body, part.log, part.first)) for part in segments]
    mentioned = dict.fromkeys(digest for row in unpacked.values() for digest in reader.mentioned(row))
    mentioned.update(dict.fromkeys(digest for _, refs in items for digest in mentioned_in_refs(refs)))
    context = None if head.context is None else reader.context(head.context)
    mentioned.update(dict.fromkeys(mentioned_in_refs([context])))
    reader.payloads = load_payloads(connection, run_id, mentioned, reader.seal, blobs)
    found = (head, total, digests, unpacked, numbers, joined, items, mentioned, reader)
    return StoredCut(*found, over, len(blocks.node_ids), tally, context)


def _join(
    connection: Connection, run_id: str, number: int, rows: Sequence[Any], reader: RowReader
) -> Iterable[tuple[str, tuple[list[Any], Weight]]]:
    """Of each node whose row continues others the fields of all, and how much was read for them."""
    older, digest_row = fetch_continued(connection, run_id, rows), row_digester(run_id)
    for row in rows:
        if row[4] is None:
            continue
        node_id = row[0]
        found = [*older.get(node_id, ()), row]
        if found[0][4] is not None:
            raise StoreDamaged(run_id, f"a row of node {node_id!r} is missing, which others continue", number)
        for _, of_number, body, digest, _ in found[:-1]:
            if digest_row(node_id, of_number, body) != digest:
                raise StoreDamaged(run_id, f"a row of node {node_id!r} was changed, which others continue", number)
        yield node_id, reader.unpack_joined(node_id, found)


async def read_whole(read: Callable[[], Awaitable[T]]) -> T:
    """Read a checkpoint, and read it again when a file is gone: it may have been pruned since its row was read.

    Raises:
        StoreDamaged: its row is still there.
    """
    missing: str | None = None
    while True:
        try:
            return await read()
        except StoreDamaged as error:
            gone = error.__cause__
            if not isinstance(gone, BlobMissing) or gone.name == missing:
                raise
            missing = gone.name


def fetch_seen(connection: Connection, run_id: str, seal: Seal) -> Seen | None:
    """What a brief restore reads first, not yet checked; `None` where there is no checkpoint, or it cannot be read."""
    try:
        with telling_damage(run_id, "a row of it"):
            head = fetch_head(connection, run_id, None)
            if head is None:
                return None
            reader = RowReader(run_id, head.number, seal=seal)
            blocks, rows = _look(connection, run_id, head, reader)
            return Seen(head.number, column_bytes(head.cut_hash), blocks, rows, _over(blocks, rows, reader))
    except StoreDamaged:
        return None


def _look(connection: Connection, run_id: str, head: Any, reader: RowReader) -> tuple[Blocks, Sequence[Any]]:
    """What blocks tell of a checkpoint, and the rows of all other nodes."""
    blocks = _fetch_blocks(connection, run_id, reader)
    rows = fetch_nodes(connection, run_id, head, blocks)
    told = set(blocks.node_ids)
    if len(told) == len(blocks.node_ids) and not any(row[0] in told for row in rows):
        return blocks, rows
    return NO_BLOCKS, fetch_nodes(connection, run_id, head, NO_BLOCKS)  # a node went on after its block


def _over(blocks: Blocks, rows: Sequence[Any], reader: RowReader) -> frozenset[str]:
    """The nodes that have completed and hold nothing."""
    return frozenset((*blocks.node_ids, *(row[0] for row in rows if reader.is_over(row[0], row[2], row[1]))))


def _fetch_blocks(connection: Connection, run_id: str, reader: RowReader) -> Blocks:
    """What blocks tell of a checkpoint."""
    blocks: list[tuple[int, Sequence[Any]]] = []
    for number, body, digest in fetch_blocks(connection, run_id):
        if block_digest(run_id, number, body) != digest:
            raise StoreDamaged(run_id, "the list of its completed nodes was changed", number)
        blocks.append((number, reader.unpack_block(body, number)))
    return read_blocks(blocks)


def _check_cut(run_id: str, head: Any, rows: Sequence[Any], blocks: Blocks, seal: Seal) -> int:
    """Compare the rows with the checkpoint; their hash."""
    if head_digest(head._mapping, seal) != head.digest:
        raise StoreDamaged(run_id, "the row of the checkpoint was changed", head.number)
    digest_row = row_digester(run_id)
    for node_id, number, body, digest, _ in rows:
        if digest_row(node_id, number, body) != digest:
            raise StoreDamaged(run_id, f"the row of node {node_id!r} was changed", head.number)
    total = (blocks.total + sum_digests(row[3] for row in rows)) % MODULUS
    found = len(blocks.node_ids) + len(rows)
    if found != head.row_count:
        raise StoreDamaged(run_id, f"{found} of {head.row_count} node rows are there", head.number)
    if cut_hash_of(total) != head.cut_hash:
        raise StoreDamaged(run_id, "a node row is not the one that the checkpoint was made of", head.number)
    return total


def _check_segments(run_id: str, number: int, segments: Sequence[Any]) -> None:
    """Each is what was written, and no two of a node leave a gap; that the last is there, the node's row tells."""
    ends: dict[str, int] = {}
    for segment in segments:
        digest = segment_digest(run_id, segment.node_id, segment.log, segment.first, segment.body)
        if digest != segment.digest or segment.first != ends.get(segment.node_id, 0):
            what = f"items {segment.first} to {segment.first + segment.count} of output {segment.node_id!r} were changed"
            raise StoreDamaged(run_id, what, number)
        ends[segment.node_id] = segment.first + segment.count
