"""An actor: one node at run time, what a cut must know of it, and how it waits and commits."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hookspecs import EdgeSnapshot, NodeStatus, Suspension, Taken
from workflow_runner.checker import Checker, Mismatch
from workflow_runner.edge import Edge
from workflow_runner.errors import Cancelled, ItemTypeError, NodeProtocolError, ReplayDiverged, RunStopped, StateNotCopyable
from workflow_runner.outbox import Outbox
from workflow_runner.suspension import Resumption
from workflow_runner.task import start_task

if TYPE_CHECKING:
    from workflow_runner.arrivals import ArrivalOrder
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["Actor", "Interrupted", "Sleeper"]

IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)


class Interrupted(Exception):
    """Raised inside an actor whose firing ended early, after everybody who must know was told."""


class Sleeper:
    """One wait of one actor."""

    __slots__ = ("actor", "future", "open")

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.future: asyncio.Future[None] = actor.run.loop.create_future()
        self.open = True

    def wake(self, *, ended: bool = False) -> None:
        """Let the actor go on."""
        if self.open:
            self.open = False
            self.actor.leave_wait()
            if not self.future.done():
                self.future.set_result(None)

    def cancel(self) -> None:
        """Nobody waits for what comes here any more."""
        if self.open:
            self.open = False
            self.actor.leave_wait()
            self.future.cancel()


class Gatherer(Sleeper):
    """A wait for an item of each of several edges, which is over sooner where one of them ends.

    Of thousands of edges each item would wake the actor, only to find that others are still missing.
    """

    __slots__ = ("left",)

    def __init__(self, actor: Actor, left: int) -> None:
        super().__init__(actor)
        self.left = left

    def wake(self, *, ended: bool = False) -> None:
        """One of the edges has an item, or its end."""
        self.left -= 1
        if ended or not self.left:
            super().wake()


class Actor(Outbox):
    """Drives one node, from its first item to its last. It is born with the first item and gone when it is over.

    What a cut holds changes only between two awaits, together with the edges, so at any await the actors and edges of
    a run are one consistent state.
    """

    # What a cut holds, beside the edges and `emitted`.
    status: NodeStatus = "idle"
    firing = 0
    commits = 0
    state: Any = None
    arguments: Mapping[str, Any] | None = None
    taken: Sequence[Taken] = ()
    collected: Sequence[Any] = ()
    error: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    cleans_up = False
    """Whether its body, which was interrupted, does so now: it has as long as a stopped run waits, and is not cut short."""
    asleep = False
    """Whether it is suspended and at rest: nothing that comes starts it but what it waits for."""
    resumption: Resumption | None = None
    given: tuple[Any] | None = None
    """What the interrupted firing is taken to have returned."""
    unbegun = False
    """Whether it has the arguments of a step that must not be repeated unasked, and its body has not begun."""
    open = False
    task: asyncio.Task[None] | None = None
    reads = 0
    """Stream items taken since the last commit, counted anew when the step is run again."""
    first_attempt = 1
    """The attempt from which on the retries of the present step are counted."""
    captured: tuple[Any, ...] | None = None
    """What the newest cut has of it, as far as that takes to see whether it has changed; see `cut`."""
    captured_inbox: tuple[EdgeSnapshot, ...] = ()
    """Of an actor with many edges what the newest cut has of them."""

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        self.run = run
        self.planned = planned
        self.node_id = planned.node_id
        self.type = planned.type
        self.in_edges = in_edges
        # Looked at in each firing: the interpreter finds what is an object's own sooner than a default of its class.
        self.attempt = 1
        self.frozen = False
        self.suspension: Suspension | None = None
        """What it waits for, or what its body goes on with until its step is final."""
        self.durable_calls: list[Callable[[], object]] | tuple[()] = ()
        """Of the present step; a list of its own, which a generator that never commits adds to for as long as it runs."""

    @property
    def order(self) -> ArrivalOrder | None:
        """Arrival order over its edges; `None` where there are less than two."""
        return self.in_edges[0].order if self.in_edges else None

    @property
    def has_work(self) -> bool:
        """Whether a restored actor can go on before anything new arrives."""
        if not self.in_edges or self.arguments is not None or self.planned.reads_at_once:
            return True
        return any(edge.items or edge.ended for edge in self.in_edges)

    # Its life.

    def wake(self, *, ended: bool = False) -> None:
        """Start it; what an edge calls when the first item (or end of stream) comes."""
        if self.task is None and not self.run.stopping and not self.asleep:
            self.leave_wait()
            self.start()

    def start(self) -> None:
        """Start it, which does not count as one that waits any more."""
        run = self.run
        self.asleep = False
        # A context of its own: that of who wakes it is what another node has set, and a resume would not have that.
        self.task = task = start_task(run.loop, self._main(), self.node_id, run.context.copy())
        run.tasks.add(task)

    async def _main(self) -> None:
        run, task = self.run, self.task
        assert task is not None
        try:
            goes_on = self.status in ("running", "suspended")
            self.status = "running"
            if run.saver is not None and self.started_at is None:
                self.started_at = datetime.now(UTC)
            if run.listeners:
                run.node_changed(self)
            if goes_on:  # it was stopped where it waited for room, or its edges were longer then
                await self.flush()
            await self.live()
        except Interrupted:
            pass
        except BaseException as error:
            if not self.is_thrown_away(error):
                self._ended_by(error)
        finally:
            run.tasks.discard(task)

    def _ended_by(self, error: BaseException) -> None:
        """Its task ends with an error that was told to nobody."""
        run = self.run
        try:
            if isinstance(error, asyncio.CancelledError):
                run.heed_cancel()
                if not run.stopping:
                    run.node_failed(self, error)
            elif isinstance(error, Exception):  # a fault outside every body: the aligner, a hook, a type check
                run.actor_failed(self, error)
            else:
                raise error
        except BaseException as fault:  # of the runner itself, or of who listens to it; or the process is to end
            run.crashed(fault)
            if not isinstance(fault, Exception):
                raise

    async def live(self) -> None:
        """From the first item to the last."""
        raise AssertionError

    def complete(self) -> None:
        """It is over: no more items come from it, and what still flows to it is dropped. One synchronous step.

        Where outputs are held, `settle` must follow.
        """
        self.status = "completed"
        if self.run.saver is not None:
            self.ended_at = datetime.now(UTC)
        self.end_edges()
        for edge in self.in_edges:
            edge.close()
        if not self.holds:
            self.run.completed(self)

    def retire(self) -> None:
        """Let go of everything once it is over: a long run must not leave its dead to the garbage collector."""
        for edge in self.in_edges:
            edge.consumer = None
        for edge in self.edges:
            edge.producer = None
        self.in_edges = self.captured_inbox = ()
        self.edges = []
        del self.publish

    def tell_unbegun(self) -> None:
        """Let the last cut tell that its step had not begun, where that is so: else nobody knew whether it had happened."""
        if self.unbegun and self.error is None:
            self.error = f"{RunStopped.__name__}: the run ended before this step began"
            self.touched()

    def freeze(self) -> None:
        """From now on nothing that it does counts: reading, emitting and committing raise `Cancelled`."""
        self.frozen = True
        self.choose_publish()
        for edge in self.in_edges:
            edge.items.clear()
            edge.ended = False
            if edge.order is not None:
                edge.order.clear()

    def fail(self) -> None:
        """Let nothing more that it does count, and keep what it is given for its next attempt."""
        self.frozen = True
        self.choose_publish()

    def check_alive(self) -> None:
        """Raise `Cancelled` when the run was stopped."""
        if self.frozen:
            raise Cancelled(f"run {self.run.run_id!r} was stopped")

    # Commit points.

    def private(self, state: Any) -> Any:
        """A copy of a state that nobody else holds; where it can never be given again, the state itself."""
        if (self.run.saver is None and not self.planned.failure.retries) or type(state) in IMMUTABLE:
            return state
        try:
            return copy.deepcopy(state)
        except Exception as error:
            raise StateNotCopyable(self.node_id, state, error) from error

    def commit(self, state: Any) -> None:
        """A commit point inside a body: what was taken and emitted so far is final."""
        self.check_alive()
        state = self.private(state)
        self.check_replayed()
        self.state = state
        self.pass_commit()

    def check_replayed(self) -> None:
        """Raise when the step run again has not emitted what it had emitted before."""
        if self.swallow_left:
            raise ReplayDiverged(self.run.run_id, self.node_id, self.emitted, self.emitted - self.swallow_left)

    def pass_commit(self) -> None:
        """What was taken and emitted is no longer part of an unfinished step."""
        self.commits += 1
        self.emitted = 0
        if self.suspension is not None and (self.resumption is None or self.resumption.is_heard):
            self.suspension = self.resumption = None
        if self.durable_calls:
            calls, self.durable_calls = self.durable_calls, ()
            self.run.step_is_final(self, calls)
        if self.waits:
            self.touched()

    def way_back(self) -> Callable[[], None]:
        """What undoes the commit point that is about to be passed."""
        kept = self.commits, self.emitted, self.state, self.suspension, self.resumption
        calls, saver = self.durable_calls, self.run.saver

        def go_back() -> None:
            if saver is not None:
                saver.withdraw(self, calls)
            self.commits, self.emitted, self.state, self.suspension, self.resumption = kept

        return go_back

    def stage(self, call: Callable[[], object]) -> None:
        """Call this when the step is durable."""
        if self.durable_calls:
            self.durable_calls.append(call)
        else:
            self.durable_calls = [call]

    def rewind(self) -> None:
        """Let the next call of the body run the unfinished step again, from its last commit point."""
        self.swallow_left = self.emitted
        self.reads = 0
        self.durable_calls = ()
        self.choose_publish()

    def number_next(self, firing: int) -> None:
        """Let its next firing have this number: of a lane, it is that of the item among those of all lanes."""
        self.firing = self.commits = firing - 1

    def resume_with(self, suspension: Suspension) -> None:
        """It was suspended in this attempt and is answered: let its body go on with that once it is started again."""
        self.suspension, self.resumption = suspension, Resumption(suspension)
        self.frozen = False
        self.first_attempt = self.attempt
        self.unbegun = not self.planned.failure.replayable
        self.rewind()
        self.captured = None  # no number of its signature tells of an answer
        self.touched()

    # Items.

    def checked(self, handle: str, check: Checker, item: Any) -> Any:
        """The item, if it fits the handle."""
        try:
            return check(item)
        except Mismatch:
            raise self.misfit(handle, item) from None

    def misfit(self, handle: str, item: Any) -> ItemTypeError:
        """What is wrong with an item that does not fit the handle."""
        receiver = self.type.handles[handle]
        return ItemTypeError(self.node_id, handle, receiver.expected, item, receiver.mend(item))

    async def settle(self) -> None:
        """Wait for a durable cut where outputs are held for one, send what is held, wait until nothing is too far behind."""
        run = self.run
        if self.holds:
            if run.gate_reason is not None and run.saver is not None:
                await run.saver.request(run.gate_reason)
            self.check_alive()
            self.send_held()
            if self.status == "completed":
                run.completed(self)
        if self.lags and run.saver is not None:
            self.lags = False
            await run.saver.catch_up()
            self.check_alive()
        if self.status != "completed":
            await self.flush()

    async def flush(self) -> None:
        """Wait until no edge holds more than its bound."""
        while (edge := self.full_edge()) is not None:
            sleeper = Sleeper(self)
            edge.writer = sleeper
            await self.sleep(sleeper)

    # Waiting.

    async def wait_for_items(self, edges: Sequence[Edge], *, of_each: bool = False) -> None:
        """Wait until one of the edges has an item or its end; or until each has an item, or one its end."""
        self.check_alive()
        sleeper = Gatherer(self, len(edges)) if of_each else Sleeper(self)
        for edge in edges:
            if edge.reader is not None and edge.reader.open:
                raise NodeProtocolError(
                    f"node {self.node_id!r}: edge {edge.edge_id!r} is read by two tasks at once. Read it from one."
                )
            edge.reader = sleeper
            if edge.giver is not None:
                edge.giver.wake()
        await self.sleep(sleeper)

    async def sleep(self, sleeper: Sleeper) -> None:
        """Wait until somebody wakes the sleeper."""
        self.waits += 1
        try:
            self.run.enter_wait(self)
            await sleeper.future
        finally:
            if sleeper.open:  # cancelled, by a timeout of the body or by the end of the run
                sleeper.open = False
                self.leave_wait()
        self.check_alive()

    def end_reads(self) -> None:
        """End what tasks of a body left waiting at its streams: the body is over, and nobody reads for it any more."""
        for edge in self.in_edges:
            if isinstance(edge.reader, Sleeper):
                edge.reader.cancel()

    def is_thrown_away(self, error: BaseException) -> bool:
        """Whether its coroutine is closed from outside, as the interpreter does with one that nobody runs any more."""
        return isinstance(error, GeneratorExit) and asyncio.current_task(self.run.loop) is not self.task

    def leave_wait(self) -> None:
        """One of its waits is over; called by whoever ends it, so that a woken actor never counts as waiting."""
        self.waits -= 1
        if not self.waits:
            self.run.leave_wait(self)

    def touched(self) -> None:
        self.run.changed[self] = None
