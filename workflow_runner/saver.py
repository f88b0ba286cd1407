"""Cuts on their way to a store: requests that arrive while a save is under way share the next cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import CoroutineType
from typing import TYPE_CHECKING, Final

from hookspecs import CheckpointRef, NodeSnapshot, RunStatus, Snapshot, shorten
from workflow_runner.cut import take_cut
from workflow_runner.events import CheckpointSaved
from workflow_runner.task import start_task

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.run import Run

__all__ = ["Saver", "raised_by"]

LONGEST_REST: Final = 0.02
"""Seconds that what nobody waits for is left unsaved after a save that took as long or longer."""
DurableCall = tuple["Actor", Callable[[], object]]


def raised_by(call: Callable[[], object]) -> BaseException | None:
    """Call what `on_durable` was given; what it raised, for the steps of others are durable all the same."""
    try:
        given = call()
        if isinstance(given, CoroutineType):
            given.close()  # else Python warns of it, too, whenever it is collected
            return TypeError(f"what on_durable was given to call gave {shorten(given)}, which nobody awaits. Start a task of it.")
    except (Exception, asyncio.CancelledError) as error:  # the latter of something cancelled that it looked at
        return error
    return None


class Saver:
    """Takes cuts and has them saved, one after the other, in a task of its own; there is one where a plugin saves."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._made = run.loop.time()
        self._requests: list[asyncio.Future[CheckpointRef | None]] = []
        self._reason = ""
        self._wanted = asyncio.Event()
        self._last: tuple[Snapshot, str] | None = None
        self._closed = False
        self._ends = False
        """Whether its last cut is still to be saved: it holds all that may be asked for, as nothing after it counts."""
        self._over = False
        """Whether that cut was saved."""
        self._calls: list[DurableCall] = []
        self._saved: CheckpointRef | None = None
        self._behind = False
        """Whether the last cut could not be saved: then the next is saved though nothing has changed."""
        self._unsaved: dict[str, NodeSnapshot] = {}
        """The nodes of the cuts that could not be saved: the next one that is holds them, too."""
        self._steps = self._covered = 0
        self._bound: tuple[str, int, int] | None = None
        self._bytes_a_step = 0.0
        self._rest: asyncio.TimerHandle | None = None
        """Until then nothing is saved that nobody waits for."""
        self._task: asyncio.Task[None] | None = None

    def request(self, reason: str) -> asyncio.Future[CheckpointRef | None]:
        """Ask for a cut that holds everything up to now; the future gives its reference once it is durable.

        The last cut of a run holds all that may still be asked for: hooks of its nodes and of its end may.
        """
        future: asyncio.Future[CheckpointRef | None] = self._run.loop.create_future()
        if self._over:
            future.set_result(None if self._behind else self._saved)
            return future
        if self._closed and not self._ends:
            future.cancel()
            return future
        if not self._requests:
            self._reason = reason
        self._requests.append(future)
        self._wanted.set()
        return future

    def request_first(self, reason: str) -> asyncio.Future[CheckpointRef | None]:
        """As `request`, for the cut before anything goes on: it has this reason whatever was asked for before."""
        future = self.request(reason)
        self._reason = reason
        return future

    def follow(self, reason: str, max_steps: int, max_bytes: int) -> None:
        """Save what `step` tells, soon after the save before; see `RunControl.follow_outputs`."""
        self._bound = reason, max_steps, max_bytes

    def step(self) -> bool:
        """Something was emitted that nobody waits for to be durable; whether it is too far ahead of what is."""
        assert self._bound is not None
        reason, max_steps, max_bytes = self._bound
        if not self._closed:
            if not self._requests and not self._wanted.is_set():
                self._reason = reason
            self._steps += 1
            if self._rest is None:
                self._wanted.set()
        return self._steps > max_steps or self._steps * self._bytes_a_step > max_bytes

    async def catch_up(self) -> None:
        """Wait until what was emitted up to now is durable."""
        assert self._bound is not None
        await self.request(self._bound[0])

    def when_durable(self, actor: Actor, calls: Sequence[Callable[[], object]]) -> None:
        """Call these once a cut is durable that is taken from now on."""
        self._calls.extend((actor, call) for call in calls)

    def withdraw(self, actor: Actor, calls: Sequence[Callable[[], object]]) -> None:
        """Do not make these calls, the newest of an actor, after all; those of which a cut was taken are out of reach."""
        kept, left = list(self._calls), list(calls)
        for place in reversed(range(len(kept))):
            if left and kept[place] == (actor, left[-1]):
                del kept[place], left[-1]
        self._calls = kept

    @property
    def is_current(self) -> bool:
        """Whether this is asked in its own task, as by a hook that it calls."""
        return self._task is not None and asyncio.current_task() is self._task

    @property
    def is_behind(self) -> bool:
        """Whether the last cut could not be saved, and waits for the next."""
        return self._behind

    def start(self) -> None:
        """Begin to serve requests; those made before wait."""
        self._task = start_task(self._run.loop, self._serve(), "workflow-saver")
        self._leave_alone(self._run.loop.time() - self._made)  # that the run begins was saved, too

    def close(self, status: RunStatus | None, reason: str = "", error: str | None = None, node_id: str | None = None) -> None:
        """No more cuts after this one, which is taken now, in this synchronous step; `None` for not even this one."""
        if self._closed:
            return
        self._closed = True
        self._wanted.set()
        if self._task is None:  # the run ends before it has begun, and nobody serves what was asked for, or is from now on
            self._refuse(self._requests)
        elif status is not None:
            self._last = (self._snapshot(status, error, node_id), reason)
            self._ends = True

    async def finish(self) -> None:
        """Wait until everything is saved that was asked for; call `close` before.

        Raises:
            HookError, Refusal: as the save of the last cut raised.
        """
        assert self._task is not None
        await self._run.until(self._task)  # it stays known until then: a hook of the last save may ask for another
        self._task = None

    def _snapshot(self, status: RunStatus, error: str | None = None, node_id: str | None = None) -> Snapshot:
        run = self._run
        return Snapshot(run.run_id, run.info.attempt, status, take_cut(run), datetime.now(UTC), error, node_id)

    async def _serve(self) -> None:
        try:
            while not self._closed:
                try:
                    await self._wanted.wait()
                except asyncio.CancelledError:  # as in `Run.until`
                    self._run.stop("cancel")
                self._wanted.clear()
                if (self._requests or self._steps) and not self._closed:
                    began = self._run.loop.time()
                    await self._save_requested()
                    self._leave_alone(self._run.loop.time() - began)
            if self._last is not None:  # there are no new requests after it; where it fails, those there are are refused below
                self._covered = self._steps  # it holds all that was counted
                await self._save(*self._last, self._requests, self._calls)
                self._over = self._ends
        except (Exception, asyncio.CancelledError) as error:  # what a save that was cancelled has left, nobody knows
            self._closed = True
            self._run.save_failed(error)
        finally:
            self._ends = False  # nothing more is saved
            self._end_rest()
            self._refuse(self._requests)

    def _leave_alone(self, seconds: float) -> None:
        """Save nothing that nobody waits for until as much time has passed as the last save took.

        A thread that encodes and an event loop that is busy wait for one another at each turn, and both for longer than either
        would take alone.
        """
        self._end_rest()
        if self._bound is not None and not self._requests and not self._closed:
            self._wanted.clear()
            self._rest = self._run.loop.call_later(min(seconds, LONGEST_REST), self._rested)

    def _rested(self) -> None:
        self._rest = None
        if self._steps:
            self._wanted.set()

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    async def _save_requested(self) -> None:
        requests, self._requests = self._requests, []
        reason = self._reason
        calls, self._calls = self._calls, []
        self._covered = self._steps
        try:
            snapshot = self._snapshot("running")
            if snapshot.nodes or self._saved is None or self._behind:
                await self._save(snapshot, reason, requests, calls)
            else:  # nothing changed: what is durable already holds it all
                self._resolve(requests, self._saved)
                self._call(calls)
                self._steps -= self._covered
        except BaseException:
            self._refuse(requests)
            raise

    async def _save(
        self, snapshot: Snapshot, reason: str, requests: list[asyncio.Future[CheckpointRef | None]], calls: list[DurableCall]
    ) -> None:
        run = self._run
        save = run.hooks.save_checkpoint
        assert save is not None
        if self._unsaved:  # not where the cut is taken: that of the end is, while the one before is still being saved
            nodes = {**self._unsaved, **{node.node_id: node for node in snapshot.nodes}}
            snapshot = replace(snapshot, nodes=tuple(nodes.values()))
        ref = await save(run.info, snapshot, reason)
        self._behind = ref is None
        self._unsaved = {node.node_id: node for node in snapshot.nodes} if ref is None else {}
        if ref is None:
            self._calls = [*calls, *self._calls]
            self._steps -= self._covered
            self._resolve(requests, None)
            return
        self._saved = ref
        if self._covered:
            size = ref.details.get("bytes")
            self._bytes_a_step = size / self._covered if isinstance(size, (int, float)) else 0.0
            self._steps -= self._covered
            self._covered = 0
        if (checkpoint_saved := run.hooks.checkpoint_saved) is not None:
            await checkpoint_saved(run.info, ref)
        if run.listeners:
            seconds = max(0.0, (datetime.now(UTC) - snapshot.taken_at).total_seconds())
            run.notify(CheckpointSaved(run.run_id, ref, seconds, self._steps, int(self._steps * self._bytes_a_step)))
        self._call(calls)
        self._resolve(requests, ref)

    def _call(self, calls: list[DurableCall]) -> None:
        for actor, call in calls:
            if (error := raised_by(call)) is not None:
                self._run.call_failed(actor, error)

    def _resolve(self, requests: list[asyncio.Future[CheckpointRef | None]], ref: CheckpointRef | None) -> None:
        for future in requests:
            if not future.done():
                future.set_result(ref)

    def _refuse(self, requests: list[asyncio.Future[CheckpointRef | None]]) -> None:
        for future in requests:
            if not future.done():
                future.cancel()
