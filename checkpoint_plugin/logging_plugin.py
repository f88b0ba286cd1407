"""The plugin that also keeps the event log of its run, for runs that ask for `events`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from checkpoint_plugin.plugin import CheckpointPlugin
from checkpoint_plugin.policy import Policy
from hookspecs import (
    Cancelled,
    CheckpointRef,
    Completed,
    Failed,
    LeaseLost,
    NodeInfo,
    Outcome,
    RunControl,
    RunInfo,
    Snapshot,
    StoreError,
    Suspended,
    hookimpl,
    text_of,
)

if TYPE_CHECKING:
    from checkpoint_plugin.events.log import EventLogger
    from checkpoint_plugin.retention import Retention
    from checkpoint_plugin.store import Store

__all__ = ["LoggingCheckpointPlugin"]


class LoggingCheckpointPlugin(CheckpointPlugin):
    """Saves one run, and logs what happens to it and to its nodes."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._log: EventLogger | None = None
        self._lost = False
        self._is_dropped = False
        """Whether the run has deleted itself, so that nothing more may be logged of it."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        """As without a log, then log that the run began."""
        from checkpoint_plugin.events.log import EventLogger

        await super().before_run(run, control)
        store, _ = self._opened()
        self._log = EventLogger(run.run_id, store=store)
        try:
            await self._log.start()
            await self._log.log("resumed" if run.resumed else "created", payload={"attempt": run.attempt})
            if not run.resumed:
                for node in run.graph["nodes"]:
                    await self._log.log("scheduled", node["id"])
        except BaseException as error:  # nobody calls after_run of a before_run that raised
            try:
                with suppress(StoreError):  # what is to be told is told
                    await self._log.stop()
            finally:
                stopped = isinstance(error, asyncio.CancelledError)
                await super().after_run(run, Cancelled("cancel") if stopped else Failed(error))
            raise

    @hookimpl
    async def before_node(self, run: RunInfo, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        """Log that a firing began, and save where the policy says so."""
        await self._note("started", node.node_id, _firing(node))
        await self._save_before(node)

    @hookimpl
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        """Save where the policy says so, and log how a firing ended."""
        await self._save_after(node, outcome)
        kind, payload = _told(outcome)
        await self._note(kind, node.node_id, {**_firing(node), **payload})

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        """As without a log, then log the checkpoint."""
        ref = await super().save_checkpoint(run, snapshot, reason)
        if ref is not None:
            await self._note("checkpointed", None, {"number": ref.number, "reason": ref.reason})
        return ref

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        """Log how the run ended, make the log durable, then as without a log."""
        kind, payload = _told(outcome)
        try:
            await self._note(kind, None, {**payload, "attempt": run.attempt})
            await self._bear(self._events().stop())
        finally:
            await super().after_run(run, outcome)

    async def _prune(self, store: Store, rules: Retention, run_id: str) -> bool:
        await self._bear(self._events().flush())  # an event that is written later would stay behind a run that is dropped
        self._is_dropped = await super()._prune(store, rules, run_id)
        return self._is_dropped

    async def _note(self, kind: str, node_id: str | None, payload: Mapping[str, Any]) -> None:
        if not self._lost and not self._is_dropped:
            await self._bear(self._events().log(kind, node_id, payload))

    async def _bear(self, work: Awaitable[None]) -> None:
        """With `best_effort` a log that cannot be written costs the run nothing but the word that it is degraded."""
        try:
            await work
        except StoreError as error:
            if not self._policy.best_effort:
                raise
            if not self._lost:
                self._lost = True
                self._degrade(f"events could not be logged: {error}")

    def _events(self) -> EventLogger:
        assert self._log is not None
        return self._log


def _firing(node: NodeInfo) -> dict[str, Any]:
    return {"firing": node.firing, "attempt": node.attempt}


def _told(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    match outcome:
        case Completed():
            return "completed", {}
        case Failed(LeaseLost(cancelled=True)):
            return "cancelled", {"reason": "it was cancelled in the store"}
        case Failed(error):
            return "failed", {"error": f"{type(error).__name__}: {text_of(error)}"}
        case Cancelled(reason):
            return "cancelled", {"reason": reason}
        case Suspended(suspensions):
            return "suspended", {"reasons": {node_id: found.reason for node_id, found in suspensions.items()}}
