"""One store: how the cuts of its runs are saved and read back. One transaction each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from checkpoint_plugin.blobs.name import BlobName
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.database.unbroken import Unbroken
from checkpoint_plugin.errors import BlobsUnusable, StoreBusy, StoreDamaged, StoreUnreachable, StoreUnreadable
from checkpoint_plugin.opening.held_runs import HeldRuns
from checkpoint_plugin.opening.open_store import RECONNECT_PAUSE
from checkpoint_plugin.restoring.damaged_history import fetch_node_ids, fetch_numbers
from checkpoint_plugin.restoring.reading import Seen, StoredCut, fetch_cut, read_whole
from checkpoint_plugin.saving.completed import Tally
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.lease import lock_lease
from hookspecs import CheckpointRef, NodeSnapshot, Snapshot

__all__ = ["RunHistory", "Store"]

logger = logging.getLogger("checkpoint_plugin")
MOST_UNHEARD: Final = 16
"""Saves of unknown outcome that are remembered: each is as large as what it would have written."""
SQL: Final = "checkpoint_plugin.tables.row_sql"
FIRST_BLOCK: Final = Statement(SQL, "first_block")
DROP_BLOCKS: Final = Statement(SQL, "drop_blocks")
SET_NEWEST: Final = Statement(SQL, "set_newest")


class Store(HeldRuns):
    """One store, open: runs begin and end in it, are saved and restored; see `OpenStore` for its arguments."""

    # Saving.

    async def save(self, history: RunHistory, snapshot: Snapshot, reason: str, codec: Codec | None = None) -> CheckpointRef:
        """Write a cut as the run's next checkpoint.

        A caller that is cancelled meanwhile learns of it when the save is over, and the history then holds its outcome.

        Args:
            history: of the run.
            snapshot: the cut.
            reason: stored with the checkpoint.
            codec: encodes its values; default: that of the store.

        Raises:
            LeaseLost: another worker took the run; nothing was written.
            ValueNotStorable: a value cannot be stored; nothing was written.
            StoreError: the store cannot be used; nothing was written.
        """
        await self._get_ready()
        return await Unbroken(self._save(history, snapshot, reason, codec or self.codec))

    async def _save(self, history: RunHistory, snapshot: Snapshot, reason: str, codec: Codec) -> CheckpointRef:
        history.seal = await self.seal(history.run_id)
        while True:
            writer = CutWriter(history, snapshot, reason, codec, self.blobs if self.blobs.writes else None)
            held = await self._write(writer)
            if held or not await self.surely(writer.refused, lambda connection: False):  # it may look twice
                ref = writer.note()
                history.unheard.clear()
                if self._witness is not None:
                    await self._database.compute(partial(self._witness.note, ref.run_id, ref.number, writer.cut_hash))
                return ref
            if self.blobs.writes:
                await self._database.compute(writer.discard)

    async def _write(self, writer: CutWriter) -> bool:
        """Write a cut, again and again where the connection was lost or a lock not given: a try that was done is recognised."""
        began, lost, pause = time.monotonic(), None, RECONNECT_PAUSE
        while True:
            try:
                return await self._connections.group.save(writer)
            except StoreUnreadable as error:
                if not error.undone and writer not in writer.history.unheard:
                    writer.history.unheard.append(writer)
                    del writer.history.unheard[:-MOST_UNHEARD]
                if isinstance(error, StoreUnreachable):  # counted from when it was lost: others may have been written before it
                    since = lost = lost or time.monotonic()
                elif isinstance(error, StoreBusy) and self.location.kind == "postgresql":
                    since = began
                else:  # for a file it has waited as long as it may
                    raise
                if time.monotonic() + pause > since + self.location.limits.reconnect_seconds:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def rewind(self, history: RunHistory, snapshot: Snapshot) -> CheckpointRef | None:
        """Make an older cut the run's newest checkpoint, to go on from it. Those that came later stay as they are.

        Args:
            history: as `restore` of the older cut left it.
            snapshot: as `restore` gave it.

        Returns:
            The new checkpoint; `None` when the cut is the newest.

        Raises:
            StoreError: as `save`.
        """
        run_id, number = history.run_id, history.number

        def read(connection: Connection) -> tuple[int | None, Sequence[int], set[str], bool]:
            told = connection.execute(FIRST_BLOCK, {"of_run": run_id}).first() is not None
            return *fetch_numbers(connection, run_id), fetch_node_ids(connection, run_id), told

        def mend(connection: Connection) -> None:
            lock_lease(connection, run_id, history.epoch)
            connection.execute(SET_NEWEST, {"of_run": run_id, "newest_number": newest})
            connection.execute(DROP_BLOCKS, {"of_run": run_id})

        named, numbers, node_ids, told = await self._read(read)
        newest = max(named or 0, *numbers)
        if newest != named or told:  # both may be damaged, and whoever names a checkpoint wants to go on all the same
            await self.transact(mend)
        if newest == number:
            return None
        moved = {node.node_id for node in snapshot.nodes}
        back = (NodeSnapshot(node_id, "idle") for node_id in sorted(node_ids - moved))
        anew = {"number": newest, "log": newest + 1, "total": 0, "digests": {}, "unread": 0, "tally": Tally()}
        anew |= {"saved_items": {}, "held": {}}
        stood = {name: getattr(history, name) for name in anew}
        now = datetime.now(UTC)
        whole = replace(snapshot, nodes=(*snapshot.nodes, *back), attempt=history.attempt, status="running", taken_at=now)
        _set(history, anew)
        try:
            return await self.save(history, whole, f"back to {number}")
        except BaseException:
            if history.number == newest:  # it has not moved: what is saved next would else tell of its own nodes alone
                _set(history, stood)
            raise

    # Reading.

    async def restore(
        self, history: RunHistory, number: int | None, *, brief: bool = False, seen: Seen | None = None
    ) -> Snapshot | None:
        """Read a cut, the newest without a number, and bring the history up to it.

        Args:
            history: of the run.
            number: of the checkpoint.
            brief: tell of nodes that have completed, and hold nothing, only that they have (`Snapshot.over`).
            seen: by `load_job`, of this run: what is still so is not read again by a brief restore.

        Raises:
            StoreDamaged: it is not what was written.
            StoreError: there is no checkpoint of that number.
        """
        return await read_whole(lambda: self._restore(history, number, brief, seen))

    async def _restore(self, history: RunHistory, number: int | None, brief: bool, seen: Seen | None) -> Snapshot | None:
        run_id = history.run_id

        def work(connection: Connection) -> tuple[Seal, StoredCut | None]:
            seal = self.keys.find(connection, run_id)
            return seal, fetch_cut(connection, run_id, number, self.codec, seal, self.blobs, brief=brief, seen=seen)

        history.seal, cut = await self._read(work)
        if self._witness is not None and number is None:
            head = None if cut is None else cut.head
            noted = (0, None) if head is None else (head.number, column_bytes(head.cut_hash))
            await self._database.compute(partial(self._witness.check, run_id, *noted))
        return None if cut is None else await self._database.compute(lambda: cut.snapshot(history))

    async def remove_files(self, names: Sequence[BlobName]) -> None:
        """Delete files that no row mentions any more; one that cannot be deleted now is swept later."""
        if names:
            try:
                await self._database.compute(lambda: self.blobs.remove(names))
            except BlobsUnusable as error:
                logger.warning("files are left for the next `workflow prune`: %s", error)

    async def give_back(self) -> None:
        """Give the space of deleted rows back to the system."""
        await self._database.give_back()

    async def restore_latest_intact(self, history: RunHistory) -> Snapshot | None:
        """Read the newest cut that is not damaged; those that are, are passed over, each with a warning.

        Raises:
            StoreDamaged: every one is.
            StoreError: the store cannot be used.
        """
        run_id = history.run_id

        newest, numbers = await self._read(lambda connection: fetch_numbers(connection, run_id))
        damage: StoreDamaged | None = None
        if newest is None:
            damage = StoreDamaged(run_id, "its lease does not say which checkpoint is the newest")
            logger.warning("run %s: %s", run_id, damage.what)
        elif newest > max(numbers, default=0):
            damage = StoreDamaged(run_id, "the checkpoint itself is missing", newest)
            logger.warning("run %s: checkpoint %s is passed over: %s", run_id, newest, damage.what)
        for number in numbers:
            try:
                return await self.restore(history, number)
            except StoreDamaged as error:
                logger.warning("run %s: checkpoint %s is passed over: %s", run_id, number, error.what)
                damage = damage or error
        if damage is not None:
            raise damage
        return None


def _set(history: RunHistory, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(history, name, value)
