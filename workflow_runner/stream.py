"""`Stream`: the annotation of a streaming input, and what a body reads it with."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from workflow_runner.checker import Checker
from workflow_runner.errors import NodeProtocolError

if TYPE_CHECKING:
    from workflow_runner.edge import Edge
    from workflow_runner.ended import Ended
    from workflow_runner.streaming import StreamingActor

__all__ = ["Arrivals", "LoggedStream", "Stream", "open_stream"]

T_co = TypeVar("T_co", covariant=True)


class Stream(Generic[T_co]):
    """The items of one edge, in order: `async for item in stream` (`for item in stream` in a `def` body).

    It ends when the producer has ended. Reading it from two tasks at once is an error.
    """

    __slots__ = ("_actor", "_check", "_edge", "_exact", "_items", "handle")

    def __init__(self, handle: str, actor: StreamingActor, edge: Edge, check: Checker | None) -> None:
        self.handle = handle
        self._actor = actor
        self._edge = edge
        self._items = edge.items
        self._check = check
        self._exact = actor.planned.exact(handle)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    def __iter__(self) -> Iterator[T_co]:
        # A `def` body is given a stream of its own that can do this.
        raise NodeProtocolError(
            f"handle {self.handle!r}: an `async def` body reads a stream with `async for`, only a `def` body with `for`."
        )

    async def __anext__(self) -> T_co:
        actor, edge, items = self._actor, self._edge, self._items
        if actor.durable_calls and actor.stateless:
            actor.commit_read()  # for these alone: nobody remembers what is read
        while not items:
            if edge.ended:
                self._actor.check_alive()
                raise StopAsyncIteration
            await self._actor.wait_for_items((edge,))
            items = self._items
        item = items.popleft()
        if edge.order is not None:
            edge.order.take(edge)
        if edge.writer is not None and len(items) <= edge.capacity:
            edge.release_writer()
        self._actor.reads += 1
        given: T_co = item if type(item) is self._exact or self._check is None else self._give(item)
        return given

    def end(self, ended: Ended) -> None:
        """The try of the body that was given it is over: every read is refused, also one that was about to take an item."""
        self._actor = cast("StreamingActor", ended)
        self._items = deque()

    def _give(self, item: Any) -> T_co:
        given: T_co = item if self._check is None else self._actor.checked(self.handle, self._check, item)
        return given


class LoggedStream(Stream[T_co]):
    """A stream whose items are remembered until the next commit, so that the step can be run again."""

    __slots__ = ()

    async def __anext__(self) -> T_co:
        actor = self._actor
        edge = self._edge
        if actor.script_left:
            found, item = await actor.next_scripted((edge,))
            if found is not None:
                return self._give(item)
        if actor.stateless and not actor.script_left:  # else its step runs again, and this stream was at its end then
            actor.commit_read()
        items = self._items
        while not items:
            if edge.ended:
                self._actor.check_alive()
                raise StopAsyncIteration
            await self._actor.wait_for_items((edge,))
            items = self._items
        item = items[0]
        actor.log(edge, item)  # first: where the log is full, the item stays where a cut finds it
        items.popleft()
        if edge.order is not None:
            edge.order.take(edge)
        if edge.writer is not None and len(items) <= edge.capacity:
            edge.release_writer()
        return self._give(item)


class StatelessStream(LoggedStream[T_co]):
    """One of a stateless node: what was read before is final with the next read."""

    __slots__ = ()

    async def __anext__(self) -> T_co:
        actor, edge, items = self._actor, self._edge, self._items
        if not items or not actor.hastens or actor.waits:
            given = await super().__anext__()
            actor.hasten()
            return given
        # A commit point and a read in one step: nothing here can wait, and nobody waits for this commit.
        actor.commits += 1
        actor.emitted = 0
        item = actor.last = items.popleft()
        if edge.writer is not None and len(items) <= edge.capacity:
            edge.release_writer()
        return item if type(item) is self._exact or self._check is None else self._give(item)


class Arrivals:
    """Several streams as one, in arrival order: `async for handle, item in context.arrivals(a, b)`."""

    __slots__ = ("_first", "_streams")

    def __init__(self, streams: tuple[Stream[Any], ...]) -> None:
        self._first = streams[0]
        self._streams = {stream._edge: stream for stream in streams}

    def __aiter__(self) -> AsyncIterator[tuple[str, Any]]:
        return self

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        raise NodeProtocolError("an `async def` body reads arrivals with `async for`, only a `def` body with `for`.")

    async def __anext__(self) -> tuple[str, Any]:
        actor = self._first._actor
        edges = tuple(self._streams)
        if actor.script_left:
            found, item = await actor.next_scripted(edges)
            if found is not None:
                return self._give(found, item)
        if actor.stateless and not actor.script_left:  # else its step runs again, and this stream was at its end then
            actor.commit_read()
        while (edge := actor.first_arrival(edges)) is None:
            waiting = tuple(edge for edge in edges if not edge.ended)
            if not waiting:
                actor.check_alive()
                raise StopAsyncIteration
            await actor.wait_for_items(waiting)
            actor = self._first._actor
        item = edge.items[0]
        if actor.logs:
            actor.log(edge, item)  # before it is taken, as in `LoggedStream`
        else:
            actor.reads += 1
        edge.pop()
        return self._give(edge, item)

    def _give(self, edge: Edge, item: Any) -> tuple[str, Any]:
        stream = self._streams[edge]
        return stream.handle, stream._give(item)


def open_stream(handle: str, actor: StreamingActor, edge: Edge | None, check: Checker | None, empty: Any) -> Any:
    """What a body is given for a stream handle: a stream, or `empty` where no edge ends there."""
    if edge is None:
        return empty
    if not actor.logs:
        return Stream(handle, actor, edge, check)
    return (StatelessStream if actor.stateless and not actor.suspension else LoggedStream)(handle, actor, edge, check)
