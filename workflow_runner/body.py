"""An actor that calls a body: one firing, from its arguments to its commit, with its retries and its suspension."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hookspecs import Cancelled as CancelledOutcome
from hookspecs import Completed, Failed, NodeInfo, Outcome, StoreError, Suspended, Suspension, text_of
from workflow_runner.actor import Actor, Interrupted
from workflow_runner.closing import close_body
from workflow_runner.context import Context
from workflow_runner.ended import Ended
from workflow_runner.errors import NodeProtocolError, NodeTimeout, SuspensionUnavailable
from workflow_runner.events import NodeRetried, NodeSuspended
from workflow_runner.suspension import Resumption, WorkflowSuspended, only_suspends
from workflow_runner.threads import ThreadBody

__all__ = ["BodyActor"]

logger = logging.getLogger("workflow_runner")

YIELDS_A_TURN = 64
"""A generator whose items nobody takes never waits for room, so it lets the others run after this many yields."""


class BodyActor(Actor):
    """One that calls a body and emits what it gives."""

    _context: Context | None = None
    _body: AsyncGenerator[Any, None] | None = None
    _deadline: asyncio.Timeout | None = None
    _ended: Ended | None = None
    _takes_back: Callable[[], None] | None = None
    """What undoes its suspension, if something else ends the body that suspends."""

    @property
    def context(self) -> Context:
        """What the body is told and may ask for; made for the first who asks."""
        if self._context is None:
            self._context = Context(self)
        return self._context

    def end_context(self) -> None:
        """The firing, or this try of it, is over: what it left behind may do nothing more with what it was given."""
        context, self._context = self._context, None
        if context is not None:
            context.end(self.ended)

    @property
    def ended(self) -> Ended:
        """What those hold instead of it who were given something for a firing that is over."""
        if self._ended is None:
            self._ended = Ended(self)
        return self._ended

    def retire(self) -> None:
        super().retire()
        if self._ended is not None:
            self._ended = None

    def over(self) -> bool:
        """Whether the firing that just ended was the last."""
        raise AssertionError

    def values(self) -> Mapping[str, Any]:
        """The plain arguments of the firing: those of its edges, checked, over properties and defaults."""
        planned = self.planned
        arguments = self.arguments
        if not arguments:
            return planned.constants
        checks = planned.checks
        if not checks and not planned.constants:
            return arguments
        values = {**planned.constants, **arguments}
        if checks:
            made = () if checks is not self.type.checks else planned.lists  # lists that we made fit by their type
            for handle in arguments:
                check = checks.get(handle)
                if check is not None and handle not in made:
                    values[handle] = self.checked(handle, check, values[handle])
        return values

    def body_values(self) -> Mapping[str, Any]:
        """What the body is called with."""
        return self.values()

    async def fire(self, arguments: Mapping[str, Any] | None) -> None:
        """Call the body once.

        Args:
            arguments: those that came over edges; `None` to call it again for the interrupted firing.
        """
        if arguments is not None:
            self.arguments = arguments  # from here on they are part of every cut
            self.firing += 1
            self.attempt = self.first_attempt = 1
            self.unbegun = not self.planned.failure.replayable
            if self.run.listeners:
                self.run.node_changed(self)
        hooks = self.run.hooks
        info: NodeInfo | None = None
        while True:
            if hooks.before_node is not None or hooks.after_node is not None:
                info = NodeInfo(self.node_id, self.type.name, self.firing, self.attempt)
                if hooks.before_node is not None:
                    await hooks.before_node(self.run.info, info, self.values())
            value: Any = None
            closed = must_settle = False
            try:
                if self.frozen:  # stopped since it was woken: its body is not even called
                    self.check_alive()
                if self.given is not None:
                    (value,), self.given = self.given, None
                    must_settle = self._publish_returned(value)
                    break
                if not self.planned.failure.replayable:
                    await self._save_beginning()
                if self.planned.failure.timeout is not None:
                    value, closed, must_settle = await self._call_in_time(self.planned.failure.timeout)
                elif self.type.generates:
                    closed = await self._iterate()
                else:
                    value, must_settle = await self._call()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever ends a body early, a cancellation too, must be told to the hooks
                if self.is_thrown_away(error):
                    raise
                await self._interrupt(info, error)
            else:
                break
        try:
            self._become_final(closed)
        # The end of its inputs is wrong, who listens to the run raised, or a call of `on_durable` looked at something cancelled.
        except (Exception, asyncio.CancelledError) as error:
            fault: Exception | None = None
            try:
                self.run.actor_failed(self, error)
            except Exception as told:
                fault = told
            if info is not None and hooks.after_node is not None:
                await hooks.after_node(self.run.info, info, Failed(error, self.node_id))
            raise fault or Interrupted() from error
        if info is not None and hooks.after_node is not None:
            await hooks.after_node(self.run.info, info, Completed(self._outputs(value)))
        if must_settle or self.holds:
            await self.settle()

    def _become_final(self, closed: bool) -> None:
        """The firing becomes final: from its emission to the next await this is one synchronous step."""
        if self.type.streams:
            self.end_reads()
        if self._context is not None:
            self._context.take_staged()
            self.end_context()
        if self.suspension is not None:
            self.suspension = self.resumption = None
        self.arguments = None
        self.pass_commit()
        if closed or self.over():
            self.complete()

    async def _save_beginning(self) -> None:
        """Make it durable that the step began: only so a resume can know that nobody knows how it ended."""
        if self.run.saver is not None:
            saved = await self.run.saver.request("not replayable")
            self.check_alive()
            if saved is None:
                raise StoreError(
                    f"node {self.node_id!r} is not replayable, and could not be started: that it begins is not saved. "
                    "Resume the run when the store can be written."
                )
        if self.type.kind != "function":  # that waits for a thread, perhaps
            self.unbegun = False

    async def _call(self) -> tuple[Any, bool]:
        """Emit what the body returns; it, and whether the actor must settle."""
        if self.type.kind == "coroutine":
            value = await self.type.call(self.body_values(), self.context if self.type.wants_context else None)
        else:
            async with self._slot():
                self._begin()
                value = await ThreadBody(self).result(self.body_values())
        return value, self._publish_returned(value)

    def _publish_returned(self, value: Any) -> bool:
        """Emit what the body returned; whether the actor must settle."""
        if self.type.streams:
            self.check_heard("ended")
        must_settle = self.publish(value)
        self.check_replayed()  # its step may have been that of a generator, with other code
        return must_settle

    def _slot(self) -> AbstractAsyncContextManager[None]:
        """The right to run a plain `def` body; those that read streams have none to wait for, for others wait for them."""
        return self.run.thread_slots if self.type.kind == "function" and not self.type.streams else nullcontext()

    def _begin(self) -> None:
        """A body that waited for a thread begins now, unless its run has ended: the last cut says that it has not begun."""
        self.check_alive()
        self.unbegun = False

    async def _call_in_time(self, seconds: float) -> tuple[Any, bool, bool]:
        """Call the body, which is interrupted when it takes longer."""
        async with self._slot():  # a try that waits for others to end has not begun
            self._begin()
            self._deadline = asyncio.timeout(seconds)
            try:
                async with self._deadline:
                    if self.type.generates:
                        return None, await self._iterate(), False
                    if self.type.threaded:
                        value = await ThreadBody(self).result(self.body_values())
                    else:
                        value = await self.type.call(self.body_values(), self.context)
                    return value, False, self._publish_returned(value)
            except TimeoutError as error:
                if not self._deadline.expired():
                    raise
                raise NodeTimeout(self.node_id, seconds, self.type.threaded) from error

    @property
    def too_late(self) -> bool:
        """Whether the present try has taken too long."""
        return self._deadline is not None and self._deadline.expired()

    def _outputs(self, value: Any) -> Mapping[str, Any]:
        if self.type.generates:
            return {}
        return value if self.type.emits_mapping else dict.fromkeys(self.type.outputs, value)

    async def _interrupt(self, info: NodeInfo | None, error: BaseException) -> None:
        """A firing ended early: take the cut first, then let the body clean up, then tell.

        Returns when the step is to be run again, after its backoff; otherwise the actor ends.
        """
        run = self.run
        if isinstance(error, asyncio.CancelledError):
            run.heed_cancel()
        stopping = run.stopping
        fault: Exception | None = None
        if self.type.streams:
            self.end_reads()
        if has_failed := self.status == "failed":  # told by somebody else than its body, which was cancelled for it
            error = run.ending.failure_of(self.node_id) or error
        suspended = self.status == "suspended" and not stopping
        if suspended and not only_suspends(error, (asyncio.CancelledError,)):
            assert self._takes_back is not None
            self._takes_back()  # it failed after all: what was to be final is not
            self.status, suspended = "running", False
        tries = self.attempt - self.first_attempt + 1
        again = not (stopping or suspended or has_failed) and self.planned.failure.tries_again(error, tries)
        if again:
            self.frozen = True  # what the body does while it cleans up does not count
            self.choose_publish()
        elif not stopping and not suspended:
            try:
                run.node_failed(self, error)
            except Exception as told:  # who listens to the run: the hooks hear of the failure all the same
                fault = told
        await self._close(error)
        self.end_context()
        delay = self.planned.failure.delay(tries) if again else None
        if info is not None and (after_node := run.hooks.after_node) is not None:
            outcome: Outcome = CancelledOutcome(run.ending.reason) if stopping else Failed(error, self.node_id, delay)
            if suspended and self.suspension is not None:
                outcome = Suspended({self.node_id: self.suspension})
            await after_node(run.info, info, outcome)
        if fault is not None:
            raise fault
        if suspended and not run.stopping:
            self._fall_asleep()
        if delay is None or run.stopping or self.status == "failed":
            raise Interrupted from error
        await self._wait_to_retry(error, delay)

    def _fall_asleep(self) -> None:
        """Its body has suspended and is over: it stands as one that was restored so, until somebody wakes it."""
        run = self.run
        if run.listeners and self.suspension is not None:
            run.notify(NodeSuspended(run.run_id, self.node_id, self.suspension))
        self.asleep = True
        self.task = None  # the present one ends without another await
        run.waking.watch(self)
        self.waits += 1
        run.enter_wait(self)
        if run.saver is not None and run.hooks.fetch_answers is not None and run.moves:
            run.saver.request("suspend")  # who answers sees it now, and not when the others are done

    async def _close(self, error: BaseException) -> None:
        """Let a body that was interrupted where it yields clean up."""
        body, self._body = self._body, None
        if body is None:
            return
        self.cleans_up = True
        try:
            await close_body(body)
        except BaseException as raised:
            second: BaseException | None = raised
            if isinstance(raised, BaseExceptionGroup):
                second = raised.split(WorkflowSuspended)[1]  # a task of it is what suspended
            if second is None or only_suspends(second, (asyncio.CancelledError,)):
                return  # else it tried to emit or commit while it was cleaning up
            if not isinstance(second, Exception):
                raise
            note = f"while node {self.node_id!r} cleaned up after this, it raised {type(second).__name__}: {text_of(second)}"
            error.add_note(note)
            if self.status == "suspended":  # the error by which it ended is told to nobody
                logger.warning("run %s: node %s is suspended; %s", self.run.run_id, self.node_id, note)
        finally:
            self.cleans_up = False

    async def _wait_to_retry(self, error: BaseException, delay: float) -> None:
        """Wait, and begin the next try. A cut that is taken meanwhile holds the try that failed as the last one."""
        run = self.run
        logger.warning(
            "run %s: node %s failed and is tried again in %.3g s (try %d of %d): %s: %s",
            run.run_id,
            self.node_id,
            delay,
            self.attempt - self.first_attempt + 2,
            self.planned.failure.retries + 1,
            type(error).__name__,
            text_of(error),
        )
        if run.listeners:
            run.notify(NodeRetried(run.run_id, self.node_id, self.attempt + 1, delay, error))
        self.error = f"{type(error).__name__}: {text_of(error)}"
        if run.saver is not None:
            self.touched()
        await asyncio.sleep(delay)
        if run.stopping:
            raise Interrupted from error
        self.error = None
        self.frozen = False
        self.unbegun = not self.planned.failure.replayable
        self.attempt += 1
        self.rewind()
        if self.resumption is not None:
            self.resumption = Resumption(self.resumption.suspension)
        if self.holds:  # what was emitted and is not seen yet: the try that repeats it does not send it
            await self.settle()

    async def suspend(self, reason: str, state: Any, metadata: Mapping[str, Any] | None, wake_at: datetime | None) -> Any:
        """End the firing here, to go on in a later attempt; see `Context.suspend`."""
        self.check_alive()
        resumption = self.resumption
        if resumption is not None:
            answered, answer = resumption.next_answer(reason)
            if answered:
                return self.private(answer)
        if self.run.saver is None:
            raise SuspensionUnavailable(self.node_id)
        earlier = () if resumption is None else resumption.earlier
        if resumption is not None and resumption.unheard is not None:
            logger.warning(
                "run %s: node %s was given an answer to %r, and asks %r now: that answer is dropped. Where a question depends on "
                "what is different each time, keep it in the state of the suspension, or ask in a node of its own",
                self.run.run_id,
                self.node_id,
                resumption.unheard,
                reason,
            )
        kept = Suspension(reason, datetime.now(UTC), self.private(state), dict(metadata or {}), wake_at, earlier=earlier)
        self.check_replayed()
        self._takes_back = self.way_back()
        if self._context is not None:
            self._context.take_staged()
        self.pass_commit()
        self.suspension, self.resumption = kept, None
        self.status = "suspended"
        self.frozen = True  # of this call nothing counts any more
        self.choose_publish()
        self.touched()
        if self.run.listeners:
            self.run.node_changed(self)
        raise WorkflowSuspended(self.node_id, reason, state, metadata, wake_at)

    def check_heard(self, did: str) -> None:
        """A body that streams or yields goes on after a suspension: it has to hear its answer before anything else counts.

        Else the answer would be that of its next question, and the item for which it had asked lost.

        Args:
            did: what it does, for the error.

        Raises:
            NodeProtocolError: it has not heard it.
        """
        resumption = self.resumption
        if resumption is not None and not resumption.is_heard:
            raise NodeProtocolError(
                f"node {self.node_id!r} was suspended ({resumption.suspension.reason}), and {did} before it had asked for its "
                "answer. A body that streams or yields begins with `if context.is_resuming:`, and goes on there with "
                "`context.saved_state` and `context.answer`."
            )

    async def _iterate(self) -> bool:
        """Emit what the body yields; whether it was closed because nobody is left to hear it."""
        values = self.body_values()
        body = ThreadBody(self).items(values) if self.type.threaded else self.type.call(values, self.context)
        self._body = body
        untaken = 0
        wait: Callable[[], Coroutine[Any, Any, None]]
        goes_on = self.resumption is not None
        async for value in body:
            if goes_on:
                self.check_heard("yielded")
            edge = self.to_one
            if edge is not None:  # as `_publish_to_one`
                self.emitted += 1
                items = edge.items
                items.append(value)
                if (reader := edge.reader) is not None:
                    edge.reader = None
                    reader.wake()
                if self.waits:
                    self.touched()
                if len(items) > edge.capacity:
                    await self._wait_at_yield(body, self.settle)
                continue
            if self.orphaned:
                self.swallow_left = 0  # it repeats nothing any more, and may commit while it cleans up
                await close_body(body)
                self._body = None
                self.check_alive()  # as below: its run may have been stopped while it cleaned up
                return True
            if self.publish(value):
                untaken, wait = 0, self.settle
            else:
                untaken += 1
                if untaken % YIELDS_A_TURN:
                    continue
                wait = partial(asyncio.sleep, 0)
            await self._wait_at_yield(body, wait)
        self.check_alive()  # a body may end in peace after its run was stopped: that end does not count
        self.check_replayed()
        if goes_on:
            self.check_heard("ended")
        self._body = None
        return False

    async def _wait_at_yield(self, body: AsyncGenerator[Any, None], wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait, as to settle, while the body stands at a yield.

        A timeout or a group of tasks around the yield cancels the task that waits here. The body hears it where it stands,
        as if it had waited itself: it raises what it makes of it, or goes on, or ends.
        """
        while True:
            try:
                await wait()
                return
            except asyncio.CancelledError as error:
                if self.frozen or self.too_late:
                    raise
                heard = error
            try:
                value = await body.athrow(heard)
            except StopAsyncIteration:
                return
            if not self.publish(value):
                return
            wait = self.settle
