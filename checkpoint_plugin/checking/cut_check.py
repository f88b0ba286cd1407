"""Every row of a run's nodes and outputs, each once, and what every checkpoint is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from checkpoint_plugin.checking.finding import RESTORE
from checkpoint_plugin.checking.payload_check import PayloadCheck
from checkpoint_plugin.checking.run_notes import RunNotes
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.database.raw_rows import pages, raw
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import NODE_VERSION, OUTPUT_SEGMENT
from checkpoint_plugin.restoring.joined import INBOX, LATEST, TAKEN, Joined, told_by
from checkpoint_plugin.restoring.restored import RowReader
from checkpoint_plugin.restoring.row_shape import mentioned_in_refs
from checkpoint_plugin.saving.chain import Chain
from checkpoint_plugin.saving.rows import FIELDS
from checkpoint_plugin.stored_bytes.digests import add_digests, cut_hash_of, row_digest, segment_digest
from checkpoint_plugin.stored_bytes.sealing import Seal

__all__ = ["CutCheck", "Head", "NewestRow"]

STATUS: Final = FIELDS.index("status")
ATTEMPT: Final = FIELDS.index("attempt")
COLLECTED: Final = FIELDS.index("collected")
DIGEST_SIZE: Final = 32
KEEP: Final = f"Do not prune the run. {RESTORE}"


class InlineReader(RowReader):
    """Reads rows without the payloads that they mention."""

    def value(self, ref: Any, where: str) -> Any:
        return super().value(ref, where) if type(ref) is not list else None


class Head(NamedTuple):
    """What is kept of a checkpoint's row while all others are looked at; the columns of these names."""

    number: int
    created_at: datetime
    status: str
    log: int
    row_count: int
    cut_hash: bytes


@dataclass(frozen=True, slots=True)
class NewestRow:
    """A node's newest row so far.

    Args:
        number: of its checkpoint.
        digest: of the row.
        shape: status, attempt and number of items; `None` where it cannot be read.
    """

    number: int
    digest: bytes
    shape: Sequence[Any] | None


class CutCheck:
    """The check of a run's cuts.

    Args:
        connection: in a transaction.
        notes: of the run.
        codec: decodes values.
        seal: of the run; without it only digests are looked at.
        payloads: the values, looked at already.
    """

    def __init__(self, connection: Connection, notes: RunNotes, codec: Codec, seal: Seal | None, payloads: PayloadCheck) -> None:
        self.rows: dict[str, NewestRow] = {}
        self._connection = connection
        self._notes = notes
        self._codec = codec
        self._seal = seal
        self._payloads = payloads
        self._chains: dict[tuple[int, str], Chain] = {}
        self._heads: Mapping[int, Head] = {}
        self._outputs: set[str] = set()
        self._total = 0
        self._bad_nodes: set[str] = set()
        self._joined: dict[str, Joined] = {}

    def look_at_items(self) -> None:
        """Look at the items of outputs."""
        table = OUTPUT_SEGMENT.c
        query = select(*map(raw, OUTPUT_SEGMENT.columns)).where(table.run_id == self._notes.run_id)
        for row in pages(self._connection, query, (table.node_id, table.log, table.first)):
            chain = self._chains.setdefault((row.log, row.node_id), Chain())
            if not all(map(_is_number, (row.first, row.count, row.number))):
                self._notes.note(f"items {row.first!r} of the output: their numbers are none", None, row.node_id)
                if _is_number(row.number):  # else no checkpoint finds them
                    chain.add(0, 0, 0, row.number, whole=False)
                continue
            held, whole = row.count, True
            try:
                with telling_damage(self._notes.run_id, "it", row.number):
                    held = self._look_at_segment(row)
            except StoreDamaged as error:
                whole = False
                self._notes.note(
                    f"items {row.first} to {row.first + row.count} of the output: {error.what}", row.number, row.node_id
                )
            chain.add(row.first, row.count, held, row.number, whole)

    def _look_at_segment(self, row: Any) -> int:
        """How many items it holds."""
        if segment_digest(self._notes.run_id, row.node_id, row.log, row.first, column_bytes(row.body)) != column_bytes(
            row.digest
        ):
            raise StoreDamaged(self._notes.run_id, "they were changed", row.number)
        if self._seal is None:
            self.look_at_mentions(row, None)
            return int(row.count)
        reader = InlineReader(self._notes.run_id, row.number, self._codec, self._seal)
        refs = reader.unpack_segment(row.node_id, column_bytes(row.body), row.log, row.first)
        self.look_at_mentions(row, mentioned_in_refs(refs))
        self._notes.read(lambda: [reader.value(ref, "the output") for ref in refs])
        if len(refs) != row.count:
            self._notes.note(
                f"a segment of the output says that it holds {row.count} items, and holds {len(refs)}", row.number, row.node_id
            )
        return len(refs)

    def look_at_mentions(self, row: Any, mentioned: Iterable[bytes] | None) -> None:
        """Look whether the payloads that a row mentions are there, whole, and listed.

        Args:
            row: of a node, of items, or of a checkpoint.
            mentioned: their digests; those that are listed where the row cannot be opened.

        Raises:
            StoreDamaged: one is missing or damaged.
        """
        try:
            listed = _digests(row.mentions)
        except TypeError:  # no restore reads it
            listed = set()
            what = "its list of the payloads that it mentions is none, so that pruning would delete them"
            self._notes.note(what, row.number, getattr(row, "node_id", None), KEEP)
        found = dict.fromkeys(listed if mentioned is None else mentioned)
        self._look_at_values(row, found)
        for digest in found:
            if digest not in listed:
                what = f"it mentions payload {digest.hex()[:16]} and does not list it, so that pruning would delete that"
                self._notes.note(what, row.number, getattr(row, "node_id", None), KEEP)

    def _look_at_values(self, row: Any, mentioned: Iterable[bytes]) -> None:
        for digest in mentioned:
            if digest not in self._payloads.present:
                raise StoreDamaged(self._notes.run_id, f"payload {digest.hex()[:16]}, which it mentions, is missing", row.number)
            if digest in self._payloads.wrong:
                raise StoreDamaged(self._notes.run_id, f"payload {digest.hex()[:16]}, which it mentions, is damaged", row.number)

    def look_at_rows(self, numbers: Sequence[int], heads: Mapping[int, Head]) -> None:
        """Look at the rows of nodes, and at the cuts that they make.

        Args:
            numbers: of the checkpoints that are there.
            heads: of those whose row is whole.
        """
        self._heads = heads
        table = NODE_VERSION.c
        query = select(*map(raw, NODE_VERSION.columns)).where(table.run_id == self._notes.run_id)
        waiting = deque(numbers)
        for row in pages(self._connection, query, (table.number, table.node_id)):
            is_number = _is_number(row.number) and row.number > 0
            while is_number and waiting and waiting[0] < row.number:
                self._look_at_cut(waiting.popleft())
            if not is_number or not waiting:
                self._notes.note(f"row {row.number!r} of the node belongs to no checkpoint that is there", None, row.node_id)
                continue
            self._take_row(row)
        while waiting:
            self._look_at_cut(waiting.popleft())

    def _take_row(self, row: Any) -> None:
        before = self.rows.get(row.node_id)
        shape = None
        # What is wrong with a row is wrong with those that continue it, too, as long as they hold it: told once.
        goes_on = row.continues is not None and row.node_id in self._bad_nodes
        self._bad_nodes.discard(row.node_id)
        try:
            with telling_damage(self._notes.run_id, "its row", row.number):
                shape = self._look_at_row(row, before, whole=goes_on)
        except StoreDamaged as error:
            self._bad_nodes.add(row.node_id)
            if not goes_on:
                self._notes.note(error.what, row.number, row.node_id)
        digest = row.digest if type(row.digest) is bytes else b""
        self._total = add_digests(self._total, added=digest, removed=None if before is None else before.digest)
        self.rows[row.node_id] = NewestRow(row.number, digest, shape)
        if shape is not None and shape[2]:
            self._outputs.add(row.node_id)
        else:
            self._outputs.discard(row.node_id)

    def _look_at_row(self, row: Any, before: NewestRow | None, *, whole: bool) -> Sequence[Any] | None:
        """Look at a row.

        Args:
            row: of a node.
            before: the node's row before it.
            whole: look, too, at all that it continues.
        """
        joined = self._joined.pop(row.node_id, None)
        body = column_bytes(row.body)
        if row_digest(self._notes.run_id, row.node_id, row.number, body) != column_bytes(row.digest):
            raise StoreDamaged(self._notes.run_id, "its row was changed", row.number)
        if row.continues is not None and (before is None or before.number != row.continues):
            raise StoreDamaged(self._notes.run_id, "the row that it continues is missing", row.number)
        if self._seal is None:
            if whole:
                raise StoreDamaged(self._notes.run_id, "the row that it continues is damaged", row.number)
            self.look_at_mentions(row, None)
            return None
        reader = InlineReader(self._notes.run_id, row.number, self._codec, self._seal)
        if row.continues is None:
            fields = reader.unpack(row.node_id, body, row.number)
            if fields[TAKEN] or fields[LATEST] or fields[INBOX]:
                self._joined[row.node_id] = Joined(fields)
        else:
            fields = self._take_change(row, before, joined, *reader.unpack_change(row.node_id, body, row.number))
        self.look_at_mentions(row, reader.mentioned(fields))
        if whole:
            fields = self._joined[row.node_id].row()
            self._look_at_values(row, reader.mentioned(fields))
        self._notes.read(lambda: reader.node(row.node_id, fields, range(fields[COLLECTED])))
        return fields[STATUS], fields[ATTEMPT], fields[COLLECTED]

    def _take_change(
        self, row: Any, before: NewestRow | None, joined: Joined | None, number: int, digest: bytes, fields: Sequence[Any]
    ) -> list[Any]:
        """Let a row continue the one before; what it tells by itself."""
        if before is None or joined is None or number != row.continues or digest != before.digest:
            raise StoreDamaged(self._notes.run_id, "it does not continue the row before it", row.number)
        try:
            joined.add(fields)
        except MalformedValue as error:
            raise StoreDamaged(self._notes.run_id, f"it does not continue the row before it: {error}", row.number) from error
        self._joined[row.node_id] = joined
        return told_by(fields)

    def _look_at_cut(self, number: int) -> None:
        """All rows up to a checkpoint were taken."""
        if self._bad_nodes:
            self._notes.damaged.add(number)
        head = self._heads.get(number)
        if head is None:
            return
        if len(self.rows) != head.row_count:
            self._notes.spoil(number, f"{len(self.rows)} of {head.row_count} rows of nodes are there")
        elif cut_hash_of(self._total) != column_bytes(head.cut_hash) and not self._bad_nodes:
            self._notes.spoil(number, "a row of a node is not the one that the checkpoint was made of")
        for (log, node_id), chain in self._chains.items():
            row = self.rows.get(node_id)
            if log == head.log and row is not None:
                self._look_at_collected(number, node_id, row, chain.items(number))
        for node_id in self._outputs:  # few of many nodes: a checkpoint must not cost all of them
            if (head.log, node_id) not in self._chains:
                self._look_at_collected(number, node_id, self.rows[node_id], 0)

    def _look_at_collected(self, number: int, node_id: str, row: NewestRow, items: int | None) -> None:
        if items is None:
            self._notes.spoil(number, "items of the output are missing or damaged", node_id)
        elif row.shape is not None and items != row.shape[2]:
            self._notes.spoil(number, f"the output has {items} of {row.shape[2]} items", node_id)


def _is_number(value: Any) -> bool:
    """Whether it can be compared with a number; SQLite keeps anything in any column."""
    return isinstance(value, int | float)


def _digests(mentions: Any) -> set[bytes]:
    listed = column_bytes(mentions or b"")
    return {listed[at : at + DIGEST_SIZE] for at in range(0, len(listed), DIGEST_SIZE)}
