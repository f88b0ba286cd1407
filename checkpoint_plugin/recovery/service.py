"""Runs whose process is gone: what is left to do in them, and who goes on with them."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from checkpoint_plugin.by_hand.checkpoint_data import NodeStateSnapshot
from checkpoint_plugin.by_hand.graph_shape import read_shape
from checkpoint_plugin.by_hand.run_record import load_record
from checkpoint_plugin.errors import GraphMismatch, NotResumable, StoreMissing
from checkpoint_plugin.models import RUN_NODE_STATE, Job
from checkpoint_plugin.opening.held_runs import LEASE_SECONDS, RUNNER
from checkpoint_plugin.recovery.claims import Search, fetch_waiting
from checkpoint_plugin.recovery.passes import RecoveryPass
from checkpoint_plugin.recovery.plan import RecoveryPlan, make_plan
from checkpoint_plugin.recovery.resumption import Execute, RecoveryOutcome, Resumption
from checkpoint_plugin.retention import read_duration
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.runs.answers import answer_nodes
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.runs.resumable import fetch_resumable
from checkpoint_plugin.status import RESUMABLE
from checkpoint_plugin.store import Store
from hookspecs import RunNotFound, StoreError

__all__ = ["RecoveryService"]

MAX_ATTEMPTS: Final = 5
AT_ONCE: Final = 4
MAX_AGE: Final = 60.0


class RecoveryService:
    """Finds runs whose process is gone, and resumes them.

    A run of a runner is resumed by `execute`, for example a method of it, and by default by a process of its own with the
    command `workflow resume`; the plugin owns the run meanwhile. A run that was saved by hand is resumed by `execute`
    alone, and this service owns it meanwhile.

    Args:
        worker_id: who resumes; default: the host, the process and something random.
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.
        execute: goes on with the run of an id; an `async def`, or what else gives something to await.
        nodes: files or dotted names of modules of node types, for the command.
        lease_seconds: how long a run saved by hand is owned after the last sign of life.
        max_attempts: a run of which so many recoveries came to no end is set aside.
        blocked: names of plugins that the process of a run does not import.

    Raises:
        TypeError: `nodes` or `blocked` is one text, or `nodes` holds something else than paths and names.
        ValueError: `max_attempts` is below 1, or `lease_seconds` not above 0.
    """

    def __init__(
        self,
        worker_id: str | None = None,
        url: str | None = None,
        *,
        store: Store | None = None,
        execute: Execute | None = None,
        nodes: Sequence[str | Path] = (),
        lease_seconds: float = LEASE_SECONDS,
        max_attempts: int = MAX_ATTEMPTS,
        blocked: Collection[str] = (),
    ) -> None:
        for name, given in (("nodes", nodes), ("blocked", blocked)):
            if isinstance(given, str):
                raise TypeError(f"{name} is a list, not the text {given!r}. Give {name}=[{given!r}].")
        for path in nodes:
            if not isinstance(path, (str, Path)):
                raise TypeError(f"nodes are named to the command by path or dotted name, not as {path!r}. Or give `execute`.")
        if not max_attempts >= 1:
            raise ValueError(f"max_attempts is at least 1, not {max_attempts}: runs would be set aside before any recovery.")
        if not lease_seconds > 0:
            raise ValueError(f"lease_seconds is above 0, not {lease_seconds}: others would take a run while it is executed.")
        self.worker_id = worker_id or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._access = StoreAccess(url, store)
        self._resumption = Resumption(self.worker_id, execute, nodes, lease_seconds, blocked)
        self._max_attempts = max_attempts

    # Looking.

    async def can_resume(self, run_id: str) -> bool:
        """Whether the run can be resumed: its status allows it and it has a checkpoint (`status.can_be_resumed`).

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            async with self._access.open(create=False) as store:
                return await store.transact(lambda connection: fetch_resumable(connection, run_id), write=False)
        except StoreMissing:
            return False

    async def plan(self, run_id: str, graph: Any = None) -> RecoveryPlan:
        """What a resume has to do, node by node; it changes nothing.

        Args:
            run_id: the run.
            graph: to go on with; `None` for the one that the run was saved with.

        Returns:
            Entries by node id. Completed nodes have none: their outputs are the `inputs` of those that need them.

        Raises:
            RunNotFound: there is no such run.
            GraphMismatch: the graph is not the one that the run was saved with.
            StoreError: the store is missing, damaged or cannot be read.
        """
        try:
            shape = None if graph is None else read_shape(graph)
        except ValueError as error:
            raise GraphMismatch(run_id, [str(error)]) from error
        query = select(RUN_NODE_STATE.c.node_id).where(RUN_NODE_STATE.c.run_id == run_id, RUN_NODE_STATE.c.retryable.is_(False))
        async with self._access.open(create=False) as store:
            record = await load_record(store, run_id)
            if record is None:
                raise RunNotFound(run_id, store.location.shown)
            final = await store.transact(lambda connection: set(connection.execute(query).scalars()), write=False)
            codec = store.codec
        if shape is not None and record.shape.nodes and (found := shape.differences(record.shape, record.nodes)):
            raise GraphMismatch(run_id, found)
        states = {node_id: node.told(node_id, codec) for node_id, node in record.nodes.items()}
        return make_plan(run_id, shape or record.shape, states, states.keys() - final, record.waiting, record.by_runner)

    async def restore_node_state(self, run_id: str, node_id: str) -> NodeStateSnapshot | None:
        """Where a node stands; `None` when nothing is known of it.

        Raises:
            RunNotFound: there is no such run.
            StoreError: the store is missing, damaged or cannot be read.
        """
        async with self._access.open(create=False) as store:
            record = await load_record(store, run_id)
            if record is None:
                raise RunNotFound(run_id, store.location.shown)
            found = record.nodes.get(node_id)
            return None if found is None else found.told(node_id, store.codec)

    async def find_stuck_runs(self, max_age: float | timedelta = MAX_AGE) -> list[Job]:
        """Runs that are said to be executed, and by nobody: nobody holds their lease and they gave no sign of life for long.

        Args:
            max_age: seconds since the last sign of life.

        Raises:
            ValueError: the age is none, or longer than a thousand years.
            StoreError: the store cannot be read.
        """
        search = Search(_age(max_age), due=False)
        try:
            async with self._access.open(create=False) as store:
                rows = await store.transact(lambda connection: fetch_waiting(connection, search), write=False)
                return await JobRepository(store=store).get_many([row.id for row in rows])
        except StoreMissing:
            return []

    # Going on.

    async def update_suspended_state(self, run_id: str, node_id: str, value: Any, *, since: datetime | None = None) -> None:
        """Hand a suspended node what it waits for; see `checkpoint_plugin.update_suspended_state`."""
        async with self._access.open(create=False) as store:
            asked = None if since is None else {node_id: since}
            await answer_nodes(store, run_id, {node_id: value}, self.worker_id, asked)

    async def resume(
        self, run_id: str, updates: Mapping[str, Any] | None = None, *, since: Mapping[str, datetime] | None = None
    ) -> RecoveryOutcome:
        """Go on with a run, and wait until it has come to an end.

        Args:
            run_id: the run.
            updates: answers for suspended nodes, by node id; see `update_suspended_state`.
            since: since when nodes wait for what is answered, by node id.

        Returns:
            What came of it.

        Raises:
            ValueError: the run id is empty, or `since` holds no aware times of nodes that are answered.
            RunNotFound: there is no such run.
            NotResumable: it is completed or cancelled, or there is nothing that could execute it.
            NodeNotSuspended: an answer is for a node that waits for nothing; nothing was changed.
            SuspensionChanged: a node waits for something else by now; nothing was changed.
            StoreError: the store is missing, damaged or cannot be used.
        """
        if not run_id:
            raise ValueError("the run id is empty. Give the id of a stored run.")
        async with self._access.open(create=False) as store:
            job = await JobRepository(store=store).get(run_id)
            if job.status not in RESUMABLE:
                raise NotResumable(run_id, f"it is {job.status}")
            if job.execution_strategy != RUNNER and self._resumption.strategies is not None:
                raise NotResumable(run_id, "it was saved by hand, and no function `execute` is given that goes on with it")
            if updates or since:
                await answer_nodes(store, run_id, updates or {}, self.worker_id, since)
            return await self._resumption.go_on(store, run_id, job.execution_strategy, job.attempt)

    async def recover_all(
        self, max_age: float | timedelta = MAX_AGE, *, at_once: int = AT_ONCE, paused: bool = False
    ) -> list[RecoveryOutcome]:
        """Resume every run that is stuck, and every suspended one of which a node's wake time has come or that was answered.

        One that cannot be resumed, or is lost to another worker, stops no other.

        Args:
            max_age: as `find_stuck_runs`.
            at_once: so many are executed at the same time.
            paused: also resume runs that were stopped, by a signal for example.

        Returns:
            What came of each.

        Raises:
            ValueError: as `find_stuck_runs`, or `at_once` is below 1.
            StoreError: the store cannot be used.
        """
        return [outcome async for outcome in self.recover(max_age, at_once=at_once, paused=paused)]

    def recover(
        self,
        max_age: float | timedelta = MAX_AGE,
        *,
        at_once: int = AT_ONCE,
        paused: bool = False,
        watch_seconds: float | None = None,
        trouble: Callable[[StoreError], object] | None = None,
    ) -> AsyncGenerator[RecoveryOutcome, None]:
        """As `recover_all`, telling of each run when it is over; with `watch_seconds` without an end.

        Args:
            max_age: as `find_stuck_runs`.
            at_once: so many are executed at the same time.
            paused: also resume runs that were stopped, by a signal for example.
            watch_seconds: how often to look for more.
            trouble: called when the store cannot be used, which otherwise ends it.

        Returns:
            What came of each. Whoever leaves off before the end closes it: runs that are executed are then stopped.

        Raises:
            ValueError: as `find_stuck_runs`, or `at_once` is below 1, or `watch_seconds` is not above 0.
            StoreError: the store cannot be used, and nobody is told.
        """
        if at_once < 1:
            raise ValueError(f"at_once is at least 1, not {at_once}: no run would ever be resumed.")
        if watch_seconds is not None and not watch_seconds > 0:
            raise ValueError(f"watch_seconds is above 0, not {watch_seconds}. Leave it out to look once.")
        work = RecoveryPass(self._access, self._resumption, Search(_age(max_age), paused=paused), self._max_attempts)
        return work.outcomes(at_once, watch_seconds, trouble)


def _age(max_age: float | timedelta) -> timedelta:
    seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else float(max_age)
    read_duration(abs(seconds))  # negative: also what gave a sign of life just now, by whatever clock
    return timedelta(seconds=seconds)
