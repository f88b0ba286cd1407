"""SIGINT and SIGTERM: the first stops the run in an orderly way, the second leaves at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopSignals"]


class StopSignals:
    """Listens while it is entered.

    Plain signal handlers, not those of the event loop: a body that keeps the loop busy must not keep the second
    signal from ending the process.

    Args:
        stop: called once, at the first signal, between any two steps of the main thread.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self.received: int | None = None

    @property
    def exit_code(self) -> int | None:
        """130 or 143 after a signal, else `None`."""
        return None if self.received is None else 128 + self.received

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        self._stop()
