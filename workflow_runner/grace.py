"""How long a run that is stopped waits for those who do not end: plugins that open it, bodies, who hears of its last nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflow_runner.run import Run

__all__ = ["Grace"]

logger = logging.getLogger("workflow_runner")


class Grace:
    """The patience of one run: without an end while nobody stops it, `grace_seconds` from then on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seconds = run.settings.grace_seconds
        self.opening = True
        """Whether plugins are still asked to open the run."""
        self.abandoned: tuple[str, ...] = ()
        """Nodes whose bodies did not end in time."""
        self._limit: asyncio.TimerHandle | None = None
        """Of plugins that open the run, once it is stopped or failed."""
        self._hurried = False
        """Whether the run was told to stop when its last node was over already."""
        self._patience: asyncio.Timeout | None = None
        """Of the wait for what still runs then."""

    def limit_opening(self) -> None:
        """Give the plugins that open the run so long, and no longer."""
        if self.opening and self._limit is None:
            self._limit = self._run.loop.call_later(self._seconds, self._give_up_opening)

    def opened(self) -> None:
        """They have opened it, or it does not come to that."""
        self.opening = False
        if self._limit is not None:
            self._limit.cancel()

    def _give_up_opening(self) -> None:
        logger.warning("run %s: left after %s s of grace, while a plugin opens it", self._run.run_id, self._seconds)
        self._run.cancel()

    def hurry(self) -> None:
        """The run is told to stop when its last node is over: who is still told of that has so long."""
        if not self._hurried:
            self._hurried = True
            if self._patience is not None:
                self._patience.reschedule(self._run.loop.time() + self._seconds)

    async def wait_for(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Wait for what still runs; where the run was stopped, not for ever: a body may not end when it is cancelled."""
        left = [task for task in tasks if not task.done()]  # one cancelled before its first step is done, and stays
        if not left:
            return
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(self._seconds if self._run.stopping or self._hurried else None) as self._patience:
                    await asyncio.wait(left)
            except asyncio.CancelledError:  # as in `Run.until`
                await asyncio.wait(left, timeout=self._seconds)
            finally:
                self._patience = None
        self.abandoned = tuple(sorted(task.get_name() for task in left if not task.done()))  # each bears the id of its node
        if self.abandoned:
            names = ", ".join(self.abandoned)
            logger.warning("run %s: left after %s s of grace, still running: %s", self._run.run_id, self._seconds, names)
