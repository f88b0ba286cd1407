"""A checkpoint that a plugin asks for in a hook before whose return it is not taken."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from hookspecs import CheckpointRef

__all__ = ["AskedInHook"]


class AskedInHook:
    """Its reference, for whoever awaits it but the task that calls the hook: that would wait for itself.

    Args:
        future: gives the reference.
        task: calls the hook.
        why: the checkpoint is not taken before that.
    """

    def __init__(self, future: asyncio.Future[CheckpointRef | None], task: asyncio.Task[Any] | None, why: str) -> None:
        self._future = future
        self._task = task
        self._why = why

    def __await__(self) -> Generator[Any, None, CheckpointRef | None]:
        if not self._future.done() and asyncio.current_task() is self._task:
            raise RuntimeError(f"{self._why} when this hook has returned. Ask for it here, and await it in a task of its own")
        return self._future.__await__()
