"""Worker threads for the seeded loop: real threads, but only one of them or the loop runs at any time."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress

from workflow_runner.threads import BodyThread

__all__ = ["BatonThread", "Batons", "ThreadKilled"]


class ThreadKilled(BaseException):
    """Ends the thread of a world that is gone."""


class Batons:
    """The threads of one world."""

    def __init__(self) -> None:
        self.threads: list[BatonThread] = []

    def make(self) -> BatonThread:
        """A thread for a body; what `WorkflowRunner(threads=...)` takes."""
        thread = BatonThread()
        self.threads.append(thread)
        return thread

    def alive(self) -> list[str]:
        """Names of the threads that have not ended."""
        return [thread.name for thread in self.threads if thread.started and not thread.over]

    def kill(self) -> None:
        """End those that are left, one after the other."""
        for thread in self.threads:
            thread.kill()


class BatonThread(BodyThread):
    """A thread that the loop waits for: after `start` and `unpark` until the thread parks again, or ends."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.started = False
        self.over = False
        self._killed = False
        self._to_thread = threading.Semaphore(0)
        self._to_loop = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def start(self, target: Callable[[], None], name: str) -> None:
        self.name = name
        self.started = True
        context = contextvars.copy_context()

        def run() -> None:
            with suppress(ThreadKilled):
                context.run(target)
            self.ended()

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()
        self._to_loop.acquire()

    def park(self) -> None:
        if self._killed:
            raise ThreadKilled
        self._to_loop.release()
        self._to_thread.acquire()
        if self._killed:
            raise ThreadKilled

    def unpark(self) -> None:
        if self.over or threading.current_thread() is self._thread:
            return
        self._to_thread.release()
        self._to_loop.acquire()

    def ended(self) -> None:
        if not self.over:
            self.over = True
            self._to_loop.release()

    def kill(self) -> None:
        """Raise `ThreadKilled` where the thread is parked, and wait for its end."""
        if self._thread is None:
            return
        self._killed = True
        self._to_thread.release()
        self._thread.join()
