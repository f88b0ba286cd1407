"""Actors that fire a body: once for each aligned set of inputs, or once for the life of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hookspecs import Cancelled as CancelledOutcome
from hookspecs import Completed, Failed, NodeInfo

from workflow_runner.actor import Actor, Interrupted
from workflow_runner.aligner import OnAny, Once, Values, make_aligner
from workflow_runner.edge import Edge
from workflow_runner.errors import NodeProtocolError
from workflow_runner.stream import open_stream
from workflow_runner.threads import ThreadBody

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["FiringActor", "StreamingActor"]

YIELDS_A_TURN = 64
"""A generator without consumers never waits for one, so it lets the others run after this many yields."""


class BodyActor(Actor):
    """One that calls a body and emits what it gives."""

    def over(self) -> bool:
        """Whether the firing that just ended was the last."""
        raise AssertionError

    def body_values(self) -> dict[str, Any]:
        """What the body is called with."""
        return self.values()

    async def fire(self, arguments: Mapping[str, Any] | None) -> None:
        """Call the body once; `None` to call it again for the interrupted firing."""
        info = await self.begin(arguments)
        outputs: Mapping[str, Any] = {}
        must_settle = False
        try:
            if self.type.generates:
                closed = await self._iterate()
            else:
                closed = False
                value = await self._call()
                self.check_replayed()
                must_settle = self.publish(value)
                if info is not None:
                    outputs = (value or {}) if self.type.emits_mapping else dict.fromkeys(self.type.outputs, value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever ends a body early, a cancellation too, must be told to the hooks
            await self.interrupt(info, error)
        # From here to the first await, with the emission above, is one synchronous step: the firing becomes final.
        self.context.take_staged()
        self.commit_firing()
        if closed or self.over():
            self.complete()
        await self.end(info, Completed(outputs))
        if must_settle or self.holds:
            await self.settle()

    async def interrupt(self, info: NodeInfo | None, error: BaseException) -> None:
        """A firing ended early: take the cut first, then let the body clean up, then tell."""
        stopping = self.run.stopping
        if not stopping:
            self.run.node_failed(self, error)
        body, self._body = self._body, None
        if body is not None:
            try:
                await body.aclose()
            except asyncio.CancelledError:
                pass  # the body tried to emit or commit while it was cleaning up
            except Exception as second:
                error.add_note(f"while node {self.node_id!r} cleaned up after this, it raised {type(second).__name__}: {second}")
        await self.end(info, CancelledOutcome(self.run.stop_reason) if stopping else Failed(error, self.node_id))
        raise Interrupted from error

    _body: AsyncGenerator[Any, None] | None = None

    async def _call(self) -> Any:
        if self.type.threaded:
            return await ThreadBody(self).result(self.body_values())
        return await self.type.call(self.body_values(), self.context)

    async def _iterate(self) -> bool:
        """Emit what the body yields; whether it was closed because nobody is left to hear it."""
        values = self.body_values()
        body = ThreadBody(self).items(values) if self.type.threaded else self.type.call(values, self.context)
        self._body = body
        alone = 0 if self.had_consumers else 1
        async for value in body:
            if self.orphaned:
                await body.aclose()
                self.swallow_left = 0
                self._body = None
                return True
            if self.publish(value):
                await self.settle()
            if alone:
                alone += 1
                if not alone % YIELDS_A_TURN:
                    await asyncio.sleep(0)
        self.check_replayed()
        self._body = None
        return False


class FiringActor(BodyActor):
    """Fires once for each aligned set of inputs; without inputs, once."""

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        super().__init__(run, planned, in_edges)
        self.aligner = make_aligner(in_edges, planned.sync_mode, planned.node_id)

    def over(self) -> bool:
        return self.aligner.over()

    async def live(self) -> None:
        if isinstance(self.aligner, Once) and self.firing:
            self.aligner.fired = True
        if self.arguments is not None:
            await self.fire(None)
        aligner = self.aligner
        while self.status == "running":
            values = aligner.take()
            if values is not None:
                await self.fire(self.planned.name_values(values))
            elif aligner.over():
                self.complete()
                await self.settle()
            else:
                await self.wait_for_items(aligner.missing())

    def latest(self) -> Mapping[str, Any] | None:
        """The latest value of each edge, where the mode keeps them."""
        return self.aligner.snapshot() if isinstance(self.aligner, OnAny) else None

    def restore_latest(self, latest: Mapping[str, Any] | None) -> None:
        """Take back what `latest` gave."""
        if isinstance(self.aligner, OnAny):
            self.aligner.restore(latest)


class SecondItem:
    """Waits at a plain input of a streaming node, which takes exactly one item."""

    open = False

    def __init__(self, actor: StreamingActor, edge: Edge) -> None:
        self.actor = actor
        self.edge = edge

    def wake(self) -> None:
        """An item came, or the end."""
        # Not now: the producer is in the middle of emitting, and a failing node takes a cut.
        self.actor.run.loop.call_soon(self._fail)

    def _fail(self) -> None:
        if self.edge.items and not self.actor.run.stopping and self.actor.status == "running":
            self.actor.run.node_failed(self.actor, self.actor.second_item(self.edge))


class StreamingActor(BodyActor):
    """Fires once for its life and reads its streams itself; plain inputs are taken before, one item each."""

    def __init__(self, run: Run, planned: PlannedNode, in_edges: Sequence[Edge]) -> None:
        super().__init__(run, planned, in_edges)
        self.plain_edges = tuple(edge for edge, slot in zip(in_edges, planned.slots) if not planned.type.handles[slot].stream)

    async def live(self) -> None:
        if self.arguments is None and not self.firing:
            await self._fire_first()
        else:
            self._guard()
            if self.arguments is not None:
                await self.fire(None)
        while self.status == "running":
            if self.over():
                self.complete()
                await self.settle()
            else:
                await self.wait_for_items(tuple(edge for edge in self.plain_edges if not edge.ended))

    async def _fire_first(self) -> None:
        while missing := tuple(edge for edge in self.plain_edges if not edge.items):
            for edge in missing:
                if edge.ended:
                    handle = self.planned.slots[self.in_edges.index(edge)]
                    raise NodeProtocolError(
                        f"node {self.node_id!r}, handle {handle!r}: a plain input of a streaming node takes exactly one item, "
                        f"and edge {edge.edge_id!r} ended without any. Give it a default and no edge, or make it a Stream."
                    )
            await self.wait_for_items(missing)
        values: Values = [edge.pop() if edge in self.plain_edges else None for edge in self.in_edges]
        self._guard()
        await self.fire(self.planned.name_values(values))

    def over(self) -> bool:
        return all(edge.drained for edge in self.plain_edges)

    def second_item(self, edge: Edge) -> NodeProtocolError:
        """What is wrong when a plain input gets more than one item."""
        handle = self.planned.slots[self.in_edges.index(edge)]
        return NodeProtocolError(
            f"node {self.node_id!r}, handle {handle!r}: a plain input of a streaming node takes exactly one item, "
            f"and edge {edge.edge_id!r} brought a second. Make the handle a Stream."
        )

    def _guard(self) -> None:
        for edge in self.plain_edges:
            if edge.items:
                raise self.second_item(edge)
            edge.reader = SecondItem(self, edge)

    def body_values(self) -> dict[str, Any]:
        values = self.values()
        edges = dict(zip(self.planned.slots, self.in_edges))
        for name, handle in self.type.handles.items():
            if handle.stream:
                values[name] = open_stream(name, self, edges.get(name), self.planned.checks.get(name), handle.default)
        return values
