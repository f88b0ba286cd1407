"""The actor of most nodes: a coroutine fed by one edge, with nobody who listens to its firings."""

from __future__ import annotations

from sys import getrefcount
from typing import Any, Final

from workflow_runner.firing import FiringActor

__all__ = ["PlainActor"]

AGAIN: Final = object()
"""In the place of a value: the step is to be run again."""
ONLY_OURS: Final = 2
"""References to a context that no body has kept: the actor's and the question's. The next firing is given the same one then."""


class PlainActor(FiringActor):
    """Does what `FiringActor` does in one loop: between two items nothing is called but the body, its check and its commit.

    A step that is to be run again goes the general way.
    """

    async def live(self) -> None:
        (edge,) = self.in_edges
        items, run, constants = edge.items, self.run, self.planned.constants
        function, call, wants_context = self.type.function, self.type.call, self.type.wants_context
        (handle,) = self.planned.slots
        simple = function if not constants and self.type.leading == handle else None
        check = self.planned.checks.get(handle)
        exact = None if check is None else self.planned.exact(handle)
        if self.arguments is not None:
            await self.fire(None)
        while self.status == "running":
            if not items:
                if edge.ended:
                    self.complete()
                    await self.settle()
                else:
                    await self.wait_for_items((edge,))
                continue
            item = items.popleft()
            if edge.writer is not None and len(items) <= edge.capacity:
                edge.release_writer()
            self.arguments = {handle: item}  # from here on it is part of every cut
            self.firing += 1
            if self.attempt != 1:
                self.attempt = self.first_attempt = 1
            if run.listeners:
                run.node_changed(self)
            value: Any
            try:
                if self.frozen:
                    self.check_alive()
                if check is not None and type(item) is not exact:
                    item = self.checked(handle, check, item)
                if simple is not None:
                    value = await simple(item)
                elif function is not None:
                    value = await function(**{**constants, handle: item})
                else:
                    value = await call({**constants, handle: item}, self.context if wants_context else None)
                target = self.to_one
                if target is None:
                    must_settle = self.publish(value)
                else:  # as `_publish_to_one`, but for what the commit below does
                    sent = target.items
                    sent.append(value)
                    if (reader := target.reader) is not None:
                        target.reader = None
                        reader.wake()
                    must_settle = len(sent) > target.capacity
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # as in `fire`
                if self.is_thrown_away(error):
                    raise
                await self._interrupt(None, error)
                value = AGAIN
            if value is AGAIN:
                await self.fire(None)
                continue
            # From the emission above to the first await this is one synchronous step: the firing becomes final.
            if self._context is not None:
                self._context.take_staged()
                if getrefcount(self._context) > ONLY_OURS:
                    self.end_context()
            self.arguments = None
            if self.waits or self.durable_calls:
                self.pass_commit()
            else:
                self.commits += 1
                self.emitted = 0
            if edge.ended and not items:
                self.complete()
            if must_settle or self.holds:
                await self.settle()
