"""An edge at run time: the queue between two actors, with its bound and its end of stream."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.arrivals import ArrivalOrder
    from workflow_runner.plan import PlannedEdge
    from workflow_runner.wiring import Wiring

__all__ = ["Edge", "Waiter"]


class Waiter(Protocol):
    """Somebody who waits at an edge, or, for a consumer that has no actor yet, the edge itself."""

    @property
    def open(self) -> bool:
        """Whether a body waits here, so that no second one may."""

    def wake(self, *, ended: bool = False) -> None:
        """Let it go on; harmless when it no longer waits.

        Args:
            ended: whether no more items come, not that one came.
        """


class Edge:
    """Items on their way from a producer to a consumer.

    `items` is what the consumer may take: its inbox for this edge. It may hold more than `capacity`: what lies beyond is
    the producer's outbox, and the producer waits until nothing does. `held` is emitted but not yet to be seen by
    anybody, because its cut is not durable or `after_node` has not returned; a cut counts it as sent.
    """

    # Most edges never use most of these: as defaults of the class they cost nothing when an edge is made. What is looked at
    # for each item is the edge's own, which the interpreter finds sooner.
    held: list[Any] | None = None
    held_end = False
    producer: Actor | None = None
    consumer: Actor | None = None
    giver: Waiter | None = None
    """Who waits until its consumer waits for an item."""
    closed = False
    """The consumer is over: what is sent here is dropped."""
    wiring: Wiring
    """Makes the consumer, where the edge stands in its place."""
    open = False

    def __init__(self, planned: PlannedEdge, capacity: int) -> None:
        self.planned = planned
        self.capacity = capacity
        self.items: deque[Any] = deque()
        self.reader: Waiter | None = None
        self.writer: Waiter | None = None
        self.ended = False
        self.order: ArrivalOrder | None = None
        """Arrival order over all edges of the consumer, shared by them; `None` where there is only this one."""

    def wake(self, *, ended: bool = False) -> None:
        """The first item came, or the end, and the consumer has no actor yet: it is made and started."""
        self.wiring.bear(self.planned.target).wake()

    @property
    def edge_id(self) -> str:
        """Its id in the graph."""
        return self.planned.edge_id

    @property
    def full(self) -> bool:
        """Whether the producer has to wait."""
        return len(self.items) > self.capacity

    @property
    def drained(self) -> bool:
        """Whether nothing is left and nothing comes."""
        return self.ended and not self.items

    def put(self, item: Any) -> None:
        """Hand an item to the consumer."""
        self.items.append(item)
        if self.order is not None:
            self.order.append(self)
        if (reader := self.reader) is not None:
            self.reader = None
            reader.wake()

    def pop(self) -> Any:
        """Take the oldest item."""
        item = self.items.popleft()
        if self.order is not None:
            self.order.take(self)
        if self.writer is not None and len(self.items) <= self.capacity:
            self.release_writer()
        return item

    def end(self) -> None:
        """No more items come."""
        self.ended = True
        if (reader := self.reader) is not None:
            self.reader = None
            reader.wake(ended=True)

    def pending(self) -> tuple[Any, ...]:
        """Everything that is in it for the consumer, as a cut counts it."""
        return (*self.items, *self.held) if self.held else tuple(self.items)

    def send_held(self) -> None:
        """Hand on what was held."""
        held, self.held = self.held, None
        for item in held or ():
            self.put(item)
        if self.held_end:
            self.held_end = False
            self.end()

    def release_writer(self) -> None:
        """Let a waiting producer go on."""
        if (writer := self.writer) is not None:
            self.writer = None
            writer.wake()

    def close(self) -> None:
        """Its consumer reads no more: what is in it is forgotten, and what is still to come is dropped."""
        self.reader = None
        if not self.ended or self.items:
            self.closed = True
            if self.producer is not None:
                self.producer.drop(self)
                self.producer = None
            self.clear()

    def clear(self) -> None:
        """Forget everything that is in it: its consumer is done, or the run is."""
        self.items.clear()
        self.held = None
        if self.order is not None:
            self.order.clear()
        self.release_writer()
