"""Actors that fire once for their life and read their streams themselves, with the log that lets a step run again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hookspecs import Taken
from workflow_runner.body import BodyActor
from workflow_runner.edge import Edge
from workflow_runner.errors import LogOverflow, NodeProtocolError, ReplayDiverged
from workflow_runner.handle import MADE
from workflow_runner.stream import Stream, open_stream

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["StreamingActor"]


class SecondItem:
    """Stands at a plain input of a streaming node, which takes exactly one item."""

    open = False

    def __init__(self, actor: StreamingActor, edge: Edge) -> None:
        self.actor = actor
        self.edge = edge

    def wake(self, *, ended: bool = False) -> None:
        """An item came, or the end."""
        # Not now: the producer is in the middle of emitting, and a failing node takes a cut.
        self.actor.run.loop.call_soon(self._fail)

    def _fail(self) -> None:
        if self.edge.items and not self.actor.run.stopping and self.actor.status == "running":
            self.actor.run.node_failed(self.actor, self.actor.second_item(self.edge))


class StreamingActor(BodyActor):
    """Fires once; its plain inputs are taken before, one item each.

    `taken` is the log of items handed to the body since its last commit. After a restore its rest, of length
    `script_left`, is the script that the body is fed first, in that very order.

    While a stateless node `hastens`, each read is a commit point with nothing else to do, and only its `last` item is remembered.
    """

    script_left = 0
    other_code = False
    """Whether its step was begun by other code, which the user has accepted where it must be repeated."""
    alone = True
    """Whether its own task has taken all that was taken since its last commit, as far as that is known."""

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        super().__init__(run, planned, in_edges)
        self.hastens = False
        self.last: Any = None
        self._taken: list[Taken] = []
        self.logs = run.saver is not None or planned.failure.retries > 0
        self.stateless = planned.type.stateless
        self.plain_edges = tuple(edge for edge in in_edges if not planned.type.handles[edge.planned.target_handle].stream)
        self._script_waiters: list[asyncio.Future[None]] = []
        self._streams: tuple[Stream[Any], ...] = ()
        """Those that the present try of the body was given."""

    # Its one firing.

    async def live(self) -> None:
        if not self.firing:
            await self._fire_first()
        else:
            self._guard()
            if self.arguments is not None:
                await self.fire(None)
        while self.status == "running":
            if self.over():
                self.complete()
                await self.settle()
            elif wrong := next((edge for edge in self.plain_edges if edge.items), None):
                raise self.second_item(wrong)
            else:
                await self.wait_for_items(tuple(edge for edge in self.plain_edges if not edge.ended))

    async def _fire_first(self) -> None:
        while missing := tuple(edge for edge in self.plain_edges if not edge.items):
            for edge in missing:
                if edge.ended:
                    raise NodeProtocolError(
                        f"node {self.node_id!r}, handle {edge.planned.target_handle!r}: a plain input of a streaming node takes "
                        f"exactly one item, and edge {edge.edge_id!r} ended without any. Send one, or make the handle a Stream."
                    )
            await self.wait_for_items(missing, of_each=True)
        self._refuse_second(1)  # before the first is taken: the cut of this failure holds both
        plain = set(self.plain_edges)
        values = [edge.pop() if edge in plain else None for edge in self.in_edges]
        arguments = self.planned.name_values(values)
        self._guard()
        await self.fire(arguments)

    def over(self) -> bool:
        return all(edge.drained for edge in self.plain_edges)

    def _become_final(self, closed: bool) -> None:
        super()._become_final(closed)
        if self.status != "completed":
            self.close_streams()

    def close_streams(self) -> None:
        """Its body is over, and only the ends of its plain inputs are to come: a stream must not keep their producer waiting."""
        order = self.order
        plain = set(self.plain_edges)
        left = [] if order is None else [edge for edge in order if edge in plain]
        for edge in self.in_edges:
            if edge not in plain:
                edge.close()
        if order is not None:
            order.clear()
            order.extend(left)

    def second_item(self, edge: Edge) -> NodeProtocolError:
        """What is wrong when a plain input gets more than one item."""
        return NodeProtocolError(
            f"node {self.node_id!r}, handle {edge.planned.target_handle!r}: a plain input of a streaming node takes "
            f"exactly one item, and edge {edge.edge_id!r} brought a second. Make the handle a Stream."
        )

    def _refuse_second(self, most: int) -> None:
        for edge in self.plain_edges:
            if len(edge.items) > most:
                raise self.second_item(edge)

    def _guard(self) -> None:
        self._refuse_second(0)
        for edge in self.plain_edges:
            if not edge.ended:
                edge.reader = SecondItem(self, edge)

    def body_values(self) -> Mapping[str, Any]:
        values = dict(self.values())
        edges = {edge.planned.target_handle: edge for edge in self.in_edges}
        for name, handle in self.type.handles.items():
            if handle.stream and (name in edges or handle.default is not MADE):
                values[name] = open_stream(name, self, edges.get(name), self.planned.checks.get(name), handle.default)
        self._streams = tuple(value for name, value in values.items() if name in edges and isinstance(value, Stream))
        return values

    # The log, and the script of a step that runs again.

    @property  # type: ignore[override]
    def taken(self) -> list[Taken]:
        """What was handed to the body since its last commit."""
        self._slow_down()
        return self._taken

    @taken.setter
    def taken(self, taken: list[Taken]) -> None:
        self._slow_down()
        self._taken = taken

    def hasten(self) -> None:
        """A stateless node has read one item, the slow way: see whether it may go on faster."""
        if len(self.taken) == 1 and self.direct and not self.durable_calls and self.order is None:
            self.hastens = True
            self.last = self._taken[0][1]

    def _slow_down(self) -> None:
        """Somebody asks for the log, or something else is to be done at the next commit point: the next read is a slow one."""
        if self.hastens:
            self.hastens = False
            self._taken = [(self._taken[0][0], self.last)]  # a new list: cuts hold a prefix of the old one
            self.last = None

    def choose_publish(self) -> None:
        self._slow_down()
        super().choose_publish()

    def stage(self, call: Callable[[], object]) -> None:
        self._slow_down()
        super().stage(call)

    def pass_commit(self) -> None:
        self.reads = 0
        self.other_code = False
        if self.taken:
            # A new list: cuts hold a prefix of the old one. What the body has not read again yet stays its script.
            self.taken = self.taken[len(self.taken) - self.script_left :]
        if not self.script_left:
            self.alone = True
        super().pass_commit()

    def way_back(self) -> Callable[[], None]:
        go_back = super().way_back()
        final = self.taken[: len(self.taken) - self.script_left]

        def go_back_and_take_again() -> None:
            go_back()
            self.taken = [*final, *self.taken]

        return go_back_and_take_again

    def rewind(self) -> None:
        self.script_left = len(self.taken)
        super().rewind()

    def give_back(self) -> None:
        """Let what it has taken come first again on its edges: other code may read them in another order, and would wait for ever
        for the next of the script."""
        edges = {edge.edge_id: edge for edge in self.in_edges}
        for edge_id, item in reversed(self.taken):
            edge = edges[edge_id]
            edge.items.appendleft(item)
            if edge.order is not None:
                edge.order.appendleft(edge)
        self.taken = []

    def commit_read(self) -> None:
        """The commit point before each read of a stateless node."""
        if self.taken or self.emitted or self.durable_calls:
            self.check_alive()
            self.check_replayed()
            self.pass_commit()

    def log(self, edge: Edge, item: Any) -> None:
        """Remember an item that is about to be handed to the body.

        Raises:
            LogOverflow: nothing was remembered, and the item must not be taken.
            NodeProtocolError: the same, for the body goes on after a suspension and has not heard its answer.
        """
        if self.resumption is not None:
            self.check_heard("took an item")
        taken = self.taken
        if len(taken) >= self.run.settings.max_log:
            raise LogOverflow(self.node_id, self.run.settings.max_log)
        taken.append((edge.planned.edge_id, item))
        self.reads += 1
        if self.alone and self.order is not None and (self.type.threaded or asyncio.current_task() is not self.task):
            self.alone = False
        if self.waits:
            self.touched()

    async def next_scripted(self, edges: tuple[Edge, ...]) -> tuple[Edge | None, Any]:
        """The next item of the interrupted step, in the order in which it was taken then.

        Returns:
            The edge and the item; `(None, None)` when the step had taken no more from these edges.
        """
        while self.script_left:
            script = self.taken  # no copy of what is left of it: it may be long
            edge_id, item = script[-self.script_left]
            for edge in edges:
                if edge.edge_id == edge_id:
                    self.script_left -= 1
                    self.reads += 1
                    waiters, self._script_waiters = self._script_waiters, []
                    for other in waiters:
                        if not other.done():
                            other.set_result(None)
                    return edge, item
            names = {edge.edge_id for edge in edges}
            if all(edge.drained for edge in edges) and not any(script[at][0] in names for at in range(-self.script_left, 0)):
                break
            if (self.other_code and self.stateless) or (self.alone and asyncio.current_task() is self.task):
                # It reads in another order, and cannot take this item before that one: its next read is a commit point, or the
                # read of that one is to come from the very task that waits here.
                how = f"it read edge {edges[0].edge_id!r} where it had read {edge_id!r}"
                raise ReplayDiverged(self.run.run_id, self.node_id, self.emitted, self.emitted - self.swallow_left, how)
            # Its head is for a read of another edge, which another task of the body must make. That one may be busy with
            # anything, so this does not count as a wait at an edge: the run has not come to a standstill.
            waiter: asyncio.Future[None] = self.run.loop.create_future()
            self._script_waiters.append(waiter)
            await waiter
            self.check_alive()
        self.check_alive()
        return None, None

    def end_reads(self) -> None:
        super().end_reads()
        waiters, self._script_waiters = self._script_waiters, []
        for waiter in waiters:
            waiter.cancel()
        for stream in self._streams:
            stream.end(self.ended)
        self._streams = ()

    def freeze(self) -> None:
        super().freeze()
        self.script_left = 0

    def first_arrival(self, edges: tuple[Edge, ...]) -> Edge | None:
        """The edge whose next item came first."""
        order = self.order
        if order is None:
            return edges[0] if edges[0].items else None
        if order and order[0] in edges:
            return order[0]
        return next((edge for edge in order if edge in edges), None)
