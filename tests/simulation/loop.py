"""A seeded event loop: ready callbacks run in random order, time passes only when it must, and the world can end."""

from __future__ import annotations

import asyncio
import heapq
import inspect
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

__all__ = ["Crash", "Livelock", "SeededLoop", "Stuck"]

MAX_HANDLES = 200_000
"""A run of at most a dozen nodes and items that needs more callbacks goes round in circles."""
BIASES = (1.0, 1.0, 1.0, 8.0, 0.125)
"""In most worlds whatever is ready may come next; in some mostly the oldest, in some mostly the newest."""
EARLY_TIMER = 0.03
"""How likely a timer fires although something else is ready: computing takes time too, but not for ever, ..."""
EARLIEST = 60.0
"""... so one that is further away, in seconds, waits until nothing else can happen."""


class Crash(BaseException):
    """The process is gone. It derives from `BaseException` so that no handler inside the world stops it."""


class Stuck(Exception):
    """Raised when nothing is ready and nothing is scheduled, but the run is not over."""


class Livelock(Exception):
    """Raised when a world needs more callbacks than any honest one."""


class SeededLoop(BaseEventLoop):
    """An event loop without files, sockets and clock.

    Args:
        random: chooses what runs next.
        crash_after: how many callbacks run before the world ends; `None` for never.
    """

    _ready: list[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, random: Random, crash_after: int | None = None) -> None:
        super().__init__()
        self._ready = []
        self._random = random
        self._bias = random.choice(BIASES)
        self._now = 0.0
        self.crash_after = crash_after
        self.handles = 0
        self.at_handle: dict[int, Callable[[], object]] = {}
        """What is to happen before a callback of that number, from outside of the world."""
        self.dead = False
        self.unheard: list[dict[str, Any]] = []
        """What the loop was told by its exception handler, such as an exception that nobody retrieved."""
        self._generators: list[Any] = []
        self.set_exception_handler(lambda loop, context: self.unheard.append(context))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def _run_once(self) -> None:
        if self.crash_after is not None and self.handles >= self.crash_after:
            raise Crash  # before the next is picked: a world that was only asleep can go on
        while True:
            self._advance()
            if self._stopping and not self._ready:
                return
            handle = self._pick()
            if not handle.cancelled():
                break
        self.handles += 1
        if self.handles > MAX_HANDLES:
            raise Livelock(f"{MAX_HANDLES} callbacks and no end")
        if (intrude := self.at_handle.pop(self.handles, None)) is not None:
            intrude()
        handle._run()

    def _pick(self) -> asyncio.Handle:
        ready = self._ready
        return ready.pop(int(self._random.random() ** self._bias * len(ready)))

    def _advance(self) -> None:
        """Make timers ready: those that are due and, where nothing else can run, those that come next."""
        scheduled = self._scheduled
        while scheduled:
            timer = scheduled[0]
            if not timer.cancelled():
                if timer.when() > self._now:
                    early = timer.when() - self._now < EARLIEST and self._random.random() < EARLY_TIMER
                    if self._ready and not early:
                        return
                    self._now = timer.when()
                self._ready.append(timer)
            heapq.heappop(scheduled)
        if not self._ready and not self._stopping:
            raise Stuck("nothing is ready and nothing is scheduled, but the run is not over")

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector that would have to be woken."""

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        self._generators.append(agen)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        if not self.dead:
            self.unheard.append({"message": "an async generator was left to the garbage collector", "asyncgen": agen})

    def remains(self) -> list[str]:
        """What is left over: tasks, unfinished async generators, timers. Empty after a clean end."""
        tasks = [f"task {task.get_name()}" for task in asyncio.all_tasks(self)]
        generators = [f"async generator {agen.__qualname__}" for agen in self._generators if agen.ag_frame is not None]
        timers = [f"timer {timer!r}" for timer in self._scheduled if not timer.cancelled()]
        return tasks + generators + timers

    def dispose(self) -> None:
        """Throw the world away without a sound. Its `finally` blocks run, up to their ends, without the loop.

        Every coroutine is closed by hand, again and again while it awaits in a `finally`: left to the garbage
        collector it would complain, and do so in the middle of another test.
        """
        self.dead = True
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        for task in tasks:
            close_coroutine(task.get_coro())
        for agen in self._generators:
            close_generator(agen)
        self._generators.clear()
        self._ready.clear()
        self.close()
        self.unheard.clear()


def close_coroutine(coroutine: Any) -> None:
    """Close a coroutine that may await, or raise, while it is closed."""
    while coroutine is not None and coroutine.cr_frame is not None and not coroutine.cr_running:
        with suppress(BaseException):
            coroutine.close()


def close_generator(agen: Any) -> None:
    """Close an async generator that may yield, await or raise while it is closed."""
    if agen.ag_running and inspect.iscoroutine(agen.ag_await):
        # Somebody who is gone was closing it. It cannot be closed again, but what it awaits can.
        close_coroutine(agen.ag_await)
    for _ in range(100):
        if agen.ag_frame is None or agen.ag_running:
            return
        close_coroutine_like(agen.aclose())


def close_coroutine_like(closing: Any) -> None:
    """Drive `aclose()` to its next stop, and throw it away."""
    with suppress(BaseException):
        closing.send(None)
    with suppress(BaseException):
        closing.close()
