"""Nodes as classes that suspend."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from workflow_runner.context import Context
from workflow_runner.errors import NotResuming
from workflow_runner.node import Node
from workflow_runner.suspension import WorkflowSuspended

__all__ = ["SuspendableNode"]


class SuspendableNode(Node):
    """A node that waits for people, other systems or a time, without holding a process meanwhile.

        class Approval(SuspendableNode):
            amount: int

            async def process(self) -> bool:
                if not self.is_resuming:
                    await self.suspend_workflow("approve the amount", metadata={"amount": self.amount})
                approved: bool = self.get_answer()
                return approved

    `process` may take the context, too. Without a runner, as in a test of the node alone, `suspend_workflow` raises
    `WorkflowSuspended`, and `resumed` makes a node that goes on.
    """

    def is_suspendable(self) -> bool:
        """Whether the node may suspend: this one may."""
        return True

    @property
    def is_resuming(self) -> bool:
        """Whether the body was started to go on after it had suspended."""
        context = self._context()
        return "_resumed" in self.__dict__ if context is None else context.is_resuming

    def get_saved_state(self) -> Any:
        """What the body kept when it suspended.

        Raises:
            NotResuming: it does not go on after a suspension.
        """
        context = self._context()
        return context.saved_state if context is not None else self._told()[0]

    def get_answer(self) -> Any:
        """What the suspension was answered with; `None` when its time had come.

        Raises:
            NotResuming: it does not go on after a suspension.
        """
        context = self._context()
        return context.answer if context is not None else self._told()[1]

    def suspend_workflow(
        self, reason: str, state: Any = None, metadata: Mapping[str, Any] | None = None, *, until: datetime | None = None
    ) -> Any:
        """Stop here until an answer comes; as `Context.suspend`. An `async def` body awaits it, a `def` body does not.

        Raises:
            WorkflowSuspended: always, unless the body is run again and was answered here before.
        """
        context = self._context()
        if context is None:
            raise WorkflowSuspended("", reason, state, metadata, until)
        return context.suspend(reason, state, metadata, until=until)

    def resumed(self, state: Any = None, answer: Any = None) -> Self:
        """For tests without a runner: make this node one that goes on after a suspension.

        Args:
            state: what it kept.
            answer: what it was answered with.
        """
        object.__setattr__(self, "_resumed", (state, answer))
        return self

    def _context(self) -> Context | None:
        found: Context | None = self.__dict__.get("_bound")
        return found

    def _told(self) -> tuple[Any, Any]:
        if "_resumed" not in self.__dict__:
            raise NotResuming(type(self).__name__)
        found: tuple[Any, Any] = self.__dict__["_resumed"]
        return found

    def _bind(self, context: Context) -> None:
        object.__setattr__(self, "_bound", context)
