"""Bodies in worker threads: written with `def`, they reach their actor through one ordered queue to the event loop.

The thread asks (a yield, a read, a commit, a checkpoint) and waits for the answer; the actor's task serves one question
at a time. So a thread never touches what a cut holds, and a cut sees it always between two of its questions.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any, Final

from hookspecs import CheckpointRef, shorten
from workflow_runner.context import Context
from workflow_runner.errors import Cancelled, NodeProtocolError
from workflow_runner.stream import Arrivals, Stream
from workflow_runner.suspension import WorkflowSuspended

if TYPE_CHECKING:
    from workflow_runner.body import BodyActor

__all__ = ["BodyThread", "ThreadBody", "ThreadContext"]


class BodyThread:
    """One worker thread, and how it and the event loop wait for each other.

    A daemon thread: one that never ends is abandoned after the grace period and does not hold the process.
    """

    def __init__(self) -> None:
        self._answered = threading.Semaphore(0)

    def start(self, target: Callable[[], None], name: str) -> None:
        """On the loop: run the target in the thread, which sees the context variables of its caller."""
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(target,), name=name, daemon=True).start()

    def park(self) -> None:
        """On the thread: wait until `unpark`."""
        self._answered.acquire()

    def unpark(self) -> None:
        """On the loop: let the thread go on; it may not have parked yet."""
        self._answered.release()

    def ended(self) -> None:
        """On the thread: the last thing that it does."""


@dataclass(slots=True)
class Returned:
    value: Any


@dataclass(slots=True)
class Raised:
    error: BaseException


@dataclass(slots=True)
class Yielded:
    value: Any


@dataclass(slots=True)
class Asked:
    serve: Callable[[], Any]


ASYNCHRONOUS: Final = (CoroutineType, AsyncGeneratorType)
"""What a call of an `async def` gives, and no value."""
END = object()
"""The answer to a read at the end of a stream."""


class ThreadBody:
    """One call of a `def` body."""

    def __init__(self, actor: BodyActor) -> None:
        self._actor = actor
        self._loop = actor.run.loop
        self._thread = actor.run.settings.threads()
        self._questions: asyncio.Queue[Returned | Raised | Yielded | Asked] = asyncio.Queue()
        self._answer: Any = None
        self._error: BaseException | None = None
        self._closing = False
        self._refused = False
        self._owner = 0
        """The thread that the body runs in, while it does: answers are for this one alone."""
        self.context = ThreadContext(actor, self)

    # On the event loop.

    async def result(self, values: Mapping[str, Any]) -> Any:
        """Run a body that returns; what it returned."""
        async for _ in self.items(values):
            raise AssertionError("a body that returns does not yield")
        return self._answer

    async def items(self, values: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Run a body; what it yields."""
        arguments = {name: self._for_thread(value) for name, value in values.items()}
        generates = self._actor.type.generates
        self._thread.start(lambda: self._run(arguments, generates), f"workflow-node-{self._actor.node_id}")
        running = True
        try:
            while True:
                question = await self._questions.get()
                match question:
                    case Returned(value):
                        self._answer = value
                        return
                    case Raised(error):
                        running = False
                        raise error
                    case Yielded(value):
                        yield value
                        self._give(None)
                    case Asked(serve):
                        await self._serve(serve)
        except GeneratorExit:
            # Nobody is left to hear it: its generator is closed where it stands, and may clean up.
            self._closing = True
            if running:
                self._give(None)
                await self._drain()
            raise
        except asyncio.CancelledError:
            if running:
                await self._abandon()
            raise

    async def _serve(self, serve: Callable[[], Any]) -> None:
        try:
            answer = serve()
            if isinstance(answer, Awaitable):
                answer = await answer
        except asyncio.CancelledError as error:
            if not isinstance(error, Cancelled):
                raise  # the actor itself is cancelled, in the middle of a question
            self._fail(error)
        except (Exception, WorkflowSuspended) as error:
            self._fail(error)
        else:
            self._give(answer)

    async def _drain(self) -> None:
        """Serve a closing body to its end, or until its run ends."""
        last: Returned | Raised | None = None
        try:
            while last is None:
                match await self._questions.get():
                    case Returned() | Raised() as ended:
                        last = ended
                    case Asked(serve):
                        await self._serve(serve)
        except asyncio.CancelledError:
            await self._abandon()
            raise
        if isinstance(last, Raised):
            raise last.error

    async def _abandon(self) -> None:
        """Refuse whatever the thread asks from now on.

        Where the run is over, wait for its end as long as the grace period lasts; one that took too long is left.
        """
        self._refused = True
        error = Cancelled(self._refusal())
        self._fail(error)
        if self._actor.too_late:
            return
        while not isinstance(await self._questions.get(), Returned | Raised):
            self._fail(error)

    def _refusal(self) -> str:
        actor = self._actor
        if actor.run.stopping:
            return f"run {actor.run.run_id!r} was stopped"
        return f"this try of node {actor.node_id!r} took too long and counts no more"

    def _for_thread(self, value: Any) -> Any:
        return ThreadStream(self, value) if isinstance(value, Stream) else value

    def _give(self, answer: Any) -> None:
        self._answer, self._error = answer, None
        self._thread.unpark()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._thread.unpark()

    # In the thread.

    def _run(self, arguments: Mapping[str, Any], generates: bool) -> None:
        last: Returned | Raised
        self._owner = threading.get_ident()
        try:
            value = self._actor.type.call(arguments, self.context)
            if generates:
                self._pump(value)
                value = None
            elif isinstance(value, ASYNCHRONOUS):
                raise self._hidden(value)
            last = Returned(value)
        except BaseException as error:  # carried to the event loop, where it ends the firing
            last = Raised(error)
        self._owner = 0
        self._post(last)
        self._thread.ended()

    def _hidden(self, value: Any) -> NodeProtocolError:
        """What is wrong with a body that is no `def`, but called like one."""
        error = NodeProtocolError(
            f"node {self._actor.node_id!r}: its body gave {shorten(value)}, which nobody awaits. A decorator has made a `def` of "
            "an `async def`; let it wrap one in another `async def`."
        )
        if isinstance(value, CoroutineType):
            value.close()  # else Python warns of it, too, whenever it is collected
        return error

    def _pump(self, body: Iterator[Any]) -> None:
        for value in body:
            try:
                self._wait(Yielded(value))
            except BaseException:
                body.close()  # type: ignore[attr-defined]
                raise
            if self._closing:
                body.close()  # type: ignore[attr-defined]
                return

    def ask(self, serve: Callable[[], Any]) -> Any:
        """Have the event loop call something, and wait for what it gives.

        Raises:
            Cancelled: the run was stopped.
            NodeProtocolError: it is asked in another thread than the body's own.
        """
        return self._wait(Asked(serve))

    def tell_progress(self, done: float, total: float | None) -> None:
        """In any thread: tell how far the body is. Only the body's own thread waits until everybody was told."""
        if threading.get_ident() == self._owner:
            self.ask(lambda: self._actor.context.progress(done, total))
            return
        try:
            self._loop.call_soon_threadsafe(self._progressed, done, total)
        except RuntimeError:  # the loop is closed, and nobody watches any more
            pass

    def _progressed(self, done: float, total: float | None) -> None:
        """On the loop, for a thread that does not wait."""
        if self._refused or not self._owner:
            return
        try:
            self._actor.context.progress(done, total)
        except Exception as error:  # of who listens to the run
            self._actor.run.crashed(error)

    def _wait(self, question: Yielded | Asked) -> Any:
        if self._refused:
            raise Cancelled(self._refusal())
        if threading.get_ident() != self._owner:
            raise NodeProtocolError(
                f"node {self._actor.node_id!r}: only the thread that its body runs in is answered, and another one asked. "
                "Read, yield and commit there, and hand the values to your other threads."
            )
        self._post(question)
        self._thread.park()
        if self._error is not None:
            raise self._error
        return self._answer

    def _post(self, question: Returned | Raised | Yielded | Asked) -> None:
        try:
            self._loop.call_soon_threadsafe(self._questions.put_nowait, question)
        except RuntimeError:  # the loop is closed: an abandoned thread has outlived its run
            self._refused = True
            self._error = Cancelled(f"run {self._actor.run.run_id!r} was stopped")
            self._thread.unpark()


class ThreadContext(Context):
    """The context of a `def` body, whose methods wait instead of being awaited: an annotation that type checkers understand."""

    __slots__ = ("_body",)

    def __init__(self, actor: BodyActor, body: ThreadBody) -> None:
        super().__init__(actor)
        self._body = body

    @property
    def state(self) -> Any:
        return self._body.ask(lambda: self._actor.context.state)

    @property
    def idempotency_key(self) -> str:
        key: str = self._body.ask(lambda: self._actor.context.idempotency_key)
        return key

    @property
    def firing(self) -> int:
        number: int = self._body.ask(lambda: self._actor.firing)
        return number

    @property
    def attempt(self) -> int:
        number: int = self._body.ask(lambda: self._actor.attempt)
        return number

    def commit(self, state: Any = None) -> None:
        self._body.ask(lambda: self._actor.context.commit(state))

    def checkpoint(self, reason: str = "explicit") -> CheckpointRef | None:  # type: ignore[override]
        """Ask for a checkpoint and wait until it is durable, without `await`; else as in `Context`."""
        ref: CheckpointRef | None = self._body.ask(lambda: self._actor.context.checkpoint(reason))
        return ref

    def suspend(
        self, reason: str, state: Any = None, metadata: Mapping[str, Any] | None = None, *, until: datetime | None = None
    ) -> Any:
        """Stop here until an answer comes, without `await`; else as in `Context`."""
        return self._body.ask(lambda: self._actor.context.suspend(reason, state, metadata, until=until))

    def sleep_until(self, when: datetime) -> None:  # type: ignore[override]
        """Suspend until a time, without `await`; else as in `Context`."""
        self._body.ask(lambda: self._actor.context.sleep_until(when))

    @property
    def is_resuming(self) -> bool:
        found: bool = self._body.ask(lambda: self._actor.context.is_resuming)
        return found

    @property
    def saved_state(self) -> Any:
        return self._body.ask(lambda: self._actor.context.saved_state)

    @property
    def answer(self) -> Any:
        return self._body.ask(lambda: self._actor.context.answer)

    def on_durable(self, call: Callable[[], object]) -> None:
        self._body.ask(lambda: self._actor.context.on_durable(call))

    def arrivals(self, *streams: Stream[Any]) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """As in `Context`, to be read with a plain `for`."""
        own = tuple(stream.stream if isinstance(stream, ThreadStream) else stream for stream in streams)
        return ThreadReader(self._body, self._body.ask(lambda: self._actor.context.arrivals(*own)))

    def progress(self, done: float, total: float | None = None) -> None:
        """As in `Context`; other threads of the body may call it, too."""
        self._body.tell_progress(done, total)


class ThreadReader:
    """Reads a stream or several from a thread."""

    def __init__(self, body: ThreadBody, source: Stream[Any] | Arrivals) -> None:
        self._body = body
        self._source = source

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = self._body.ask(lambda: anext(self._source, END))
        if item is END:
            raise StopIteration
        return item


class ThreadStream(ThreadReader):
    """A stream in a `def` body: `for item in stream`."""

    def __init__(self, body: ThreadBody, stream: Stream[Any]) -> None:
        super().__init__(body, stream)
        self.stream = stream
