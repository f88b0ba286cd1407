"""What a body is told and may ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast

from hookspecs import CheckpointRef, Suspension
from workflow_runner.ended import Ended
from workflow_runner.errors import NodeProtocolError, NotResuming
from workflow_runner.identity import step_key
from workflow_runner.stream import Arrivals, Stream
from workflow_runner.suspension import SLEEP

if TYPE_CHECKING:
    from workflow_runner.body import BodyActor

__all__ = ["Context"]


class Context:
    """The body's view of its run. In a `def` body the same methods wait for the event loop; see `ThreadContext`."""

    __slots__ = ("_actor", "_staged")

    def __init__(self, actor: BodyActor) -> None:
        self._actor = actor
        self._staged: tuple[Any] | None = None

    @property
    def run_id(self) -> str:
        """The run."""
        return self._actor.run.run_id

    @property
    def node_id(self) -> str:
        """The node."""
        return self._actor.node_id

    @property
    def state(self) -> Any:
        """The value given to the last commit, a fresh copy; `None` at first."""
        if self._staged is not None:
            return self._actor.private(self._staged[0])
        return self._actor.private(self._actor.state)

    @property
    def idempotency_key(self) -> str:
        """A key of the present step: the same when the step is run again, different for every other step.

        To a body that is written straight on, which runs again from its beginning for each answer, it is the same after it.
        """
        actor = self._actor
        commits = actor.commits if actor.resumption is None else actor.commits - actor.resumption.gone_through
        return step_key(actor.run.run_id, actor.planned.lane_of or actor.node_id, actor.firing, commits, actor.reads)

    @property
    def firing(self) -> int:
        """Which firing of the node this is, from 1; the same when it is run again. It tells a state of an earlier one."""
        return self._actor.firing

    @property
    def attempt(self) -> int:
        """Which try of the firing this is, from 1: retries, and resumes of one that was not over, count on."""
        return self._actor.attempt

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that knows run and node."""
        return logging.LoggerAdapter(logging.getLogger("workflow_runner.node"), {"run_id": self.run_id, "node_id": self.node_id})

    def commit(self, state: Any = None) -> None:
        """Declare that all that the inputs taken so far give has been emitted, and keep a state.

        In a body that neither streams nor yields, the state becomes final when the body returns.

        Args:
            state: what `context.state` gives from now on; plain values that can be copied.

        Raises:
            ReplayDiverged: the step was run again and has not emitted what it had emitted before.
            NodeProtocolError: it is a lane, which keeps no state.
            StateNotCopyable: the state cannot be copied.
            Cancelled: the run was stopped.
        """
        actor = self._actor
        if actor.type.streams or actor.type.generates:
            actor.commit(state)
        else:
            actor.check_alive()
            if actor.planned.lane_of is not None and state is not None:
                raise NodeProtocolError(
                    f"node {actor.planned.lane_of!r} has lanes, of which each works on some of the items only, and so keeps no "
                    'state. Take "lanes" out, or commit none.'
                )
            self._staged = (actor.private(state),)
            if actor.resumption is not None:
                actor.resumption.forget()

    async def checkpoint(self, reason: str = "explicit") -> CheckpointRef | None:
        """Ask for a checkpoint and wait until it is durable. The present step is in it at its last commit point.

        Args:
            reason: stored with the checkpoint.

        Returns:
            The checkpoint; `None` when nothing is enabled that stores it, or when the step is being run again and had
            asked already.

        Raises:
            TypeError: the reason is no text.
            Cancelled: the run was stopped.
        """
        actor = self._actor
        actor.check_alive()
        _check_text("checkpoint", reason)
        if actor.run.saver is None or actor.swallow_left:
            return None
        return await actor.run.saver.request(reason)

    async def suspend(
        self, reason: str, state: Any = None, metadata: Mapping[str, Any] | None = None, *, until: datetime | None = None
    ) -> Any:
        """Stop here until an answer comes, from whoever and whenever: the run holds no process meanwhile.

        What was emitted stays emitted, and the arguments are kept. When the run is resumed with an answer, the body is
        started again from its beginning. Then it asks `is_resuming`, `saved_state` and `answer`; or it asks nothing, and
        this call, with the same reason, gives the answer. Never inside a `try` that catches `BaseException`.

        Args:
            reason: for people.
            state: what `saved_state` gives when the body goes on; plain values that can be copied and stored.
            metadata: what to tell whoever answers.
            until: aware; a resume at or after it that finds no answer goes on with `None`, and no answer is taken then.

        Returns:
            The answer, where the body is run again and was answered here; else this call does not return.

        Raises:
            TypeError: the reason is no text, or the metadata are no mapping.
            ValueError: `until` is no time with a zone, or UTC has none that is so early or so late.
            WorkflowSuspended: to end the body.
            SuspensionUnavailable: nothing is enabled that stores the run.
            ReplayDiverged: the step was run again and has not emitted what it had emitted before.
            Cancelled: the run was stopped.
        """
        _check_text("suspend", reason)
        if not isinstance(metadata, Mapping | None):
            raise TypeError(f"the metadata of suspend are a mapping, not {metadata!r}. For example metadata={{'amount': 10}}.")
        if until is not None:
            _check_time("suspend", until)
        return await self._actor.suspend(reason, state, metadata, until)

    async def sleep_until(self, when: datetime) -> None:
        """Suspend until a time. `workflow recover --watch`, or a resume at or after it, goes on.

        Args:
            when: aware; a time that has passed does not suspend.

        Raises:
            ValueError: it is no time with a zone, or UTC has none that is so early or so late.
            WorkflowSuspended, SuspensionUnavailable, ReplayDiverged, Cancelled: as `suspend`.
        """
        _check_time("sleep_until", when)
        resumption = self._actor.resumption
        if when > datetime.now(UTC) or (resumption is not None and resumption.expects(SLEEP)):
            await self._actor.suspend(SLEEP, None, None, when)

    @property
    def is_resuming(self) -> bool:
        """Whether the body was started to go on after it had suspended."""
        resumption = self._actor.resumption
        if resumption is not None:
            resumption.ask()
        return resumption is not None

    @property
    def saved_state(self) -> Any:
        """What the body kept when it suspended, a fresh copy.

        Raises:
            NotResuming: it does not go on after a suspension.
        """
        return self._actor.private(self._resumed().state)

    @property
    def answer(self) -> Any:
        """What the suspension was answered with; `None` when its time had come.

        Raises:
            NotResuming: it does not go on after a suspension.
        """
        return self._actor.private(self._resumed().answer)

    def _resumed(self) -> Suspension:
        resumption = self._actor.resumption
        if resumption is None:
            raise NotResuming(f"node {self.node_id!r}")
        return resumption.ask()

    def on_durable(self, call: Callable[[], object]) -> None:
        """Have a function called, on the event loop, once a checkpoint is durable that holds this step as final.

        With nothing enabled it is called when the step is final. Ask before the `commit` that ends the step: behind it the next
        one has begun. What is durable stays so whatever it raises: a resume does not call it again.

        Args:
            call: takes nothing; what it raises fails the node. Where that checkpoint is the last one of the run, the run is
                told as failed, though it is stored as it ended.

        Raises:
            TypeError: it is an `async def`, whose coroutine nobody would await.
            Cancelled: the run was stopped.
        """
        self._actor.check_alive()
        if iscoroutinefunction(call):
            raise TypeError(
                f"on_durable calls a `def`, not an `async def` like {call!r}: nobody would await it. "
                "Let it start a task, or put what is to be done into an asyncio.Queue."
            )
        self._actor.stage(call)

    def arrivals(self, *streams: Stream[Any]) -> Arrivals:
        """Read several streams in arrival order: `async for handle, item in context.arrivals(a, b)`.

        Raises:
            NodeProtocolError: no stream, or something else than this node's streams.
        """
        if not streams or not all(isinstance(stream, Stream) for stream in streams):
            raise NodeProtocolError(f"node {self.node_id!r}: arrivals takes the node's own streams, at least one.")
        return Arrivals(streams)

    def progress(self, done: float, total: float | None = None) -> None:
        """Tell whoever watches how far the body is.

        Args:
            done: units done, of the body's own choice.
            total: units there are; `None` when unknown.

        Raises:
            Cancelled: the run was stopped, or this try of the body is over.
        """
        actor = self._actor
        if isinstance(actor, Ended):
            raise actor.refusal()
        if actor.run.listeners:
            actor.run.progressed(actor, done, total)

    def take_staged(self) -> None:
        """Make the state of a plain body final."""
        if self._staged is not None:
            (self._actor.state,) = self._staged
            self._staged = None

    def end(self, ended: Ended) -> None:
        """The try of the body that was given it is over: from now on it changes nothing."""
        self._actor = cast("BodyActor", ended)


def _check_time(call: str, when: object) -> None:
    if not _is_moment(when):
        raise ValueError(
            f"{call} takes a time with a zone, at most datetime.max in UTC, not {when!r}. "
            "For example datetime.now(UTC) + timedelta(hours=1)."
        )


def _check_text(call: str, reason: object) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"the reason of {call} is text for people, not {reason!r}.")


def _is_moment(when: object) -> bool:
    """Whether it is a time with a zone, which is a time in UTC, too."""
    try:
        return isinstance(when, datetime) and when.utcoffset() is not None and when.astimezone(UTC).tzinfo is UTC
    except OverflowError:
        return False
