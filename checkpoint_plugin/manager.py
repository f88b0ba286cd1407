"""Checkpoints of a run by hand, beside any runner: nothing here imports the database layer before it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from checkpoint_plugin.by_hand.checkpoint_data import CheckpointData, NodeStateSnapshot
from checkpoint_plugin.by_hand.graph_shape import GraphShape, read_shape
from checkpoint_plugin.errors import GraphMismatch, StoreDamaged, StoreMissing
from checkpoint_plugin.runs.access import StoreAccess
from hookspecs import LeaseLost, StoreError, shorten

if TYPE_CHECKING:
    from checkpoint_plugin.by_hand.node_change import NodeChanges
    from checkpoint_plugin.by_hand.run_record import RunRecord, RunSave
    from checkpoint_plugin.codec import Codec
    from checkpoint_plugin.database.connection import Connection
    from checkpoint_plugin.store import Store

__all__ = ["CheckpointManager", "create_checkpoint_hook", "restore_checkpoint_hook"]

TRIES: Final = 5
"""How often a save begins anew because somebody else wrote the run meanwhile, before it keeps others from that."""


class CheckpointManager:
    """Saves where the nodes of a run stand, and gives it back.

    Disabled, which is the default, every method returns at once. Enabled with a url, the store is open only during a
    call; `async with manager:` keeps it open.

    Args:
        run_id: the run; its row is made by the first save where there is none.
        enabled: off, nothing is done at all.
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.

    Raises:
        ValueError: it is enabled for a run id that is empty, too long, or that databases do not keep.
    """

    def __init__(self, run_id: str, enabled: bool = False, url: str | None = None, *, store: Store | None = None) -> None:
        self.run_id = run_id
        self.enabled = enabled
        self.checkpoint_count = 0
        self.last_checkpoint_time: datetime | None = None
        if enabled:
            from checkpoint_plugin.tables.definition import check_run_id

            check_run_id(run_id)
            self._access = StoreAccess(url, store)
            self._loop: asyncio.AbstractEventLoop | None = None
            self._lock = asyncio.Lock()
            self._record: RunRecord | None = None
            self._epoch: int | None = None
            self._saved_last = False
            self._is_imported = False

    async def __aenter__(self) -> Self:
        if self.enabled:
            store = self._access.hold(create=True)
            try:
                await store.compute(partial(_load, store.location.kind))
            except BaseException:
                await self._access.close()
                raise
            self._is_imported = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what `async with` keeps open; needless without it."""
        if self.enabled:
            await self._access.close()

    async def save_checkpoint(
        self,
        graph: Any = None,
        completed_nodes: Iterable[str] = (),
        active_nodes: Iterable[str] = (),
        pending_nodes: Iterable[str] = (),
        context_data: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        node_states: Mapping[str, NodeStateSnapshot] | None = None,
        reason: str = "manager",
    ) -> bool:
        """Save the run as its next checkpoint, in one transaction. Nodes that are not named stay as they were.

        Args:
            graph: a mapping or an object with nodes and edges; `None` to leave it unchecked.
            completed_nodes: become completed, with their outputs; earlier ones are kept where none are given.
            active_nodes: become running.
            pending_nodes: become scheduled; a suspended one stays suspended.
            context_data: anything beside the nodes; replaces what was saved before, if it is given.
            outputs: values by handle, by node.
            node_states: nodes to save exactly so, for what the other arguments cannot say.
            reason: stored with the checkpoint.

        Returns:
            True; False when the manager is disabled.

        Raises:
            GraphMismatch: a node is not in the graph, or the graph is not the one that the run was saved with.
            ValueNotStorable: a value cannot be stored; nothing was written.
            ValueError: one text stands for a list of nodes, a node is named twice, an output belongs to none, a state to
                another node, or a field of a node cannot have its value; nothing was written.
            TypeError: `context_data`, `outputs` or `node_states` is no mapping; nothing was written.
            LeaseLost: another worker took the run since this manager first saved it.
            StoreError: the store cannot be used, or the run that this manager saved is gone from it; nothing was written.
        """
        if not self.enabled:
            return False
        # Encoded here and now: the caller may change its values while the store is written.
        from checkpoint_plugin.by_hand.node_change import NodeChanges

        codec = self._access.codec
        for name, given in (("context_data", context_data), ("outputs", outputs), ("node_states", node_states)):
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"{name} is a mapping, not {shorten(given, 200)}. See help(CheckpointManager.save_checkpoint).")
        shape = self._read_shape(graph)
        changes = NodeChanges.read(
            self.run_id,
            {"completed": completed_nodes, "running": active_nodes, "scheduled": pending_nodes},
            outputs or {},
            node_states or {},
            codec,
        )
        context = None if context_data is None else self._copy(dict(context_data), codec)
        if shape is not None and (unknown := sorted(changes.node_ids - shape.nodes.keys())):
            raise GraphMismatch(self.run_id, [f"node {node_id!r} is missing" for node_id in unknown])
        async with self._turn(), self._access.open(create=not self.checkpoint_count) as store:
            await self._import(store)
            for _ in range(TRIES):
                if await self._try(store, shape, changes, context, reason):
                    return True
            if await self._insist(store, shape, changes, context, reason):
                return True
        raise StoreError(f"run {self.run_id!r} is written by others all the time; nothing was written. Save it from one place.")

    async def _try(self, store: Store, shape: GraphShape | None, changes: NodeChanges, context: Any, reason: str) -> bool:
        from checkpoint_plugin.by_hand.run_record import RunRecord, make_record
        from checkpoint_plugin.saving.history import RunHistory
        from checkpoint_plugin.tables.lease import first_epoch

        # What it knows is checked by the write itself, which changes nothing where somebody else wrote: then it looks.
        is_remembered, self._saved_last = self._saved_last, False
        record = self._record if is_remembered else await self._look(store)
        if record is None and self.checkpoint_count:  # else what is not named now would be lost, and nobody hear of it
            raise StoreError(
                f"run {self.run_id!r}, which was saved here before, is gone from {store.location.shown}; nothing was written. "
                "Restore the database from a copy, or begin the run anew with another manager."
            )
        if record is None and (store.keys.ring is not None or store.blobs.writes):
            # What is encrypted, or becomes a file, is that first: the run needs its key, and the row that guards its files.
            record = await make_record(store, self.run_id)
        if record is None:
            record = RunRecord(RunHistory(self.run_id, 1, first_epoch()))
        try:
            save = self._make_save(store, record, shape, changes, context, reason)
        except ValueError:
            if is_remembered:  # it may fit what others have written since
                return False
            raise
        self._record = None  # where the outcome is not heard of, the next save reads everything
        written = await save.hand_over(store)
        self._record = record
        if not written:
            if store.blobs.writes:
                await store.compute(save.discard)
            return False
        self._note(record, save)
        return True

    async def _insist(self, store: Store, shape: GraphShape | None, changes: NodeChanges, context: Any, reason: str) -> bool:
        """Look and save in one transaction. It holds the run while that is read and encoded, so it is the last way."""
        from checkpoint_plugin.by_hand.run_record import fetch_record
        from checkpoint_plugin.tables.node_rows import lock_epoch

        def work(connection: Connection) -> tuple[RunRecord, RunSave, bool] | None:
            lock_epoch(connection, self.run_id)
            record = fetch_record(connection, store, self.run_id)
            if record is None:
                return None
            self._check_epoch(record)
            save = self._make_save(store, record, shape, changes, context, reason)
            save.encode()
            return record, save, save.write(connection)

        self._record = None
        done = await store.transact(work)
        if done is None:
            return False
        record, save, written = done
        if written:
            self._record = record
            self._note(record, save)
        elif store.blobs.writes:
            await store.compute(save.discard)
        return written

    def _make_save(
        self, store: Store, record: RunRecord, shape: GraphShape | None, changes: NodeChanges, context: Any, reason: str
    ) -> RunSave:
        from checkpoint_plugin.by_hand.run_record import RunSave

        if record.by_runner:
            raise StoreError(
                f"run {self.run_id!r} is executed by a runner, which takes its checkpoints; nothing was written. "
                "Give the manager a run id of its own."
            )
        at = datetime.now(UTC)
        if shape is not None and (found := shape.differences(record.shape, record.nodes)):
            raise GraphMismatch(self.run_id, found)
        changed = changes.apply(record.nodes, at)
        kept = dict(record.context) if context is None else context
        blobs = store.blobs if store.blobs.writes else None
        return RunSave(record, changed, shape, kept, reason, at, store.codec, store.keys, blobs)

    def _note(self, record: RunRecord, save: RunSave) -> None:
        save.note()
        self._epoch = record.history.epoch
        self._saved_last = True
        self.checkpoint_count += 1
        self.last_checkpoint_time = save.at

    async def _look(self, store: Store) -> RunRecord | None:
        from checkpoint_plugin.by_hand.run_record import catch_up, load_record

        old = self._record
        found = await load_record(store, self.run_id) if old is None else await catch_up(store, old)
        if found is not None:
            self._check_epoch(found)
        return found

    def _check_epoch(self, record: RunRecord) -> None:
        standing = record.standing
        if standing is not None and self._epoch is not None and standing.epoch != self._epoch:
            raise LeaseLost(self.run_id, self._epoch, standing.epoch)

    async def can_resume(self) -> bool:
        """Whether the run can be resumed: its status allows it and it has a checkpoint (`status.can_be_resumed`).

        Raises:
            StoreError: the store cannot be read.
        """
        if not self.enabled:
            return False
        try:
            async with self._access.open(create=False) as store:
                await self._import(store)
                from checkpoint_plugin.runs.resumable import fetch_resumable

                return await store.transact(lambda connection: fetch_resumable(connection, self.run_id), write=False)
        except StoreMissing:
            if self.checkpoint_count:  # there was one when this manager saved
                raise
            return False

    async def restore_checkpoint(self, graph: Any = None) -> CheckpointData | None:
        """Read the run's newest checkpoint.

        Args:
            graph: to go on with; `None` to leave it unchecked.

        Returns:
            The run; `None` when nothing is stored of it, or the manager is disabled.

        Raises:
            GraphMismatch: the graph is not the one that the run was saved with.
            StoreDamaged: what is stored is not what was written.
            StoreError: the store cannot be read.
        """
        if not self.enabled:
            return None
        shape = self._read_shape(graph)
        try:
            async with self._access.open(create=False) as store:
                await self._import(store)
                from checkpoint_plugin.by_hand.run_record import load_record

                record = await load_record(store, self.run_id)
                if record is None or record.taken_at is None:
                    return None
                if shape is not None and (found := shape.differences(record.shape, record.nodes)):
                    raise GraphMismatch(self.run_id, found)
                return await store.compute(lambda: _data(self.run_id, record, store.codec))
        except StoreMissing:
            if self.checkpoint_count:  # there was one when this manager saved
                raise
            return None

    async def clear_checkpoint(self) -> bool:
        """Delete every checkpoint and every node state of the run; its row stays.

        Returns:
            Whether there was anything to delete; False when the manager is disabled.

        Raises:
            LeaseLost: another worker took the run since this manager first saved it; nothing was deleted.
            RunHeld: a runner executes the run; nothing was deleted.
            StoreError: the store cannot be used; nothing was deleted.
        """
        if not self.enabled:
            return False
        try:
            async with self._turn(), self._access.open(create=False) as store:
                await self._import(store)
                from checkpoint_plugin.runs.resumable import delete_history

                self._record, self._saved_last = None, False
                files = await store.transact(lambda connection: delete_history(connection, self.run_id, store.blobs, self._epoch))
                await store.remove_files(files or ())
                return files is not None
        except StoreMissing:
            if self.checkpoint_count:  # there was one when this manager saved
                raise
            return False

    def get_stats(self) -> dict[str, Any]:
        """What this manager did.

        Returns:
            `run_id`, `enabled`, `checkpoint_count` (saves), `last_checkpoint_time` (of the last one, or `None`).
        """
        return {
            "run_id": self.run_id,
            "enabled": self.enabled,
            "checkpoint_count": self.checkpoint_count,
            "last_checkpoint_time": self.last_checkpoint_time,
        }

    async def _import(self, store: Store) -> None:
        """Import what only SQLAlchemy says, off the event loop: it takes a third of a second."""
        if not self._is_imported:
            await store.compute(partial(import_module, "checkpoint_plugin.by_hand.run_record"))
            self._is_imported = True

    def _turn(self) -> asyncio.Lock:
        """One save after the other; a lock that somebody waited for belongs to that event loop, which may have ended."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    def _read_shape(self, graph: Any) -> GraphShape | None:
        if graph is None:
            return None
        try:
            return read_shape(graph)
        except ValueError as error:
            raise GraphMismatch(self.run_id, [str(error)]) from error

    def _copy(self, context: dict[str, Any], codec: Codec) -> Any:
        return codec.decode(codec.encode(context, lambda: f"run {self.run_id!r}, context"))


def _load(kind: str) -> None:
    """Load what saves need, so that the first takes no longer than others of its size."""
    from checkpoint_plugin.by_hand.run_record import make_ready

    import_module("checkpoint_plugin.by_hand.node_change")
    make_ready(kind)


def _data(run_id: str, record: RunRecord, codec: Codec) -> CheckpointData:
    from checkpoint_plugin.codec import MalformedValue

    assert record.taken_at is not None
    try:
        states = {node_id: node.told(node_id, codec) for node_id, node in record.nodes.items()}
    except MalformedValue as error:
        raise StoreDamaged(run_id, f"the values of a node: {error}", record.history.number) from error

    def of(*statuses: str) -> set[str]:
        return {node_id for node_id, state in states.items() if state.status in statuses}

    sets = (of("completed"), of("running", "suspended"), of("scheduled"))
    return CheckpointData(run_id, record.taken_at, states, *sets, dict(record.context))


async def create_checkpoint_hook(
    manager: CheckpointManager | None,
    graph: Any = None,
    completed_nodes: Iterable[str] = (),
    active_nodes: Iterable[str] = (),
    pending_nodes: Iterable[str] = (),
    context_data: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Mapping[str, Any]] | None = None,
) -> bool:
    """Save, if there is an enabled manager; as its `save_checkpoint`.

    Returns:
        Whether it was saved.

    Raises:
        Exception: as `save_checkpoint`.
    """
    if manager is None or not manager.enabled:
        return False
    return await manager.save_checkpoint(graph, completed_nodes, active_nodes, pending_nodes, context_data, outputs)


async def restore_checkpoint_hook(manager: CheckpointManager | None, graph: Any = None) -> CheckpointData | None:
    """Restore, if there is an enabled manager and the run can be resumed; as its `restore_checkpoint`.

    Returns:
        The run; `None` when it cannot be resumed.

    Raises:
        Exception: as `restore_checkpoint`.
    """
    if manager is None or not manager.enabled or not await manager.can_resume():
        return None
    return await manager.restore_checkpoint(graph)
