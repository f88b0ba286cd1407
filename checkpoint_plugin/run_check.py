"""One run, looked at as a whole: each row once, whatever the number of checkpoints, and what every checkpoint is made of."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from sqlalchemy import Connection, and_, func, or_, select, type_coerce
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import NullType

from checkpoint_plugin.blobs import Blobs
from checkpoint_plugin.chain import Chain
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.damage import telling_damage
from checkpoint_plugin.digests import add_digests, digest_of, row_digest, segment_digest
from checkpoint_plugin.encryption import KeyRing, WrappedKeys
from checkpoint_plugin.errors import BlobsUnusable, KeyMissing, KeyUnusable, StoreDamaged, ValueNotReadable
from checkpoint_plugin.finding import RESTORE, Finding, RunReport, Unverified, go_on, newest_intact
from checkpoint_plugin.models import (
    CHECKPOINT,
    EVENT,
    EVENT_HEAD,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    RUN_KEY,
    RUN_NODE_STATE,
)
from checkpoint_plugin.reading import cut_hash_of, load_payloads
from checkpoint_plugin.restored import RowReader, mentioned_in_refs
from checkpoint_plugin.rows import FIELDS
from checkpoint_plugin.sealing import PLAIN, Seal
from checkpoint_plugin.writing import head_digest
from hookspecs import RunNotFound, RunStatus

__all__ = ["RunChecked", "check_run"]

STATUSES: Final = frozenset(get_args(RunStatus))
STATUS: Final = FIELDS.index("status")
ATTEMPT: Final = FIELDS.index("attempt")
COLLECTED: Final = FIELDS.index("collected")
DIGEST_SIZE: Final = 32
PAGE: Final = 2_000
BATCH_BYTES: Final = 64 << 20
MOST_FINDINGS: Final = 200
"""Of one run: one lost page may damage ten thousand rows, and nobody reads as many lines."""
LATER: Final = "No checkpoint needs it: the run can be resumed, and its next save writes it anew."


class InlineReader(RowReader):
    """Reads rows without the payloads that they mention."""

    def value(self, ref: Any, where: str) -> Any:
        return super().value(ref, where) if type(ref) is bytes else None


def check_run(connection: Connection, run_id: str, codec: Codec, ring: KeyRing | None, blobs: Blobs, shown: str) -> RunChecked:
    """Look at everything of a run, in a transaction that sees one moment.

    Args:
        connection: in a transaction.
        run_id: the run.
        codec: decodes values.
        ring: the master keys.
        blobs: where large values lie as files.
        shown: the store, for an error.

    Raises:
        RunNotFound: there is no such run.
    """
    check = RunCheck(connection, run_id, codec, ring, blobs)
    check.look(shown)
    return check.told()


@dataclass(frozen=True, slots=True)
class RunChecked:
    """What was found, and what else is needed to compare a run with its witness.

    Args:
        report: of the run.
        options: of this plugin that are stored with the run.
        newest: number and hash of the newest checkpoint.
    """

    report: RunReport
    options: Mapping[str, Any]
    newest: tuple[int, bytes | None]


class RunCheck:
    """The check of one run.

    Args:
        connection: in a transaction.
        run_id: the run.
        codec: decodes values.
        ring: the master keys.
        blobs: where large values lie as files.
    """

    def __init__(self, connection: Connection, run_id: str, codec: Codec, ring: KeyRing | None, blobs: Blobs) -> None:
        self._connection = connection
        self._run_id = run_id
        self._codec = codec
        self._ring = ring
        self._blobs = blobs
        self._seal: Seal | None = PLAIN
        self._options: Mapping[str, Any] = {}
        self._newest: Any = 0
        self._status: Any = None
        self._is_runs = False
        self._found: list[tuple[str, int | None, str | None, str | None]] = []
        self._left_out = 0
        self._unverified: dict[str, None] = {}
        self._heads: dict[int, Any] = {}
        self._numbers: Sequence[int] = ()
        self._damaged: set[int] = set()
        self._hopeless = False
        self._payloads: set[bytes] = set()
        self._wrong_payloads: set[bytes] = set()
        self._chains: dict[tuple[int, str], Chain] = {}
        self._rows: dict[str, _Newest] = {}
        self._total = 0
        self._bad_nodes: set[str] = set()

    def look(self, shown: str) -> None:
        """Look at everything.

        Args:
            shown: the store, for an error.

        Raises:
            RunNotFound: there is no such run.
        """
        exists = self._connection.execute(select(JOB.c.id).where(JOB.c.id == self._run_id)).first()
        if exists is None:
            raise RunNotFound(self._run_id, shown)
        for what, step in (
            ("the row of its keys", self._look_at_keys),
            ("its row", self._look_at_job),
            ("its checkpoints", self._look_at_heads),
            ("its payloads", self._look_at_payloads),
            ("the items of its outputs", self._look_at_items),
            ("the rows of its nodes", self._look_at_rows),
            ("its run_node_state", self._look_at_states),
            ("its lease", self._look_at_lease),
            ("its events", self._look_at_events),
        ):
            try:
                with telling_damage(self._run_id, what):
                    step()
            except StoreDamaged as error:
                self._hopeless = True
                self._note(error.what, error.number)
            except DBAPIError as error:
                if not isinstance(error.orig, sqlite3.Error):
                    raise  # a connection that was lost tells nothing of what is stored
                self._hopeless = True
                self._note(f"{what} cannot be read: {error.orig}")

    def told(self) -> RunChecked:
        """What was found."""
        damaged = frozenset(self._numbers) if self._hopeless else frozenset(self._damaged)
        advice = go_on(self._run_id, newest_intact(self._numbers, damaged))
        findings = [
            Finding(self._run_id, what, advice if special is None else special, number, node_id)
            for what, number, node_id, special in self._found
        ]
        if self._left_out:
            findings.append(Finding(self._run_id, f"and {self._left_out} more", advice))
        unverified = [Unverified(self._run_id, what) for what in self._unverified]
        head = self._heads.get(self._numbers[-1]) if self._numbers else None
        newest = (0, None) if head is None else (head.number, bytes(head.cut_hash))
        return RunChecked(RunReport(self._run_id, self._numbers, damaged, findings, unverified), self._options, newest)

    def _note(self, what: str, number: int | None = None, node_id: str | None = None, advice: str | None = None) -> None:
        if len(self._found) < MOST_FINDINGS:
            self._found.append((what, number, node_id, advice))
        else:
            self._left_out += 1

    # The run itself.

    def _look_at_keys(self) -> None:
        query = select(RUN_KEY.c.key_id, RUN_KEY.c.wrapped).where(RUN_KEY.c.run_id == self._run_id)
        row = self._connection.execute(query).first()
        if row is None:
            if self._ring is not None:
                self._unverified["it is not encrypted, and a key is set: with the key it is not resumed"] = None
            return
        self._seal = None
        try:
            if self._ring is not None:
                self._seal = self._ring.open(self._run_id, WrappedKeys(row.key_id, bytes(row.wrapped)))
                return
            why = "Set WORKFLOW_CHECKPOINT_KEY"
        except KeyMissing as error:
            why = str(error).rstrip(".")
        except KeyUnusable:
            self._hopeless = True
            self._note("the row of its keys is not what was written")
            return
        self._unverified[
            f"its values are encrypted with the master key {row.key_id}; only rows and digests were checked. {why}"
        ] = None

    def _look_at_job(self) -> None:
        names = ("status", "attempt", "newest_number", "definition", "definition_digest", "execution_strategy")
        row = self._connection.execute(select(*(_raw(JOB.c[name]) for name in names)).where(JOB.c.id == self._run_id)).one()
        self._newest, self._status = row.newest_number, row.status
        self._is_runs = row.execution_strategy == "runner"
        if row.status not in STATUSES or type(row.attempt) is not int or row.attempt < 1:
            self._condemn(f"its row says status {row.status!r}, attempt {row.attempt!r}")
        if digest_of(self._run_id.encode(), bytes(row.definition)) != bytes(row.definition_digest):
            self._condemn("its graph and inputs were changed")
        elif self._seal is not None:
            try:
                found = self._codec.decode(self._seal.open(bytes(row.definition), b"definition"))
                options = dict(found["enable"]).get("checkpoint")
                self._options = options if isinstance(options, dict) else {}
                dict(found["graph"]), dict(found["inputs"])
            except MalformedValue as error:
                self._condemn(f"its graph and inputs: {error}")
            except ValueNotReadable as error:
                self._unverified[f"its inputs, which cannot be read here: {error.why}"] = None

    def _condemn(self, what: str) -> None:
        self._hopeless = True
        self._note(what)

    def _look_at_heads(self) -> None:
        of_run = CHECKPOINT.c.run_id == self._run_id
        query = select(CHECKPOINT.c.number).where(of_run).order_by(CHECKPOINT.c.number)
        self._numbers = list(self._connection.execute(query).scalars())
        for number in self._numbers:
            try:
                with telling_damage(self._run_id, "the row of the checkpoint", number):
                    self._look_at_head(
                        self._connection.execute(select(CHECKPOINT).where(of_run, CHECKPOINT.c.number == number)).one()
                    )
            except StoreDamaged as error:
                self._damaged.add(number)
                self._note(error.what, number)
            except ValueNotReadable as error:
                self._unverified[f"values that cannot be read here: {error.why}"] = None
        newest = self._numbers[-1] if self._numbers else 0
        if newest != self._newest:
            self._note(f"its row names {self._newest} as the newest checkpoint, which is {newest}")
        elif (
            newest
            and self._is_runs
            and self._status == "completed"
            and newest in self._heads
            and self._heads[newest].status != "completed"
        ):
            self._note(f"its row says that it is completed, and checkpoint {newest} says {self._heads[newest].status}")

    def _look_at_head(self, row: Any) -> None:
        if head_digest(row._mapping) != row.digest:
            raise StoreDamaged(self._run_id, "the row of the checkpoint was changed", row.number)
        self._heads[row.number] = row
        if self._seal is not None:
            reader = RowReader(self._run_id, row.number, self._codec, self._seal)
            if row.error is not None:
                reader.text(row.error)
            if row.context is not None:
                reader.value(reader.opened(bytes(row.context), "its context", b"context"), "its context")

    # Values.

    def _look_at_payloads(self) -> None:
        query = select(_raw(PAYLOAD.c.digest), func.length(PAYLOAD.c.body).label("size")).where(PAYLOAD.c.run_id == self._run_id)
        batch: list[bytes] = []
        size = 0
        for digest, length in self._connection.execute(query.order_by(PAYLOAD.c.digest)).all():
            if type(digest) is not bytes:
                self._note("a payload has no digest")
                continue
            self._payloads.add(digest)
            batch.append(digest)
            size += length or 0
            if len(batch) >= PAGE or size >= BATCH_BYTES:
                self._look_at_batch(batch)
                batch, size = [], 0
        self._look_at_batch(batch)

    def _look_at_batch(self, batch: Sequence[bytes]) -> None:
        if not batch or self._seal is None:
            return
        try:
            with telling_damage(self._run_id, "a payload"):
                reader = load_payloads(self._connection, self._run_id, batch, self._seal, self._blobs)
        except StoreDamaged as error:
            if len(batch) == 1:
                self._wrong_payloads.add(batch[0])
                self._note(f"payload {batch[0].hex()[:16]}: {error.what}")
                return
            half = len(batch) // 2
            self._look_at_batch(batch[:half])
            self._look_at_batch(batch[half:])
            return
        for digest in batch:
            try:
                with telling_damage(self._run_id, "a payload"):
                    self._look_at_payload(reader.data(digest), digest)
            except (MalformedValue, StoreDamaged) as error:
                self._wrong_payloads.add(digest)
                self._note(f"payload {digest.hex()[:16]}: {error.what if isinstance(error, StoreDamaged) else error}")
            except BlobsUnusable as error:
                self._unverified[str(error)] = None
            except ValueNotReadable as error:
                self._unverified[f"values that cannot be read here: {error.why}"] = None

    def _look_at_payload(self, data: bytes | None, digest: bytes) -> None:
        assert self._seal is not None
        if data is None or self._seal.address(data) != digest:
            raise MalformedValue("it was changed")
        self._codec.decode(data)

    # Items of outputs.

    def _look_at_items(self) -> None:
        table = OUTPUT_SEGMENT.c
        query = select(*map(_raw, OUTPUT_SEGMENT.columns)).where(table.run_id == self._run_id)
        for row in self._pages(query, (table.node_id, table.log, table.first)):
            chain = self._chains.setdefault((row.log, row.node_id), Chain())
            held, whole = row.count, True
            try:
                with telling_damage(self._run_id, "it", row.number):
                    held = self._look_at_segment(row)
            except StoreDamaged as error:
                whole = False
                self._note(f"items {row.first} to {row.first + row.count} of the output: {error.what}", row.number, row.node_id)
            chain.add(row.first, row.count, held, row.number, whole)

    def _look_at_segment(self, row: Any) -> int:
        """How many items it holds."""
        if segment_digest(self._run_id, row.node_id, row.log, row.first, bytes(row.body)) != bytes(row.digest):
            raise StoreDamaged(self._run_id, "they were changed", row.number)
        if self._seal is None:
            self._look_at_mentions(row, None)
            return int(row.count)
        reader = InlineReader(self._run_id, row.number, self._codec, self._seal)
        refs = reader.unpack_segment(row.node_id, bytes(row.body), row.log, row.first)
        self._look_at_mentions(row, mentioned_in_refs(refs))
        self._read_inline(lambda: [reader.value(ref, "the output") for ref in refs])
        if len(refs) != row.count:
            self._note(
                f"a segment of the output says that it holds {row.count} items, and holds {len(refs)}", row.number, row.node_id
            )
        return len(refs)

    def _read_inline(self, read: Callable[[], object]) -> None:
        try:
            read()
        except ValueNotReadable as error:
            self._unverified[f"values that cannot be read here: {error.why}"] = None

    def _look_at_mentions(self, row: Any, mentioned: Iterable[bytes] | None) -> None:
        listed = _digests(row.mentions)
        for digest in dict.fromkeys(listed if mentioned is None else mentioned):
            if digest not in self._payloads:
                raise StoreDamaged(self._run_id, f"payload {digest.hex()[:16]}, which it mentions, is missing", row.number)
            if digest in self._wrong_payloads:
                raise StoreDamaged(self._run_id, f"payload {digest.hex()[:16]}, which it mentions, is damaged", row.number)
            if digest not in listed:
                what = f"it mentions payload {digest.hex()[:16]} and does not list it, so that pruning would delete that"
                self._note(what, row.number, row.node_id, "Do not prune the run. " + RESTORE)

    # Rows of nodes, and the cuts that they make.

    def _look_at_rows(self) -> None:
        table = NODE_VERSION.c
        query = select(*map(_raw, NODE_VERSION.columns)).where(table.run_id == self._run_id)
        waiting = deque(self._numbers)
        for row in self._pages(query, (table.number, table.node_id)):
            while waiting and waiting[0] < row.number:
                self._look_at_cut(waiting.popleft())
            if not waiting:
                self._note("a row of the node belongs to no checkpoint that is there", row.number, row.node_id)
                continue
            self._take_row(row)
        while waiting:
            self._look_at_cut(waiting.popleft())

    def _take_row(self, row: Any) -> None:
        before = self._rows.get(row.node_id)
        shape = None
        self._bad_nodes.discard(row.node_id)
        try:
            with telling_damage(self._run_id, "its row", row.number):
                shape = self._look_at_row(row)
        except StoreDamaged as error:
            self._bad_nodes.add(row.node_id)
            self._note(error.what, row.number, row.node_id)
        digest = row.digest if type(row.digest) is bytes else b""
        self._total = add_digests(self._total, added=digest, removed=None if before is None else before.digest)
        self._rows[row.node_id] = _Newest(row.number, digest, shape)

    def _look_at_row(self, row: Any) -> Sequence[Any] | None:
        body = bytes(row.body)
        if row_digest(self._run_id, row.node_id, row.number, body) != bytes(row.digest):
            raise StoreDamaged(self._run_id, "its row was changed", row.number)
        if self._seal is None:
            self._look_at_mentions(row, None)
            return None
        reader = InlineReader(self._run_id, row.number, self._codec, self._seal)
        fields = reader.unpack(row.node_id, body, row.number)
        self._look_at_mentions(row, reader.mentioned(fields))
        self._read_inline(lambda: reader.node(row.node_id, fields, range(fields[COLLECTED])))
        return fields[STATUS], fields[ATTEMPT], fields[COLLECTED]

    def _look_at_cut(self, number: int) -> None:
        """All rows up to a checkpoint were taken."""
        if self._bad_nodes:
            self._damaged.add(number)
        head = self._heads.get(number)
        if head is None:
            return
        rows = ((node_id, row.digest) for node_id, row in self._rows.items())
        if len(self._rows) != head.row_count:
            self._spoil(number, f"{len(self._rows)} of {head.row_count} rows of nodes are there")
        elif cut_hash_of(head, self._total, rows) != bytes(head.cut_hash) and not self._bad_nodes:
            self._spoil(number, "a row of a node is not the one that the checkpoint was made of")
        for (log, node_id), chain in self._chains.items():
            row = self._rows.get(node_id)
            if log == head.log and row is not None:
                self._look_at_collected(number, node_id, row, chain.items(number))
        for node_id, row in self._rows.items():
            if row.shape is not None and row.shape[2] and (head.log, node_id) not in self._chains:
                self._look_at_collected(number, node_id, row, 0)

    def _look_at_collected(self, number: int, node_id: str, row: _Newest, items: int | None) -> None:
        if items is None:
            self._spoil(number, "items of the output are missing or damaged", node_id)
        elif row.shape is not None and items != row.shape[2]:
            self._spoil(number, f"the output has {items} of {row.shape[2]} items", node_id)

    def _spoil(self, number: int, what: str, node_id: str | None = None) -> None:
        self._damaged.add(number)
        self._note(what, number, node_id)

    # The tables for plain SQL, and what else belongs to a run.

    def _look_at_states(self) -> None:
        newest = self._heads.get(self._numbers[-1]) if self._numbers else None
        if newest is None:
            return
        states = self._connection.execute(select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == self._run_id)).all()
        found = {state.node_id: state for state in states}
        for node_id, row in self._rows.items():
            state = found.get(node_id)
            if state is None:
                self._note("it has no row in run_node_state", None, node_id, LATER)
            elif state.number is not None and state.number != row.number:
                what = f"run_node_state says that checkpoint {state.number} wrote it last, which was {row.number}"
                self._note(what, row.number, node_id, LATER)
            elif row.shape is not None and state.number is not None and state.updated_at <= newest.created_at:
                told = (state.status, state.attempt)
                if told != tuple(row.shape[:2]):
                    what = f"run_node_state says {told[0]}, attempt {told[1]}; its row, {row.shape[0]}, attempt {row.shape[1]}"
                    self._note(what, row.number, node_id, LATER)

    def _look_at_lease(self) -> None:
        query = select(LEASE.c.epoch, LEASE.c.generation).where(LEASE.c.run_id == self._run_id)
        row = self._connection.execute(query).first()
        if row is None or row.epoch < 0:
            self._condemn("its row in lease is missing or was changed")
        elif row.generation == 0:  # nothing was ever pruned
            for number in sorted(set(range(1, (self._numbers or (0,))[-1])).difference(self._numbers)):
                self._note("the checkpoint itself is missing", number)

    def _look_at_events(self) -> None:
        of_run = EVENT.c.run_id == self._run_id
        query = select(func.count(), func.min(EVENT.c.seq), func.max(EVENT.c.seq)).where(of_run)
        count, first, last = self._connection.execute(query).one()
        numbered = select(EVENT_HEAD.c.next_seq).where(EVENT_HEAD.c.run_id == self._run_id)
        expected = self._connection.execute(numbered).scalar_one_or_none() or 0
        if count != expected or (count and (first, last) != (0, count - 1)):
            self._note(f"its log has {count} of {expected} events", None, None, "No resume needs them. " + RESTORE)

    def _pages(self, query: Any, order: Sequence[Any]) -> Iterator[Any]:
        """Rows by their key, some at a time: a run may have millions."""
        after: Any = None
        while True:
            part = query.order_by(*order).limit(PAGE)
            rows = self._connection.execute(part if after is None else part.where(after)).all()
            yield from rows
            if len(rows) < PAGE:
                return
            last = rows[-1]._mapping
            after = or_(
                *(
                    and_(*(column == last[column.name] for column in order[:place]), column > last[column.name])
                    for place, column in enumerate(order)
                )
            )


@dataclass(frozen=True, slots=True)
class _Newest:
    """A node's newest row so far.

    Args:
        number: of its checkpoint.
        digest: of the row.
        shape: status, attempt and number of items; `None` where it cannot be read.
    """

    number: int
    digest: bytes
    shape: Sequence[Any] | None


def _raw(column: Any) -> Any:
    """A column as the driver gives it: a value of another type is then one row's damage, not that of all."""
    return type_coerce(column, NullType()).label(column.name)


def _digests(mentions: Any) -> set[bytes]:
    listed = bytes(mentions or b"")
    return {listed[at : at + DIGEST_SIZE] for at in range(0, len(listed), DIGEST_SIZE)}
