"""Tasks that begin in a later turn of the event loop, whatever task factory it has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["start_task"]

T = TypeVar("T")


def start_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], name: str, context: Context | None = None
) -> asyncio.Task[T]:
    """Make a task that has not begun when this returns.

    `asyncio.eager_task_factory` begins a task where it is made: in the middle of a step of somebody else, and before its maker
    knows it.

    Args:
        loop: that it runs in.
        work: what it does.
        name: of the task.
        context: the context variables that it sees; default: a copy of the present ones.
    """
    return asyncio.Task(work, loop=loop, name=name, context=context)
