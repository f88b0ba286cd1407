"""SIGINT, SIGTERM and SIGHUP: the first stops the run in an orderly way, a second leaves at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

__all__ = ["StopSignals"]

HANGUP: Final = getattr(signal, "SIGHUP", None)
"""The terminal is gone; Windows has no such signal."""
STOPPING: Final = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


class StopSignals:
    """Listens while it is entered.

    Plain signal handlers, not those of the event loop: a body that keeps the loop busy must not keep the second
    signal from ending the process.

    Args:
        stop: called once, at the first signal, between any two steps of the main thread.
        supervised: SIGTERM is sent by several who do not know of each other, and ends nothing at once.
    """

    def __init__(self, stop: Callable[[], object], *, supervised: bool = False) -> None:
        self._stop = stop
        self._supervised = supervised
        self._before: dict[int, Any] = {}
        self.received: int | None = None

    @property
    def exit_code(self) -> int | None:
        """129, 130 or 143 after a signal, else `None`."""
        return None if self.received is None else 128 + self.received

    def __enter__(self) -> StopSignals:
        for number in STOPPING:
            if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:  # `nohup`: it goes on without its terminal
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            # A shell that ends and the system may both tell of it; so may those who supervise: nobody is in a hurry.
            if number == HANGUP or (self._supervised and number == signal.SIGTERM):
                return
            os._exit(128 + number)
        self.received = number
        self._stop()
