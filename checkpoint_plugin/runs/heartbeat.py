"""The sign of life of who executes a run: its lease is renewed while it lasts, else the run is stopped before it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.lease import Lease
from hookspecs import LeaseLost, Refusal, StoreError, text_of

__all__ = ["Heartbeat"]

BEATS: Final = 3
"""Renewals within the time of a lease."""
PAUSE_SECONDS: Final = 0.2
"""Between two tries while the database cannot be reached."""


class Heartbeat:
    """Renews the lease of a run until it is stopped.

    Args:
        store: of the run.
        lease: as it was taken.
        seconds: for which it was taken, and is renewed.
        fail: told once when the lease is lost, or could not be renewed before it ends: the run must stop.
        began: when taking it began, by `time.monotonic`, however late the answer came; default now.
    """

    def __init__(
        self, store: Store, lease: Lease, seconds: float, fail: Callable[[Refusal], None], began: float | None = None
    ) -> None:
        self._store = store
        self._lease = lease
        self._seconds = seconds
        self._fail = fail
        self._began = time.monotonic() if began is None else began
        self._renewal: asyncio.Future[datetime] | None = None
        self._task = asyncio.create_task(self._beat(), name="workflow-checkpoint-heartbeat")

    async def stop(self) -> None:
        """Renew it no more."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        if self._renewal is not None:
            await asyncio.gather(self._renewal, return_exceptions=True)  # a commit under way is not torn apart
        if not self._task.cancelled():
            self._task.result()  # a fault of ours must not stay hidden

    async def _beat(self) -> None:
        # Counted from before a renewal, or the taking, began: by the database's clock it ends later.
        ends = self._began + self._seconds
        pause, again = max(0.0, self._began + self._seconds / BEATS - time.monotonic()), False
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            self._renewal = asyncio.ensure_future(self._store.renew(self._lease, self._seconds))
            left = ends - began
            if left <= 0 or not again:
                # Some time also where the end has passed, as after a sleep of the machine: who still has the epoch goes on.
                left = max(left, self._seconds / BEATS)
            await asyncio.wait((self._renewal,), timeout=left)
            error = self._renewal.exception() if self._renewal.done() else TimeoutError("the store does not answer")
            if error is None:
                ends, pause, again = began + self._seconds, self._seconds / BEATS, False
            elif isinstance(error, LeaseLost):
                return self._fail(error)
            elif time.monotonic() + PAUSE_SECONDS >= ends:
                return self._fail(self._late(error))
            else:
                pause, again = PAUSE_SECONDS, True

    def _late(self, error: BaseException) -> LeaseLost:
        why = f"it could not be renewed for {self._seconds:g} seconds ({_told(error)})"
        lost = LeaseLost(self._lease.run_id, self._lease.epoch, why=why)
        lost.__cause__ = error
        return lost


def _told(error: BaseException) -> str:
    """What kept it from being renewed; that may be this process, which has no memory or no thread left, or a fault."""
    return str(error) if isinstance(error, (StoreError, TimeoutError)) else f"{type(error).__name__}: {text_of(error)}"
