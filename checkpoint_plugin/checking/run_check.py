"""One run, looked at as a whole: each row once, whatever the number of checkpoints, and what every checkpoint is made of."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, get_args

from sqlalchemy import Table, func, select
from sqlalchemy.exc import DBAPIError

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.bounds import is_attempt, is_epoch
from checkpoint_plugin.checking.cut_check import CutCheck, Head
from checkpoint_plugin.checking.finding import RESTORE, RunReport
from checkpoint_plugin.checking.payload_check import PayloadCheck
from checkpoint_plugin.checking.run_notes import RunNotes
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.database.compiling import kind_of
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.database.raw_rows import raw
from checkpoint_plugin.errors import KeyMissing, KeyUnusable, StoreDamaged, ValueNotReadable
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    EVENT,
    EVENT_HEAD,
    JOB,
    LEASE,
    PENDING_ANSWER,
    RUN_DEFINITION,
    RUN_KEY,
    RUN_NODE_STATE,
)
from checkpoint_plugin.restoring.restored import RowReader
from checkpoint_plugin.restoring.row_shape import mentioned_in_refs
from checkpoint_plugin.runs.pending_answers import FOUND, read_answer
from checkpoint_plugin.saving.completed import block_digest, read_blocks
from checkpoint_plugin.saving.cut_encoder import head_digest
from checkpoint_plugin.stored_bytes.digests import sum_digests
from checkpoint_plugin.stored_bytes.encryption import KeyRing, WrappedKeys
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal
from checkpoint_plugin.tables.definition import graph_of
from checkpoint_plugin.tables.run_definition import opened_definition
from hookspecs import RunNotFound, RunStatus

__all__ = ["RunChecked", "check_run"]

STATUSES: Final = frozenset(get_args(RunStatus))
UNNEEDED: Final = f"No resume needs them. {RESTORE}"
MOST_MISSING: Final = 100
"""Checkpoints that are told as missing: where the number of the newest was changed, all up to it may be."""
ANSWER_AGAIN: Final = "The node still waits: answer it again."
LATER: Final = "No checkpoint needs it: the run can be resumed, and its next save writes it anew."


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
    if connection.execute(select(JOB.c.id).where(JOB.c.id == run_id)).first() is None:
        raise RunNotFound(run_id, shown)
    return RunCheck(connection, run_id, codec, ring, blobs).look()


@dataclass(frozen=True, slots=True)
class RunChecked:
    """What was found, and what else is needed to compare a run with its witness.

    Args:
        report: of the run.
        options: of this plugin that are stored with the run.
        newest: number and hash of the newest checkpoint; its hash is not known where its row is damaged.
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
        self._notes = RunNotes(run_id)
        self._codec = codec
        self._ring = ring
        self._seal: Seal | None = PLAIN
        self._options: Mapping[str, Any] = {}
        self._status: Any = None
        self._is_runs = False
        self._heads: dict[int, Head] = {}
        self._contexts: list[tuple[Any, Any]] = []
        self._numbers: Sequence[int] = ()
        self._step("the row of its keys", self._look_at_keys)
        self._payloads = PayloadCheck(connection, self._notes, codec, self._seal, blobs)
        self._cuts = CutCheck(connection, self._notes, codec, self._seal, self._payloads)

    def look(self) -> RunChecked:
        """Look at everything."""
        self._step("its row", self._look_at_job)
        self._step("its checkpoints", self._look_at_heads)
        self._step("its payloads", self._payloads.look)
        self._step("what was saved beside its nodes", self._look_at_contexts)
        self._step("the items of its outputs", self._cuts.look_at_items)
        self._step("the rows of its nodes", lambda: self._cuts.look_at_rows(self._numbers, self._heads))
        self._step("the blocks of its completed nodes", self._look_at_completed)
        self._step("its lease", self._look_at_lease)
        self._step("its run_node_state", self._look_at_states, LATER)
        self._step("answers that wait for it", self._look_at_answers, ANSWER_AGAIN)
        self._step("its events", self._look_at_events, UNNEEDED)
        if self._connection.kind == "sqlite":  # which keeps anything in any column; no restore reads these
            self._step("a time of its row", lambda: self._read_times(JOB, JOB.c.id), RESTORE)
            self._step("a time of its lease", lambda: self._read_times(LEASE, LEASE.c.run_id), RESTORE)
            self._step("a time of its events", lambda: self._read_times(EVENT, EVENT.c.run_id), UNNEEDED)
        newest = self._numbers[-1] if self._numbers else 0
        head = self._heads.get(newest)
        noted = newest, None if head is None else column_bytes(head.cut_hash)
        return RunChecked(self._notes.report(self._numbers), self._options, noted)

    def _step(self, what: str, look: Callable[[], None], advice: str | None = None) -> None:
        """Look at a part; where rows of it cannot be read at all, it ends there.

        Args:
            what: the part.
            look: looks at it.
            advice: what to do where no restore needs it.
        """
        try:
            with telling_damage(self._notes.run_id, what):
                look()
        except (StoreDamaged, DBAPIError) as error:
            if isinstance(error, DBAPIError) and not isinstance(error.orig, sqlite3.Error):
                raise  # a connection that was lost tells nothing of what is stored
            why = error.what if isinstance(error, StoreDamaged) else f"{what} cannot be read: {error.orig}"
            self._notes.hopeless = self._notes.hopeless or advice is None
            self._notes.note(why, None, None, advice)

    def _read_times(self, table: Table, key: Any) -> None:
        """Make all times of rows of the run, as whoever reads them does."""
        times = [column for column in table.columns if kind_of(column.type) == "time"]
        for _ in self._connection.execute(select(*times).where(key == self._notes.run_id)):
            pass

    # The run itself.

    def _look_at_keys(self) -> None:
        query = select(RUN_KEY.c.key_id, RUN_KEY.c.wrapped).where(RUN_KEY.c.run_id == self._notes.run_id)
        row = self._connection.execute(query).first()
        if row is None:
            if self._ring is not None:
                self._notes.leave("it is not encrypted, and a key is set: with the key it is not resumed")
            return
        self._seal = None
        try:
            if self._ring is not None:
                self._seal = self._ring.open(self._notes.run_id, WrappedKeys(row.key_id, column_bytes(row.wrapped)))
                return
            why = "Set WORKFLOW_CHECKPOINT_KEY"
        except KeyMissing as error:
            why = str(error).rstrip(".")
        except KeyUnusable:
            self._notes.condemn("the row of its keys is not what was written")
            return
        self._notes.leave(
            f"its values are encrypted with the master key {row.key_id}; only rows and their digests were checked. {why}"
        )

    def _look_at_job(self) -> None:
        columns = [raw(JOB.c[name]) for name in ("status", "attempt", "execution_strategy")]
        columns += [raw(RUN_DEFINITION.c[name]) for name in ("body", "digest")]
        joined = JOB.outerjoin(RUN_DEFINITION, RUN_DEFINITION.c.run_id == JOB.c.id)
        row = self._connection.execute(select(*columns).select_from(joined).where(JOB.c.id == self._notes.run_id)).one()
        self._status = row.status
        self._is_runs = row.execution_strategy == "runner"  # what others write into the rows of a run saved by hand counts
        if row.status not in STATUSES or not is_attempt(row.attempt):
            self._notes.condemn(f"its row says status {row.status!r}, attempt {row.attempt!r}")
        try:
            body = opened_definition(self._notes.run_id, row, self._seal or PLAIN)
        except StoreDamaged as error:
            self._notes.condemn(error.what)
            return
        if self._seal is not None:
            try:
                found = self._codec.decode(body)
                enable = dict(found["enable"])
                options = enable.get("checkpoint")
                self._options = options if isinstance(options, dict) else {}
                if enable and not self._is_runs:
                    self._notes.condemn(f"its row says strategy {row.execution_strategy!r}, and a runner began it")
                graph_of(found), dict(found["inputs"])
            except MalformedValue as error:
                self._notes.condemn(f"its graph and inputs: {error}")
            except ValueNotReadable as error:
                self._notes.leave(f"its inputs, which cannot be read here: {error.why}")

    def _look_at_heads(self) -> None:
        of_run = CHECKPOINT.c.run_id == self._notes.run_id
        query = select(CHECKPOINT.c.number).where(of_run).order_by(CHECKPOINT.c.number)
        found = list(self._connection.execute(query).scalars())
        self._numbers = [number for number in found if type(number) is int]
        for number in found:
            if type(number) is not int:  # SQLite keeps anything in any column
                self._notes.note(f"a checkpoint has the number {number!r}")
        for number in self._numbers:
            row = select(CHECKPOINT).where(of_run, CHECKPOINT.c.number == number)
            try:
                with telling_damage(self._notes.run_id, "the row of the checkpoint", number):
                    self._look_at_head(self._connection.execute(row).one())
            except StoreDamaged as error:
                self._notes.damaged.add(number)
                self._notes.note(error.what, number)
            except ValueNotReadable as error:
                self._notes.leave(f"values that cannot be read here: {error.why}")
        newest = self._numbers[-1] if self._numbers else 0
        if newest in self._heads and self._is_runs and self._status == "completed" != self._heads[newest].status:
            self._notes.note(f"its row says that it is completed, and checkpoint {newest} says {self._heads[newest].status}")

    def _look_at_head(self, row: Any) -> None:
        if head_digest(row._mapping, self._seal or PLAIN) != row.digest:
            if self._seal is not None:
                raise StoreDamaged(self._notes.run_id, "the row of the checkpoint was changed", row.number)
            self._notes.leave("the rows of its checkpoints, which are bound by its key")
        self._heads[row.number] = Head(*(row._mapping[name] for name in Head._fields))
        if self._seal is not None:
            reader = RowReader(self._notes.run_id, row.number, self._codec, self._seal)
            if row.error is not None:
                reader.text(row.error)
            context = None if row.context is None else reader.context(row.context)
            if type(context) is list:
                self._contexts.append((row, context))
            elif context is not None:
                reader.value(context, "its context")

    def _look_at_contexts(self) -> None:
        for row, context in self._contexts:
            try:
                self._cuts.look_at_mentions(row, mentioned_in_refs([context]))
            except StoreDamaged as error:
                self._notes.spoil(row.number, f"its context: {error.what}")

    def _look_at_completed(self) -> None:
        of_run = COMPLETED_NODES.c.run_id == self._notes.run_id
        blocks = []
        for row in self._connection.execute(select(COMPLETED_NODES).where(of_run).order_by(COMPLETED_NODES.c.number)):
            try:
                with telling_damage(self._notes.run_id, "the list of its completed nodes"):
                    blocks += self._look_at_block(row)
            except StoreDamaged as error:  # a checkpoint that is named is restored without it
                self._notes.note(error.what, row.number)
        whole = read_blocks(blocks)
        newer = (node_id for node_id, row in self._cuts.rows.items() if row.number > whole.number)
        if blocks and {*whole.node_ids, *whole.open, *newer} != set(self._cuts.rows):
            self._notes.note("a list of its completed nodes is missing", whole.number)

    def _look_at_block(self, row: Any) -> list[tuple[int, Sequence[Any]]]:
        """Its number and what it tells, where that can be looked at."""
        body = column_bytes(row.body)
        if block_digest(self._notes.run_id, row.number, body) != column_bytes(row.digest):
            raise StoreDamaged(self._notes.run_id, "the list of its completed nodes was changed")
        if self._seal is None:
            return []
        block = row.number, RowReader(self._notes.run_id, row.number, self._codec, self._seal).unpack_block(body, row.number)
        told = read_blocks([block])
        rows = [self._cuts.rows.get(node_id) for node_id in told.node_ids]
        if any(found is not None and found.number > row.number for found in rows):
            return [block]  # a node was saved again after its block, which a restore sees, too: then it reads the rows
        found = [found for found in rows if found is not None and found.shape is not None and found.shape[0] == "completed"]
        if len(found) != len(rows) or sum_digests(each.digest for each in found) != told.total:
            self._notes.note("the list of its completed nodes does not tell what their rows tell", row.number)
        return [block]

    def _look_at_states(self) -> None:
        newest = self._heads.get(self._numbers[-1]) if self._numbers else None
        if newest is None:
            return
        states = self._connection.execute(select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == self._notes.run_id)).all()
        found = {state.node_id: state for state in states}
        for node_id, row in self._cuts.rows.items():
            state = found.get(node_id)
            if state is None:
                if row.shape is not None and row.shape[0] != "idle":  # who has not begun needs none
                    self._notes.note("it has no row in run_node_state", None, node_id, LATER)
            elif state.number is not None and state.number != row.number:
                what = f"run_node_state says that checkpoint {state.number} wrote it last, which was {row.number}"
                self._notes.note(what, row.number, node_id, LATER)
            elif self._is_runs and row.shape is not None and state.number and state.updated_at <= newest.created_at:
                told = (state.status, state.attempt)
                if told != tuple(row.shape[:2]):
                    what = f"run_node_state says {told[0]}, attempt {told[1]}; its row, {row.shape[0]}, attempt {row.shape[1]}"
                    self._notes.note(what, row.number, node_id, LATER)

    def _look_at_answers(self) -> None:
        for row in self._connection.execute(FOUND, {"of_run": self._notes.run_id}).all():
            if (seal := self._seal) is None:
                return
            try:
                self._notes.read(partial(read_answer, self._notes.run_id, row, self._codec, seal))
            except StoreDamaged as error:
                self._notes.note(error.what, None, row.node_id, ANSWER_AGAIN)
        self._connection.execute(select(PENDING_ANSWER.c.brought_at).where(PENDING_ANSWER.c.run_id == self._notes.run_id)).all()

    def _look_at_lease(self) -> None:
        query = select(LEASE.c.epoch, LEASE.c.generation, LEASE.c.newest_number).where(LEASE.c.run_id == self._notes.run_id)
        row = self._connection.execute(query).first()
        if row is None or not (is_epoch(row.epoch) and is_epoch(row.generation)):
            self._notes.condemn("its row in lease is missing or was changed")
            return
        if row.epoch < 0:
            self._notes.note(f"its lease has the epoch {row.epoch}")
        newest = self._numbers[-1] if self._numbers else 0
        if newest != row.newest_number:
            self._notes.note(f"its lease names {row.newest_number} as the newest checkpoint, which is {newest}")
        if row.generation == 0:  # nothing was ever pruned
            there = frozenset(self._numbers)
            for number in islice((number for number in range(1, newest) if number not in there), MOST_MISSING):
                self._notes.note("the checkpoint itself is missing", number)

    def _look_at_events(self) -> None:
        of_run = EVENT.c.run_id == self._notes.run_id
        query = select(func.count(), func.min(EVENT.c.seq), func.max(EVENT.c.seq)).where(of_run)
        count, first, last = self._connection.execute(query).one()
        numbered = select(EVENT_HEAD.c.next_seq).where(EVENT_HEAD.c.run_id == self._notes.run_id)
        expected = self._connection.execute(numbered).scalar_one_or_none() or 0
        if count != expected or (count and (first, last) != (0, count - 1)):
            self._notes.note(f"its log has {count} of {expected} events", None, None, UNNEEDED)
