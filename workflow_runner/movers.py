"""Actors without a body that move items: to lanes and from them in order, out of a list and into one.

Each move is one synchronous step, from one edge to others, so no cut sees half of it, and nothing of it is to be done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workflow_runner.actor import Actor, Sleeper
from workflow_runner.edge import Edge

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["CollectActor", "EachActor", "GatherActor", "SpreadActor"]


class SpreadActor(Actor):
    """Gives each item to a lane whose actor waits for one, and tells in which order it did so.

    What no lane waits for stays in its inbox, and so does not stand behind an item that takes long. Which lane gets an item
    depends on time, but the number of the firing does not: it is that of the item, as if there were no lanes.
    """

    acts = False
    _lanes: Sequence[tuple[int, Edge]] = ()
    """By number, from 0. None of them is over before this is, nor who gathers what they return."""
    _order: Edge

    def connect(self, edges: list[Edge]) -> None:
        super().connect(edges)
        (self._order,) = [edge for edge in edges if edge.planned.source_handle == "order"]
        self._lanes = list(enumerate(edge for edge in edges if edge is not self._order))

    def drop(self, edge: Edge) -> None:
        raise AssertionError

    async def live(self) -> None:
        (edge,) = self.in_edges
        while not edge.drained:
            if not edge.items:
                await self.wait_for_items((edge,))
            elif (lane := self._free_lane()) is None:
                await self._wait_for_lane()
            else:
                self._hand(edge.pop(), *lane)
        self.complete()

    def _hand(self, item: Any, number: int, lane: Edge) -> None:
        self.firing += 1
        self.run.wiring.bear_consumer(lane)
        assert lane.consumer is not None
        lane.consumer.number_next(self.firing)
        self._order.put(number)
        lane.put(item)

    def _free_lane(self) -> tuple[int, Edge] | None:
        return next((lane for lane in self._lanes if _is_free(lane[1])), None)

    async def _wait_for_lane(self) -> None:
        sleeper = Sleeper(self)
        edges = [edge for _, edge in self._lanes]
        for edge in edges:
            edge.giver = sleeper
        try:
            await self.sleep(sleeper)
        finally:
            for edge in edges:
                edge.giver = None

    async def flush(self) -> None:
        """It gives to those alone that wait; how many numbers wait in `order` is bounded by what lanes and their edges hold."""


def _is_free(edge: Edge) -> bool:
    """Whether a lane waits for an item, or would begin with its first one."""
    lane = edge.consumer
    if lane is None:
        return True
    if lane.task is None:
        return lane.arguments is None  # else it is suspended
    return edge.reader is not None and edge.reader.open


class GatherActor(Actor):
    """Emits what the lanes return in the order of their items: the result that is ready sooner waits in its edge."""

    acts = False

    async def live(self) -> None:
        *lanes, order = self.in_edges
        while not order.drained:
            if not order.items:
                await self.wait_for_items((order,))
                continue
            lane = lanes[order.items[0]]
            if not lane.items:
                await self.wait_for_items((lane,))
                continue
            order.pop()
            self.firing += 1
            must_flush = self.publish(lane.pop())
            self.emitted = 0
            if must_flush:
                await self.flush()
        self.complete()


class EachActor(Actor):
    """Emits what is in each list that comes, or in the one that it has as a property, one by one.

    What its edges have no room for waits in them: of a list that is handed on in part no cut has to tell.
    """

    acts = False

    async def live(self) -> None:
        if not self.in_edges:
            if not self.firing:
                await self._emit(self.planned.constants["items"])
        else:
            (edge,) = self.in_edges
            while not (edge.drained or self.orphaned):
                if edge.items:
                    self.checked("items", self.planned.checks["items"], edge.items[0])
                    await self._emit(edge.pop())
                else:
                    await self.wait_for_items((edge,))
        self.complete()

    async def _emit(self, items: Sequence[Any]) -> None:
        self.firing += 1
        must_flush = False
        for item in items:
            must_flush = self.publish(item)
        self.emitted = 0
        if must_flush:
            await self.flush()


class CollectActor(Actor):
    """Emits all that comes as one list, at the end. Until then it stays in the edge, which has as much room as one may have."""

    acts = False

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        super().__init__(run, planned, in_edges)
        for edge in in_edges:
            edge.capacity = run.settings.max_edge_capacity

    async def live(self) -> None:
        (edge,) = self.in_edges
        while not edge.ended:
            await self.wait_for_items((edge,))
        self.firing += 1
        self.publish(list(edge.items))
        self.emitted = 0
        self.complete()
