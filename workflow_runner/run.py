"""One attempt of one run: its actors and edges, how it comes to rest, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any, Final, TypeVar

from hookspecs import (
    Answer,
    CheckpointChoice,
    CheckpointRef,
    HookError,
    NodeSnapshot,
    Refusal,
    RunHooks,
    RunInfo,
    RunStatus,
    Snapshot,
    WorkflowError,
    text_of,
)
from workflow_runner.actor import Actor
from workflow_runner.asked import AskedInHook
from workflow_runner.cut import capture_last
from workflow_runner.decisions import NO_DECISIONS, Decisions
from workflow_runner.ending import Ending, status_of
from workflow_runner.errors import Deadlock, NodeFailed, RunStopped
from workflow_runner.events import EdgeChanged, Event, NodeChanged, Progressed, RunEnded, RunStarted
from workflow_runner.grace import Grace
from workflow_runner.growth import Growth
from workflow_runner.plan import Plan
from workflow_runner.saver import Saver, raised_by
from workflow_runner.settings import Settings
from workflow_runner.waking import Waking
from workflow_runner.wiring import Wiring

__all__ = ["Run"]

T = TypeVar("T")

MOMENTS: Final = frozenset({"suspend", "error", "signal", "cancel", "end"})
"""The last of these needs no plugin that asks for it."""


class Run:
    """The actors of one attempt, driven to their end. It is the `RunControl` of its hooks."""

    def __init__(
        self,
        plan: Plan,
        info: RunInfo,
        hooks: RunHooks,
        settings: Settings,
        listeners: Sequence[Callable[[Event], None]],
        accept_changed: frozenset[str] = frozenset(),
        checkpoint: CheckpointChoice = None,
        decisions: Decisions = NO_DECISIONS,
        whole: Callable[[], Plan] | None = None,
    ) -> None:
        self.plan = plan
        self.whole = whole
        self.info = info
        self.run_id = info.run_id
        self.hooks = hooks
        self.settings = settings
        self.listeners = listeners
        self.accept_changed = accept_changed
        self.checkpoint = checkpoint
        self.decisions = decisions
        self.loop = asyncio.get_running_loop()
        self.saver = Saver(self) if hooks.save_checkpoint is not None else None
        self.waking = Waking(self)
        self.wiring = Wiring(self)
        self.actors: dict[str, Actor] = {}
        """Those that are born and not over."""
        self.growth = Growth(self.actors, settings.max_edge_capacity)
        self.changed: dict[Actor, None] = {}
        """An ordered set: the order of nodes in a cut depends on the run alone."""
        self.over: list[NodeSnapshot] = []
        """What the next cut tells of the actors that are over since the last one."""
        self.collected: dict[str, Sequence[Any]] = {}
        self.gate_reason: str | None = None
        self.follows = False
        self.stopping = False
        self.ending = Ending()
        self.independent = (settings.on_failure or plan.graph.on_failure) == "finish_independent"
        self.grace = Grace(self)
        self.thread_slots = asyncio.Semaphore(settings.max_threads)
        self.context = contextvars.copy_context()
        """The context variables that each actor begins with."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Those of actors that have not ended: none can outlive the run unseen."""
        self._task: asyncio.Task[Any] | None = None
        self._begun = False
        self._over: asyncio.Future[None] = self.loop.create_future()
        self._restored = 0
        """Nodes that were completed in the restored cut."""
        self._unfinished = 0
        self._waiting = 0
        self._answered: tuple[Actor, ...] = ()
        self._final_moments: frozenset[str] = frozenset()

    # What a plugin steers.

    def request(self, reason: str) -> Awaitable[CheckpointRef | None]:
        """Ask for a checkpoint; see `RunControl`."""
        if self.saver is None:
            future: asyncio.Future[CheckpointRef | None] = self.loop.create_future()
            future.set_result(None)
            return future
        request = self.saver.request(reason)
        if not self._begun:
            return AskedInHook(request, self._task, "no checkpoint is taken before the run has begun, and it begins")
        if self.saver.is_current:
            return AskedInHook(request, asyncio.current_task(), "one checkpoint is taken after the other, and this one is done")
        return request

    def hold_outputs(self, reason: str) -> None:
        """Let an emission leave its node only once it is durable; see `RunControl`."""
        self.gate_reason = reason
        for actor in self.actors.values():
            actor.choose_publish()

    def follow_outputs(self, reason: str, max_steps: int, max_bytes: int) -> None:
        """Save every emission without waiting for it; see `RunControl`."""
        if self.saver is not None:
            self.saver.follow(reason, max_steps, max_bytes)
            self.follows = True
            for actor in self.actors.values():
                actor.choose_publish()

    def degrade(self, reason: str) -> None:
        """Go on without the promised durability; see `RunControl`."""
        self.ending.degraded = self.ending.degraded or reason

    def fail(self, error: WorkflowError) -> None:
        """Stop at once and save nothing more; see `RunControl`."""
        if self.grace.opening and asyncio.current_task() is self._task:
            self.grace.opened()  # a plugin refuses it: who is told of that is not cut short
        self.grace.limit_opening()
        self._stop(error, "lost", "failed")

    def save_at(self, *moments: str) -> None:
        """Choose the ends at which a last cut is taken; see `RunControl`."""
        if unknown := set(moments) - MOMENTS:
            raise ValueError(f"no run ends at {min(unknown)!r}. Choose from {', '.join(sorted(MOMENTS))}.")
        self._final_moments = frozenset(moments)

    # From the first hook to the last.

    async def execute(self) -> dict[str, list[Any]]:
        """Run to the end; the items collected by each output.

        Raises:
            NodeFailed, HookError, Deadlock, RunStopped: as the run ended.
            asyncio.CancelledError: it was stopped, and its own task was cancelled.
        """
        self._task = asyncio.current_task()
        if self.hooks.before_run is not None:
            try:
                await self.hooks.before_run(self.info, self)
            except BaseException as error:
                self.grace.opened()
                self._save_no_more()
                if isinstance(error, asyncio.CancelledError) and self.ending.error is not None:
                    raise self._told(self.ending.error) from None  # it was given up, see `stop`
                raise
            self.context = contextvars.copy_context()  # what it has set, bodies may see
        try:
            await self._drive()
        except asyncio.CancelledError:  # as `until`, before anything was begun
            self.stop("cancel")
        except Exception as error:
            self.ending.add(error)
        self.grace.opened()
        self._save_no_more()
        outcome = self.ending.outcome(self.outputs())
        if self.hooks.after_run is not None:
            try:
                await self.hooks.after_run(self.info, outcome)
            except (Exception, asyncio.CancelledError) as error:  # the latter where its own task was cancelled before
                self.ending.add(error)
                outcome = self.ending.outcome(self.outputs())
        if self.listeners:
            try:
                self.notify(RunEnded(self.run_id, status_of(outcome), self.ending.error))
            except Exception as error:
                self.ending.add(error)
        if self.ending.error is not None:
            raise self._told(self.ending.error)
        return self.outputs()

    def _told(self, error: BaseException) -> BaseException:
        """What the run's own task raises: an event loop that ends complains of all that it cancels and that says more."""
        is_cancelled = self._task is not None and self._task.cancelling() > 0
        return asyncio.CancelledError() if is_cancelled and isinstance(error, RunStopped) else error

    def _save_no_more(self) -> None:
        """Where the run ends before it has begun, who asked for a checkpoint must not wait for it for ever."""
        if self.saver is not None:
            self.saver.close(None)

    async def until(self, waited: asyncio.Future[T]) -> T:
        """Wait for what keeps the run, and give its result.

        Who cancels the run's own task, as an event loop does that ends and cancels all there are, stops the run as a
        caller does who is cancelled.
        """
        while not waited.done():
            try:
                await asyncio.wait((waited,))
            except asyncio.CancelledError:
                self.stop("cancel")
        return waited.result()

    def heed_cancel(self) -> None:
        """Stop now, if the run's own task is cancelled and had no turn yet: that is why a node was cancelled."""
        if self._task is not None and self._task.cancelling() and not self.stopping:
            self.stop("cancel")

    def outputs(self) -> dict[str, list[Any]]:
        """What each output has collected."""
        return {name: list(self.collected.get(node.node_id, ())) for name, node in self.plan.outputs.items()}

    def stop(self, reason: str) -> None:
        """Stop from outside: take the cut now, let nothing more count, then cancel.

        A plugin that is still opening the run has as long as a body, and is cancelled then. One that is still told of a node,
        after the last of them, has as long, and is left.
        """
        self.grace.limit_opening()
        if self._over.done() and not self.stopping:
            self.grace.hurry()
        moment = "cancel" if reason == "cancel" else "signal"  # a word of somebody's own is one
        self._stop(RunStopped(self.run_id, reason, self.saver is not None), reason, "paused", moment=moment)

    def cancel(self) -> None:
        """Cancel its own task: it waits for a plugin that does not come to an end."""
        if self._task is not None:
            self._task.cancel()

    async def _drive(self) -> None:
        snapshot: Snapshot | None = None
        if self.info.resumed and self.hooks.restore_checkpoint is not None:
            snapshot = await self.hooks.restore_checkpoint(self.info, self.checkpoint)
        answers = await self._fetch_answers(snapshot)
        self.grace.opened()
        self._build(snapshot, answers)
        if self.stopping:  # stopped while the store was opened: nothing has changed
            return
        if self.listeners:
            number = None if snapshot is None else snapshot.number
            completed = self._restored
            total = completed + self._unfinished
            self.notify(RunStarted(self.run_id, self.info.attempt, total, completed, number))
        self._begun = True
        if self.saver is not None:
            self.saver.start()
            went_back = snapshot is not None and self.checkpoint is not None
            if self._answered or went_back:
                try:
                    await self.saver.request_first("answer" if self._answered else "back")  # whoever asked need not ask again
                    await self.waking.correct(self._due())
                except asyncio.CancelledError:
                    self.stop("cancel")
                except Exception as error:
                    self.crashed(error)
        try:
            try:
                self._start()
            except Exception as error:
                self.crashed(error)
            await self.until(self._over)
            if self.saver is not None:
                await self.saver.finish()
        finally:
            for actor in self.actors.values():
                if actor.task is not None and not actor.cleans_up:
                    actor.task.cancel()
            await self.waking.stop()
            await self.grace.wait_for(self.tasks)

    async def _fetch_answers(self, snapshot: Snapshot | None) -> Sequence[Answer]:
        """What was brought since the newest cut, for an attempt that did not live to take it."""
        fetch = self.hooks.fetch_answers
        if fetch is None or snapshot is None or self.checkpoint is not None:
            return ()
        waits = any(node.status == "suspended" for node in snapshot.nodes)
        return (await fetch(self.info) if waits else None) or ()

    def _build(self, snapshot: Snapshot | None, answers: Sequence[Answer]) -> None:
        stored = snapshot.nodes if snapshot is not None else ()
        over: Set[str] = snapshot.over if snapshot is not None else frozenset()
        if told := {node.node_id for node in stored if node.status == "completed"}:
            over = told | over
        self._restored = len(over)
        if not self.plan.over <= over:  # what seemed to be over is not: it must be planned, too
            assert self.whole is not None
            self.plan = self.whole()
        nodes = {node.node_id: node for node in stored if node.node_id in self.plan.nodes}
        answered, given = self.decisions.settle(self.run_id, self.plan.nodes, nodes, over, answers)
        self.wiring.restore({**nodes, **answered}, {node_id for node_id in self.plan.nodes if node_id in over})
        self._answered = tuple(self.actors[node_id] for node_id in answered)
        self.changed.update(dict.fromkeys(self._answered))
        for node_id, value in given.items():
            self.actors[node_id].given = (value,)
        completed = self.wiring.completed
        self.collected.update({node_id: nodes[node_id].collected for node_id in completed if node_id in nodes})
        self._unfinished = self._waiting = len(self.plan.nodes) - len(completed)

    def _due(self) -> list[Actor]:
        """Those that go on because their time has passed; where the run goes back, what was brought is forgotten."""
        if self.checkpoint is not None:
            return []
        return [actor for actor in self._answered if actor.suspension is not None and actor.suspension.answer is None]

    def _start(self) -> None:
        """Start what has something to do: sources, interrupted firings, streams, and whatever has items waiting."""
        if self.stopping:  # before it had begun: the actors made here would be frozen by nobody
            return
        completed = self.wiring.completed
        for planned in self.plan.nodes.values():
            actor = self.actors.get(planned.node_id)
            if actor is None:
                if planned.node_id in completed or (planned.in_edges and not planned.reads_at_once):
                    continue
                actor = self.wiring.bear(planned)
            elif actor.asleep:
                self.waking.watch(actor)
                continue
            elif not actor.has_work:
                continue
            actor.wake()
        if not self._unfinished:
            self._finish()
        elif self._waiting == self._unfinished:
            self._stalled()  # all that is left is suspended

    # What actors report.

    @property
    def moves(self) -> bool:
        """Whether an actor may still change by itself."""
        return not self.stopping and self._waiting < self._unfinished

    def enter_wait(self, actor: Actor) -> None:
        """An actor waits at an edge, or, when its body has several tasks, at one more."""
        if actor.waits == 1:
            self._waiting += 1
        if self._waiting == self._unfinished:
            self._stalled()

    def leave_wait(self, actor: Actor) -> None:
        """One actor fewer waits; from here to the next wait it may change."""
        self._waiting -= 1
        if self.saver is not None:
            self.changed[actor] = None

    def completed(self, actor: Actor) -> None:
        """An actor is over, and everybody may see it."""
        self._unfinished -= 1
        if self.saver is not None:
            capture_last(self, actor)
        del self.actors[actor.node_id]
        bounds = {edge.edge_id: edge.capacity for edge in actor.edges} if self.listeners else {}
        actor.retire()
        if self.listeners:
            self.node_changed(actor)
            for planned_edge in actor.planned.out_edges:
                edge_id = planned_edge.edge_id
                self.notify(EdgeChanged(self.run_id, edge_id, "ended", bounds.get(edge_id, self.settings.edge_capacity)))
        if not self._unfinished:
            self._finish()
        elif self._waiting == self._unfinished:
            self._stalled()

    def step_is_final(self, actor: Actor, calls: Sequence[Callable[[], object]]) -> None:
        """A step with `on_durable` calls is committed."""
        if self.saver is not None:
            self.saver.when_durable(actor, calls)
            return
        errors = [error for call in calls if (error := raised_by(call)) is not None]
        if errors:
            first, *others = errors
            for other in others:
                first.add_note(f"and another call of on_durable raised {type(other).__name__}: {text_of(other)}")
            raise first

    def call_failed(self, actor: Actor, cause: BaseException) -> None:
        """What `on_durable` was given raised: its node has failed, also when the run is over and its last cut is durable."""
        if self.stopping or self._over.done():
            self.ending.call_failed(self._failure(actor, cause))
        else:
            self.node_failed(actor, cause)

    def node_failed(self, actor: Actor, cause: BaseException) -> None:
        """A body raised: the run ends, or goes on with the nodes that do not need this one."""
        if actor.status == "failed":  # told already, by somebody else than its body
            return
        error = self._failure(actor, cause)
        # `on_durable` calls may raise when it is over, or suspended: it stays so, or a resume would repeat what it emitted.
        if actor.status not in ("completed", "suspended"):
            actor.status = "failed"
            actor.error = f"{type(cause).__name__}: {text_of(cause)}"
            self.changed[actor] = None
        if self.independent and actor.status == "failed":
            self._go_on_without(actor, error)
        else:
            self._stop(error, "error", "failed", actor)
        if self.listeners:
            self.node_changed(actor)

    def _failure(self, actor: Actor, cause: BaseException) -> NodeFailed:
        error = NodeFailed(self.run_id, actor.node_id, cause)
        error.__cause__ = cause
        return error

    def _go_on_without(self, actor: Actor, error: NodeFailed) -> None:
        """Let the others go on until nothing can move any more.

        The failed actor stays: it counts as one that waits, and its inbox grows as in any stall, so that those who
        send to it and to others come to their end.
        """
        self.ending.failures.append(error)
        actor.fail()
        if actor.task is not None and actor.task is not asyncio.current_task():
            actor.task.cancel()
        if self.saver is not None and "error" in self._final_moments:
            self.saver.request("error")
        actor.waits += 1
        self.enter_wait(actor)

    def actor_failed(self, actor: Actor, error: BaseException) -> None:
        """An actor ended outside its body: a hook failed, or an item did not fit."""
        if isinstance(error, (HookError, Refusal)):
            self.crashed(error)
        elif not self.stopping:
            self.node_failed(actor, error)

    def crashed(self, error: BaseException) -> None:
        """A fault of the runner, of a plugin, or of who listens to the run: it ends, or tells this with why it does.

        After its last node it stays stored as it ended.
        """
        if self.stopping or self._over.done():
            self.ending.add(error)
        else:
            self._stop(error, "error", "failed")

    def save_failed(self, error: BaseException) -> None:
        """A cut could not be saved: the run ends, and nothing is saved any more."""
        if isinstance(error, asyncio.CancelledError) and self._task is not None and self._task.cancelling():
            self.stop("cancel")  # its event loop ends and cancels all there is
            stopped = self.ending.error or RunStopped(self.run_id, "cancel", durable=True)
            error = stopped if isinstance(stopped, RunStopped) else error
        self.ending.save_failed(error)
        self._stop(error, "error", "failed")

    def _stop(
        self,
        error: BaseException | None,
        reason: str,
        status: RunStatus,
        actor: Actor | None = None,
        moment: str | None = None,
    ) -> None:
        if self.stopping or self._over.done():  # what comes after the end of the last node stops nothing
            return
        self.stopping = True
        self.ending.stop(error, reason)
        if self.saver is not None:
            wanted = (moment or reason) in self._final_moments or status == "suspended"
            told = None if error is None else text_of(error)
            text = told if actor is None or actor.error is None else actor.error
            failed = actor.node_id if actor is not None else None
            for other in self.actors.values():
                other.tell_unbegun()
            self._save_last(status if wanted else None, reason, text if status == "failed" else None, failed)
        for other in self.actors.values():
            other.freeze()
        self._over.set_result(None)

    def _save_last(self, status: RunStatus | None, reason: str, error: str | None = None, node_id: str | None = None) -> None:
        """Take the last cut, as `Saver.close`. Where that cannot be, for want of memory, the run ends all the same."""
        if self.saver is not None:
            try:
                self.saver.close(status, reason, error, node_id)
            except Exception as fault:
                self.ending.save_failed(fault)

    def _finish(self) -> None:
        """Every actor is over."""
        if not self.stopping:
            self._save_last("completed", "end")
        if not self._over.done():
            self._over.set_result(None)

    def _stalled(self) -> None:
        """Every unfinished actor waits at an edge: let the smallest full edge grow, so that one of them goes on.

        An actor of which another task still waits may have nothing to go on with: then the next smallest grows too.
        """
        if self.stopping:
            return
        grown = False
        while self._waiting == self._unfinished:
            edge = self.growth.grow()
            if edge is None:
                if not grown:
                    self._end_stalled()
                return
            grown = True
            if self.listeners:
                self.notify(EdgeChanged(self.run_id, edge.edge_id, "grown", edge.capacity))
            edge.release_writer()

    def _end_stalled(self) -> None:
        """Nothing can move any more, and no edge may grow: end as the nodes that are left tell."""
        if self.ending.failures:  # all that could be done without the failed nodes is done
            first = self.ending.first_failure()
            self._stop(first, "error", "failed", self.actors[first.node_id])
            return
        if any(actor.status == "suspended" for actor in self.actors.values()):
            if not self.waking.look_last():
                self.end_suspended()
            return
        names = [edge.edge_id for edge in self.growth.full_edges()] or list(self.actors)
        self._stop(Deadlock(self.run_id, names), "error", "failed")

    def end_suspended(self) -> None:
        """End with what nodes wait for, unless one of them moves all the same."""
        if self.stopping or self.moves:
            return
        waiting = (actor for actor in self.actors.values() if actor.status == "suspended")
        self.ending.suspensions = {actor.node_id: actor.suspension for actor in waiting if actor.suspension is not None}
        self._stop(None, "suspend", "suspended")

    # Events.

    def notify(self, event: Event) -> None:
        """Tell everybody who subscribed."""
        for listener in tuple(self.listeners):  # one may unsubscribe itself
            listener(event)

    def node_changed(self, actor: Actor) -> None:
        """Tell a node's new status."""
        self.notify(NodeChanged(self.run_id, actor.node_id, actor.status, actor.firing))

    def progressed(self, actor: Actor, done: float, total: float | None) -> None:
        """Tell a body's progress."""
        self.notify(Progressed(self.run_id, actor.node_id, done, total))
