"""The plugin: what it does at each hook of one run. The database layer is imported when a run opens its store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from checkpoint_plugin.loader import CheckpointLoader
from checkpoint_plugin.policy import Policy
from checkpoint_plugin.retention import PruneTurns
from hookspecs import (
    Answer,
    Cancelled,
    CheckpointChoice,
    CheckpointRef,
    Completed,
    Failed,
    NodeInfo,
    Outcome,
    RunControl,
    RunInfo,
    Snapshot,
    StoreError,
    Suspended,
    WorkflowError,
    hookimpl,
    text_of,
)

if TYPE_CHECKING:
    from checkpoint_plugin.restoring.reading import Seen
    from checkpoint_plugin.retention import Retention
    from checkpoint_plugin.runs.heartbeat import Heartbeat
    from checkpoint_plugin.runs.pending_answers import Inbox
    from checkpoint_plugin.store import RunHistory, Store
    from checkpoint_plugin.tables.job import JobEnd

__all__ = ["CheckpointPlugin", "checkpoint"]

logger = logging.getLogger("checkpoint_plugin")


def checkpoint(options: Mapping[str, Any]) -> CheckpointPlugin:
    """Make the plugin of one run; nothing is opened yet.

    Args:
        options: as `Policy`.

    Raises:
        PluginOptionsInvalid: an option is unknown or has a wrong value.
    """
    policy = Policy.from_options(options)
    if policy.events:
        from checkpoint_plugin.logging_plugin import LoggingCheckpointPlugin

        return LoggingCheckpointPlugin(policy)
    if policy.before or policy.follows_ends:
        from checkpoint_plugin.node_policy import plugin_class

        return plugin_class(policy)(policy)
    return CheckpointPlugin(policy)


class CheckpointPlugin:
    """Saves one run and gives back its newest cut.

    Args:
        policy: when it saves, and where.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._store: Store | None = None
        self._history: RunHistory | None = None
        self._seen: Seen | None = None
        self._timer: asyncio.Task[None] | None = None
        self._heartbeat: Heartbeat | None = None
        self._inbox: Inbox | None = None
        """Made for the first look for answers."""
        self._before: JobEnd | None = None
        self._back: Snapshot | None = None
        """An older cut, until a save makes it the run's newest: who is refused before that has moved nothing."""
        self._control: RunControl | None = None
        self._degraded: str | None = None
        self._turns = PruneTurns()
        self._returned = 0
        """Bodies that have returned since the last save that `every_nodes` asked for."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        """Make the run's row durable, or become its newest attempt; then let the policy steer."""
        if self._policy.before or self._policy.after:
            from checkpoint_plugin.node_policy import check_names

            check_names(self._policy, run.graph)
        from checkpoint_plugin.blobs.files import Blobs
        from checkpoint_plugin.codec import Codec
        from checkpoint_plugin.database.location import locate
        from checkpoint_plugin.opening.connections import Connections
        from checkpoint_plugin.opening.witness import Witness
        from checkpoint_plugin.runs.heartbeat import Heartbeat
        from checkpoint_plugin.saving.completed import Tally
        from checkpoint_plugin.saving.light import is_light_start
        from checkpoint_plugin.saving.rows import GraphPlaces
        from checkpoint_plugin.store import RunHistory, Store
        from checkpoint_plugin.stored_bytes.encryption import KeyRing
        from checkpoint_plugin.tables.definition import define
        from checkpoint_plugin.tables.holder import Holder
        from checkpoint_plugin.tables.lease import first_epoch

        codec = Codec.taught(run.teach, self._policy.max_value_bytes)
        definition = None
        if not run.resumed:  # first: what is refused here makes no store
            definition = define(run, codec) if is_light_start(run) else await asyncio.to_thread(define, run, codec)
        ring = KeyRing.from_environment(self._policy.key_provider)
        witness = None if self._policy.witness is None else Witness(self._policy.witness)
        location = locate(self._policy.url)
        blobs = Blobs(location, self._policy.blobs, self._policy.blob_bytes)
        taken = await run.loader.take(location, run.run_id) if isinstance(run.loader, CheckpointLoader) else None
        if taken is not None:
            connections, self._seen = taken.connections, taken.seen
        else:
            connections = await Connections.take(run.pool, location, create=not run.resumed)
        store = Store(
            location,
            create=not run.resumed,
            codec=codec,
            ring=ring,
            witness=witness,
            auto_migrate=self._policy.auto_migrate,
            blobs=blobs,
            connections=connections,
        )
        holder, seconds, began = Holder.here(), self._policy.lease_seconds, time.monotonic()
        try:
            if self._policy.retention is not None:  # it asks what only SQLAlchemy says: not to be imported in the middle of a run
                await store.compute(partial(import_module, "checkpoint_plugin.space.pruning"))
            if definition is None:
                lease, self._before = await store.begin_attempt(run.run_id, run.attempt, holder, seconds, steal=run.steal)
                if lease.taken_from is not None:
                    logger.warning("run %s: taken over from %s", run.run_id, lease.taken_from)
            else:
                made = await store.insert_job(run.run_id, definition, holder, seconds, epoch=first_epoch())
                assert made is not None
                lease = made
        except asyncio.CancelledError:  # of the run's own task, as by an event loop that ends; it may be begun all the same
            try:
                with suppress(StoreError):
                    await store.give_up(run.run_id, holder)
            finally:
                await store.close()
            raise
        except BaseException:
            await store.close()
            raise
        self._heartbeat = Heartbeat(store, lease, seconds, control.fail, began)
        places = GraphPlaces(run.graph)
        self._store, self._history = store, RunHistory(run.run_id, run.attempt, lease.epoch, places, tally=Tally())
        control.save_at(*self._policy.moments)
        self._control = control
        if self._policy.every_firing and self._policy.durability == "async":
            control.follow_outputs("every_firing", self._policy.max_lag_steps, self._policy.max_lag_bytes)
        elif self._policy.every_firing:
            control.hold_outputs("every_firing")
        if self._policy.every_seconds is not None:
            self._timer = asyncio.create_task(_ask_every(self._policy.every_seconds, control), name="workflow-checkpoint-timer")

    @hookimpl
    async def restore_checkpoint(self, run: RunInfo, checkpoint_id: CheckpointChoice) -> Snapshot | None:
        """Read the cut to go on from; one that is older than the newest becomes the newest with the first save.

        Raises:
            StoreError: the cut is damaged or not there, or the run was saved by hand.
        """
        store, history = self._opened()
        if checkpoint_id == "latest-intact":
            snapshot = await store.restore_latest_intact(history)
        else:
            snapshot = await store.restore(history, checkpoint_id, brief=checkpoint_id is None, seen=self._seen)
            self._seen = None
        if snapshot is not None and snapshot.context is not None:
            raise StoreError(
                f"run {run.run_id!r} was saved by a CheckpointManager, not by a runner: no items on its edges are stored. "
                "Go on with it by CheckpointManager.restore_checkpoint."
            )
        if checkpoint_id is not None:
            self._back = snapshot
        return snapshot

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        """Write a cut. With `best_effort` one that cannot be written waits for the next, which then holds it, too."""
        store, history = self._opened()
        if reason not in ("answer", "back"):  # these are saved before anything goes on
            self._before = None
        kept: Mapping[str, datetime] = {}
        try:
            if self._back is None and reason == "answer":
                kept = await self._answers().keep(snapshot.nodes, history.epoch)
            save = store.save if self._back is None else self._go_back
            ref = await save(history, snapshot, reason)
        except StoreError as error:
            from checkpoint_plugin.errors import NodeNotSuspended

            if kept:
                await self._answers().drop(kept)
            if not self._policy.best_effort or self._back is not None or isinstance(error, NodeNotSuspended):
                raise
            self._degrade(f"a checkpoint could not be saved: {error}")
            return None
        self._before = None
        if self._inbox is not None:
            await self._inbox.forget(snapshot.nodes)
        rules = self._policy.retention
        if rules is not None and (self._is_due(ref, history) or snapshot.status != "running"):
            try:
                await self._prune(store, rules, run.run_id)
            except StoreError as error:  # what was saved is saved, and what is kept too long can be deleted later
                logger.warning("run %s: what is not kept is left for `workflow prune`: %s", run.run_id, error)
        return ref

    async def _go_back(self, history: RunHistory, snapshot: Snapshot, reason: str) -> CheckpointRef:
        """Make the older cut the run's newest, with what was done to it since, an answer for example."""
        from checkpoint_plugin.runs.pending_answers import fetch_kept, forget_answers

        store, _ = self._opened()
        kept = await fetch_kept(store, history.run_id)  # first: what comes when it has gone back is for the cut that it went to
        assert self._back is not None
        nodes = {node.node_id: node for cut in (self._back, snapshot) for node in cut.nodes}
        back = await store.rewind(history, replace(self._back, nodes=tuple(nodes.values())))
        ref = await store.save(history, snapshot, reason) if back is None or snapshot.status != "running" else back
        self._back = None
        if back is not None:
            await forget_answers(store, history.run_id, kept)
        return ref

    @hookimpl
    async def fetch_answers(self, run: RunInfo) -> Sequence[Answer] | None:
        """What was brought since this attempt took the run; `None` while the store cannot be read and is needed.

        Raises:
            StoreError: the store cannot be read as a resume begins, which would else go on without an answer that is there.
        """
        begins = self._inbox is None and self._before is not None
        try:
            return await self._answers().look()
        except StoreError as error:
            if begins:
                raise
            logger.warning("run %s: answers that were brought meanwhile cannot be read now: %s", run.run_id, error)
            return () if self._policy.best_effort else None  # with it a time does not wait for the store

    def _answers(self) -> Inbox:
        if self._inbox is None:
            from checkpoint_plugin.runs.pending_answers import Inbox

            store, history = self._opened()
            self._inbox = Inbox(store, history.run_id)
        return self._inbox

    def _is_due(self, ref: CheckpointRef, history: RunHistory) -> bool:
        return self._turns.is_due(ref.number, int(ref.details["bytes"]), history.unread + len(history.digests))

    async def _prune(self, store: Store, rules: Retention, run_id: str) -> bool:
        """Delete what the rules do not keep; whether all of the run is gone."""
        from checkpoint_plugin.space.pruning import prune_runs

        pruned = await prune_runs(store, rules, (run_id,))
        if store.blobs.writes:
            from checkpoint_plugin.space.sweep import sweep_blobs

            await sweep_blobs(store, (run_id,))
        return any(found.dropped for found in pruned)

    async def _save_before(self, node: NodeInfo) -> None:
        """Before a body starts; what a plugin that hears of firings calls."""
        if node.node_id in self._policy.before or node.type in self._policy.before:
            assert self._control is not None
            await self._control.request("before")

    async def _save_after(self, node: NodeInfo, outcome: Outcome) -> None:
        """When a body has ended; what a plugin that hears of firings calls."""
        if not isinstance(outcome, Completed) or node.type == "workflow.Input":
            return
        assert self._control is not None
        policy = self._policy
        self._returned += 1
        due = self._returned == policy.every_nodes
        if due:
            self._returned = 0
        if node.node_id in policy.after or node.type in policy.after:
            await self._control.request("after")
        elif due:
            request = self._control.request("every_nodes")
            if policy.durability == "sync":
                await request

    def _degrade(self, reason: str) -> None:
        assert self._control is not None
        self._degraded = self._degraded or reason
        self._control.degrade(reason)

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        """Write how the run ended where no cut did, let it go, and close the store, or leave it to the next run."""
        from checkpoint_plugin.errors import ValueNotStorable

        store, history = self._opened()
        assert self._heartbeat is not None
        is_sound = False
        try:
            try:
                await self._stop_timer()
            finally:
                await self._heartbeat.stop()
            end = (self._before if self._stays(history, outcome) else None) or _ending(outcome)
            if self._degraded is not None:
                await self._end_degraded(store, history, outcome, end)
            else:
                await self._let_go(store, history, None if _has_ended(history) else end)
                error = outcome.error if isinstance(outcome, Failed) else None
                is_sound = not isinstance(error, StoreError) or isinstance(error, ValueNotStorable)
        finally:
            await store.leave().give(run.pool, is_sound=is_sound)

    def _stays(self, history: RunHistory, outcome: Outcome) -> bool:
        """Whether the run stands as it did before this attempt."""
        if self._back is None:
            return _is_refused(outcome)
        return history.status is None and not history.unheard  # a save that was cancelled, or lost, may have moved it

    async def _let_go(self, store: Store, history: RunHistory, end: JobEnd | None) -> None:
        if history.status == "completed":  # the save did
            return
        try:
            await store.end_attempt(history.run_id, history.epoch, end)
        except StoreError as error:
            if end is not None:
                raise
            logger.warning(
                "run %s: it is saved as it ended, but not let go; its lease runs out by itself: %s", history.run_id, error
            )

    async def _end_degraded(self, store: Store, history: RunHistory, outcome: Outcome, end: JobEnd) -> None:
        try:
            is_lost = isinstance(outcome, Completed) or (isinstance(outcome, Suspended) and not history.suspended)
            if is_lost and not _has_ended(history):
                end = replace(end, status="paused")  # its end is in no checkpoint: a resume repeats what was not saved
            await store.end_attempt(history.run_id, history.epoch, end, self._degraded)
        except StoreError as error:
            self._degrade(f"its end could not be stored: {error}")

    async def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.wait((self._timer,))
            if not self._timer.cancelled():
                self._timer.result()  # it ends by itself only when it failed

    def _opened(self) -> tuple[Store, RunHistory]:
        assert self._store is not None
        assert self._history is not None
        return self._store, self._history


def _ending(outcome: Outcome) -> JobEnd:
    from checkpoint_plugin.tables.job import JobEnd

    now = datetime.now(UTC)
    match outcome:
        case Completed():
            return JobEnd("completed", None, now)
        case Failed(error):
            return JobEnd("failed", f"{type(error).__name__}: {text_of(error)}", now)
        case Cancelled():
            return JobEnd("paused", None, now)
        case Suspended():
            return JobEnd("suspended", None, now)


def _has_ended(history: RunHistory) -> bool:
    """Whether the newest checkpoint tells how the run ended, also where nobody heard that it was written."""
    return history.status not in (None, "running")


def _is_refused(outcome: Outcome) -> bool:
    """Whether a resume ended by a refusal (damage, changed source, …), not by what its nodes did: the run is as it was."""
    match outcome:
        case Failed(WorkflowError(exit_code=code)):
            return code in (2, 4, 5)
    return False


async def _ask_every(seconds: float, control: RunControl) -> None:
    """Ask for a checkpoint again and again, `seconds` after the one before is durable."""
    while True:
        await asyncio.sleep(seconds)
        await control.request("interval")
