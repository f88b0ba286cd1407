"""Actors that call a body; `FiringActor` once for each aligned set of inputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hookspecs import Cancelled as CancelledOutcome
from hookspecs import Completed, Failed, NodeInfo
from workflow_runner.actor import Actor, Interrupted
from workflow_runner.aligner import OnAny, Once, make_aligner
from workflow_runner.context import Context
from workflow_runner.edge import Edge
from workflow_runner.threads import ThreadBody

if TYPE_CHECKING:
    from workflow_runner.plan import PlannedNode
    from workflow_runner.run import Run

__all__ = ["BodyActor", "FiringActor"]

YIELDS_A_TURN = 64
"""A generator without consumers never waits for one, so it lets the others run after this many yields."""


class BodyActor(Actor):
    """One that calls a body and emits what it gives."""

    _context: Context | None = None
    _body: AsyncGenerator[Any, None] | None = None

    @property
    def context(self) -> Context:
        """What the body is told and may ask for; made for the first who asks."""
        if self._context is None:
            self._context = Context(self)
        return self._context

    def retire(self) -> None:
        super().retire()
        self._context = None

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
            for handle in arguments:
                check = checks.get(handle)
                if check is not None and handle not in planned.lists:
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
            self.attempt = 1
            if self.run.listeners:
                self.run.node_changed(self)
        hooks = self.run.hooks
        info: NodeInfo | None = None
        if hooks.before_node is not None or hooks.after_node is not None:
            info = NodeInfo(self.node_id, self.type.name, self.firing, self.attempt)
            if hooks.before_node is not None:
                await hooks.before_node(self.run.info, info, self.values())
        value: Any = None
        closed = must_settle = False
        try:
            if self.frozen:  # stopped since it was woken: its body is not even called
                self.check_alive()
            if self.type.generates:
                closed = await self._iterate()
            else:
                if self.type.kind == "coroutine":
                    value = await self.type.call(self.body_values(), self.context if self.type.wants_context else None)
                else:
                    value = await ThreadBody(self).result(self.body_values())
                must_settle = self.publish(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever ends a body early, a cancellation too, must be told to the hooks
            await self._interrupt(info, error)
        # From the emission above to the first await this is one synchronous step: the firing becomes final.
        if self._context is not None:
            self._context.take_staged()
        self.arguments = None
        self.pass_commit()
        if closed or self.over():
            self.complete()
        if info is not None and hooks.after_node is not None:
            await hooks.after_node(self.run.info, info, Completed(self._outputs(value)))
        if must_settle or self.holds:
            await self.settle()

    def _outputs(self, value: Any) -> Mapping[str, Any]:
        if self.type.generates:
            return {}
        return value if self.type.emits_mapping else dict.fromkeys(self.type.outputs, value)

    async def _interrupt(self, info: NodeInfo | None, error: BaseException) -> None:
        """A firing ended early: take the cut first, then let the body clean up, then tell."""
        run = self.run
        stopping = run.stopping
        if not stopping:
            run.node_failed(self, error)
        body, self._body = self._body, None
        if body is not None:
            try:
                await body.aclose()
            except asyncio.CancelledError:
                pass  # the body tried to emit or commit while it was cleaning up
            except Exception as second:
                error.add_note(f"while node {self.node_id!r} cleaned up after this, it raised {type(second).__name__}: {second}")
        if info is not None and (after_node := run.hooks.after_node) is not None:
            await after_node(run.info, info, CancelledOutcome(run.stop_reason) if stopping else Failed(error, self.node_id))
        raise Interrupted from error

    async def _iterate(self) -> bool:
        """Emit what the body yields; whether it was closed because nobody is left to hear it."""
        values = self.body_values()
        body = ThreadBody(self).items(values) if self.type.threaded else self.type.call(values, self.context)
        self._body = body
        alone = 0 if self.planned.out_edges else 1
        async for value in body:
            if self.orphaned:
                self.swallow_left = 0  # it repeats nothing any more, and may commit while it cleans up
                await body.aclose()
                self._body = None
                return True
            if self.publish(value):
                await self.settle()
            if alone:
                alone += 1
                if not alone % YIELDS_A_TURN:
                    await asyncio.sleep(0)
        self.check_alive()  # a body may end in peace after its run was stopped: that end does not count
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
        aligner = self.aligner
        if self.firing and isinstance(aligner, Once):
            aligner.fired = True
        if self.arguments is not None:
            await self.fire(None)
        while self.status == "running":
            values = aligner.take()
            if values is not None:
                await self.fire(self.planned.name_values(values))
            elif aligner.over():
                self.complete()
                await self.settle()
            else:
                await self.wait_for_items(aligner.missing())

    body_values = BodyActor.values

    def latest(self) -> Mapping[str, Any] | None:
        """The latest value of each edge, where the mode keeps them."""
        return self.aligner.snapshot() if isinstance(self.aligner, OnAny) else None

    def restore_latest(self, latest: Mapping[str, Any] | None) -> None:
        """Take back what `latest` gave."""
        if isinstance(self.aligner, OnAny):
            self.aligner.restore(latest)
