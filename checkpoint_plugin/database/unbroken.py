"""Work that must not be torn apart by a cancellation: a COMMIT that was cancelled may have been done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

__all__ = ["Outcome", "Unbroken", "finish", "take"]

T = TypeVar("T")


class Outcome(asyncio.Future[T]):
    """A future that nobody cancels: a task that waits for it and is cancelled learns so when the outcome is there."""

    def cancel(self, msg: Any = None) -> bool:
        """Refuse."""
        return False


class Unbroken(Awaitable[T], Generic[T]):
    """Awaits a coroutine to its end, also when cancelled meanwhile; it needs no task of its own.

    The cancellation is raised when the work is over, from its error if it has one. What the coroutine awaits is not
    cancelled, either, so nothing in it may rely on cancelling the task that it runs in, as `asyncio.timeout` does.

    Args:
        work: not yet started.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        cancelled: asyncio.CancelledError | None = None
        try:
            while True:
                waiting = self._work.send(None)
                try:
                    if waiting is None or isinstance(waiting, Outcome):
                        yield waiting
                    else:
                        yield from _done(waiting).__await__()
                except asyncio.CancelledError as error:  # whatever was waited for is there all the same
                    cancelled = error
                except Exception as error:
                    if waiting is None or not waiting.done() or waiting.exception() is not error:
                        raise
                    # The coroutine is told by what it waits for, as soon as it goes on, and may have an answer to it.
        except StopIteration as end:
            if cancelled is not None:
                raise cancelled from None
            found: T = end.value
            return found
        except Exception as error:
            if cancelled is not None:
                raise cancelled from error
            raise
        finally:
            self._work.close()


def _done(waiting: asyncio.Future[Any]) -> Outcome[None]:
    """A future that is done when another one is, and that cannot be cancelled."""
    done: Outcome[None] = Outcome(loop=waiting.get_loop())
    waiting.add_done_callback(lambda _: done.set_result(None))
    return done


async def finish(work: Awaitable[T]) -> T:
    """Wait for what must not be torn apart, also when cancelled meanwhile.

    Args:
        work: runs in a task of its own.

    Raises:
        asyncio.CancelledError: the caller was cancelled; raised when the work is over, from its error if it has one.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


async def take(work: Awaitable[T], give_back: Callable[[T], Awaitable[object]]) -> T:
    """Wait for what takes hold of something; a caller that is cancelled meanwhile holds nothing.

    Args:
        work: runs in a task of its own.
        give_back: called with what it gave, where the caller never hears of it.

    Raises:
        asyncio.CancelledError: the caller was cancelled; raised when all is given back, from the error of that if it has one.
    """
    task = asyncio.ensure_future(work)
    try:
        return await finish(task)
    except asyncio.CancelledError as cancelled:
        if not task.cancelled() and task.exception() is None:
            try:
                await give_back(task.result())
            except Exception as error:
                raise cancelled from error
        raise
