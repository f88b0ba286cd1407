"""A checkpoint that a plugin asks for before its run has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from hookspecs import CheckpointRef

__all__ = ["EarlyRequest"]


class EarlyRequest:
    """Its reference, for whoever awaits it but the task in which the run is still to begin: that would wait for itself.

    Args:
        future: gives the reference.
        task: of the run.
    """

    def __init__(self, future: asyncio.Future[CheckpointRef | None], task: asyncio.Task[Any] | None) -> None:
        self._future = future
        self._task = task

    def __await__(self) -> Generator[Any, None, CheckpointRef | None]:
        if not self._future.done() and asyncio.current_task() is self._task:
            raise RuntimeError(
                "no checkpoint is taken before the run has begun, and it begins when this hook has returned. "
                "Ask for it here, and await it in a later hook or in a task of its own"
            )
        return self._future.__await__()
