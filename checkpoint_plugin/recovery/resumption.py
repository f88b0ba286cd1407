"""One run that is resumed: by a process of its own, or by a function, under a lease where nobody else takes one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from pathlib import Path
from typing import Final, Literal, cast

from checkpoint_plugin.database.unbroken import take
from checkpoint_plugin.models import Job
from checkpoint_plugin.opening.held_runs import RUNNER
from checkpoint_plugin.recovery.child import resume_in_child
from checkpoint_plugin.recovery.claims import is_left
from checkpoint_plugin.runs.heartbeat import Heartbeat
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.status import EXECUTED
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import Lease
from hookspecs import LeaseLost, Refusal, RunHeld, StoreError, WorkflowError, shorten, text_of

__all__ = ["Execute", "RecoveryOutcome", "Resumption"]

Execute = Callable[[str], Awaitable[object]]
Ended = Literal["completed", "suspended", "paused", "failed"]
CODES: Final[Mapping[int, Ended | Literal["held", "refused"]]] = {
    0: "completed",
    1: "failed",
    2: "refused",
    3: "suspended",
    4: "held",
    5: "refused",
    6: "completed",
    129: "paused",
    130: "paused",
    143: "paused",
}
ENDS: Final = frozenset({"completed", "suspended", "paused", "failed"})
"""Those of which the run's row tells, too."""
STORE_REFUSES: Final = 5
"""Where the store went away in the middle of a run, its row could not be told: that does not count as a death."""


@dataclass(frozen=True, slots=True)
class RecoveryOutcome:
    """What came of resuming a run.

    Args:
        run_id: the run.
        status: how the run stands since: completed, suspended, paused or failed. Or `held`: somebody else executes it;
            `refused`: it could not be resumed and stands as before; `died`: its process was killed, or ended and left the
            run as one that is running; `set_aside`: it was resumed too often without coming to an end, and is left alone
            from now on.
        error: why.
        result: what the function that executed it gave.
    """

    run_id: str
    status: Ended | Literal["held", "refused", "died", "set_aside"]
    error: str | None = None
    result: object = None


class Resumption:
    """How this worker goes on with runs.

    Args:
        worker_id: who.
        execute: goes on with the run of an id; `None` for a process of its own.
        nodes: files or dotted names of modules of node types, for the command.
        lease_seconds: how long a run saved by hand is owned after the last sign of life.
        blocked: names of plugins that its process does not import.
    """

    def __init__(
        self,
        worker_id: str,
        execute: Execute | None,
        nodes: Sequence[str | Path],
        lease_seconds: float,
        blocked: Collection[str] = (),
    ) -> None:
        self.worker_id = worker_id
        self._execute = execute
        self._nodes = tuple(nodes)
        self._lease_seconds = lease_seconds
        self._blocked = frozenset(blocked)

    @property
    def strategies(self) -> frozenset[str] | None:
        """Runs of which `execution_strategy` this can go on with; `None` for all."""
        return None if self._execute is not None else frozenset({RUNNER})

    async def go_on(self, store: Store, run_id: str, strategy: str | None, attempt: int) -> RecoveryOutcome:
        """Go on with a run until it has come to an end.

        Args:
            store: with the run.
            run_id: the run.
            strategy: its `execution_strategy`.
            attempt: its newest one.
        """
        try:
            if strategy != RUNNER:
                return await self._by_hand(store, run_id)
            if self._execute is not None:
                return await self._ended(store, run_id, await _begun(self._execute, run_id))
        except (RunHeld, LeaseLost) as error:
            return RecoveryOutcome(run_id, "held", str(error))
        except asyncio.CancelledError as error:
            if _is_told_to_stop():
                raise
            return RecoveryOutcome(run_id, "failed", _told(error))
        except Exception as error:
            refused = isinstance(error, WorkflowError) and error.exit_code in (2, 5)
            if refused:
                return RecoveryOutcome(run_id, "refused", _told(error))
            return RecoveryOutcome(run_id, "paused" if await self._is_paused(store, run_id) else "failed", _told(error))
        try:
            end = await resume_in_child(run_id, store.location.url, self._nodes, self._blocked)
        except OSError as error:  # too many processes, or no memory for one more
            return RecoveryOutcome(run_id, "refused", f"no process could be started for it: {error}")
        status = CODES.get(end.code)
        # A library that a node calls may end the process with a code of its own: what was begun is then still running.
        if status is None or (end.code != STORE_REFUSES and await self._is_left(store, run_id, attempt + 1)):
            how = f"by signal {-end.code}" if end.code < 0 else f"with exit code {end.code}"
            return RecoveryOutcome(run_id, "died", f"its process ended {how}" + (f": {end.told}" if end.told else ""))
        return RecoveryOutcome(run_id, status, None if end.code in (0, 3) else end.told)

    async def _is_paused(self, store: Store, run_id: str) -> bool:
        """Whether its runner stopped it; not where that cannot be read."""
        try:
            return (await JobRepository(store=store).get(run_id)).status == "paused"
        except StoreError:
            return False

    async def _is_left(self, store: Store, run_id: str, attempt: int) -> bool:
        """Whether a process began this attempt and left it as one that is running; not where that cannot be read."""
        try:
            return await store.transact(lambda connection: is_left(connection, run_id, attempt), write=False)
        except StoreError:
            return False

    async def _ended(self, store: Store, run_id: str, result: object) -> RecoveryOutcome:
        job = await JobRepository(store=store).get(run_id)
        if job.status in ENDS:
            return RecoveryOutcome(run_id, cast("Ended", job.status), job.error, result)
        return RecoveryOutcome(run_id, "refused", f"it is {job.status} after it was resumed", result)

    async def _by_hand(self, store: Store, run_id: str) -> RecoveryOutcome:
        jobs, began = JobRepository(store=store), time.monotonic()
        lease = await take(store.take(run_id, Holder.here(self.worker_id), self._lease_seconds), store.let_go)
        try:
            await jobs.change(run_id, self._begin, epoch=lease.epoch)
            return await self._under(lease, began, store, jobs)
        finally:
            await store.let_go(lease)

    def _begin(self, job: Job) -> None:
        job.mark_running(self.worker_id)
        if job.set_aside is not None:  # no recovery claims such a run: somebody resumes it who wants it back
            job.set_aside, job.retry_count = None, 0

    async def _under(self, lease: Lease, began: float, store: Store, jobs: JobRepository) -> RecoveryOutcome:
        """Execute a run as long as its lease is held, which somebody began to take at that moment of `time.monotonic`."""
        execute = self._execute
        assert execute is not None

        async def call() -> object:  # what is raised before there is anything to wait for fails the run, too
            return await _begun(execute, lease.run_id)

        work = asyncio.create_task(call())
        lost: list[Refusal] = []

        def stop(error: Refusal) -> None:
            lost.append(error)
            work.cancel()

        heartbeat = Heartbeat(store, lease, self._lease_seconds, stop, began)
        try:
            result = await work
        except (asyncio.CancelledError, Exception) as error:
            if lost and isinstance(error, asyncio.CancelledError):
                raise lost[0] from None
            if _is_told_to_stop():
                raise
            told = _told(error)
            await jobs.change(
                lease.run_id, lambda job: job.mark_failed(told) if job.status in EXECUTED else None, epoch=lease.epoch
            )
            return RecoveryOutcome(lease.run_id, "failed", told)
        finally:
            work.cancel()
            await heartbeat.stop()
        waiting = next(iter(await jobs.node_states(lease.run_id, "suspended")), None)

        def end(job: Job) -> None:
            if job.status in EXECUTED and waiting is None:
                job.mark_completed()
            elif job.status in EXECUTED and waiting is not None:
                job.mark_suspended(waiting.node_id, waiting.suspension_reason)

        await jobs.change(lease.run_id, end, epoch=lease.epoch)
        return await self._ended(store, lease.run_id, result)


def _begun(execute: Execute, run_id: str) -> Awaitable[object]:
    """What goes on with a run now.

    Raises:
        TypeError: it was a plain `def`, which has held up the event loop, and with it the sign of life.
    """
    given: object = execute(run_id)
    if not isawaitable(given):
        raise TypeError(f"execute gave {shorten(given)}, which cannot be awaited: let it be an `async def`")
    return given


def _is_told_to_stop() -> bool:
    """Whether this recovery is cancelled, and not only something that a run waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"
