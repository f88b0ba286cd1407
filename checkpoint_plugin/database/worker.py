"""A thread that does one thing after the other for an event loop: the only one in which a database is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from checkpoint_plugin.database.unbroken import Outcome

__all__ = ["Worker"]

T = TypeVar("T")
Calls = SimpleQueue[tuple[Callable[[], Any], Outcome[Any]] | None]


class Worker:
    """One thread, from the first call until it is closed.

    An executor of the standard library does the same with a lock, a second future and two more turns of the event loop, which a
    save a node feels.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: Calls = SimpleQueue()
        self._thread: Thread | None = None
        self._last: Thread | None = None
        """The one that was closed last; it may still be at work for another event loop."""
        self._turn = Lock()  # event loops of several threads would each start one, or hand work to one that ends

    def call(self, work: Callable[[], T]) -> Outcome[T]:
        """Call a function in the thread, after those that were handed over before.

        Returns:
            What it gave or raised; to be awaited on the event loop that called this.
        """
        outcome: Outcome[T] = Outcome(loop=asyncio.get_running_loop())
        with self._turn:
            if self._thread is None:
                self._start()
            self._calls.put((work, outcome))
        return outcome

    def _start(self) -> None:
        self._calls = SimpleQueue()
        # A process that ends without closing its stores must not hang, and to a database that is a crash like any other.
        thread = Thread(target=_serve, args=(self._calls, self._last), name=self._name, daemon=True)
        thread.start()
        self._thread = thread

    @property
    def is_started(self) -> bool:
        """Whether there is a thread to be ended."""
        return self._thread is not None

    def close(self) -> None:
        """Wait until everything is done, and end the thread."""
        with self._turn:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._last = thread
            self._calls.put(None)
        thread.join()


def _serve(calls: Calls, before: Thread | None) -> None:
    if before is not None:
        before.join()
    while (call := calls.get()) is not None:
        work, outcome = call
        try:
            tell, found = outcome.set_result, work()
        except BaseException as error:
            tell, found = outcome.set_exception, error
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            outcome.get_loop().call_soon_threadsafe(tell, found)
        del call, work, outcome, tell, found  # or they would live until the next call
