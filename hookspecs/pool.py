"""What plugins keep open from one run to the next."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Hashable
from typing import Final, Protocol

__all__ = ["Closable", "ResourcePool"]

MOST_FREE: Final = 8
"""Resources of one key that are kept while nobody uses them."""
MOST_KEPT: Final = 32
"""And of all keys: there may be a store a customer, and each connection is a thread and files, or one of a server's few."""


class Closable(Protocol):
    """Something that is open."""

    async def close(self) -> None:
        """Close it."""


class ResourcePool:
    """What the plugins of an open runner keep between its runs, connections for example; each serves one run at a time.

    A plugin takes what is free when its run begins, or opens its own, and gives it back when the run is over and nothing was
    wrong with it. It belongs to the event loop and to the process in which it was made; elsewhere nothing is kept.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._process_id = os.getpid()
        self._free: dict[Hashable, list[Closable]] = {}
        self._open = True

    def take(self, key: Hashable) -> Closable | None:
        """Take one that is free, the last given first.

        Args:
            key: as it was given under; the name of the plugin and what tells one of its resources from another.

        Returns:
            `None` where there is none. Who takes one gives it back, or closes it.
        """
        free = self._free.get(key) if self._is_here() else None
        if free is None:
            return None
        resource = free.pop()
        if not free:
            del self._free[key]
        return resource

    async def give(self, key: Hashable, resource: Closable) -> None:
        """Keep one for another run; where that cannot be, or enough of its key are kept, it is closed.

        Where enough of all keys are kept, one of the key is closed under which nothing was given for the longest time.
        """
        if self._open and self._is_here():
            free = self._free[key] = self._free.pop(key, [])  # behind the others
            if len(free) < MOST_FREE:
                free.append(resource)
                if sum(map(len, self._free.values())) <= MOST_KEPT:
                    return
                resource = self._oldest()
        await resource.close()

    async def close(self) -> None:
        """Close what is free, and from now on whatever is given; also when cancelled meanwhile.

        Raises:
            ExceptionGroup: of what could not be closed; the others were.
            asyncio.CancelledError: the caller was cancelled; raised when all are closed, from that group if there is one.
        """
        self._open = False
        kept, self._free = self._free, {}
        errors: list[Exception] = []
        cancelled: asyncio.CancelledError | None = None
        for resource in (each for free in kept.values() for each in free):
            closing = asyncio.ensure_future(resource.close())  # one after the other: they may share a file
            while not closing.done():
                try:
                    await asyncio.wait((closing,))
                except asyncio.CancelledError as error:
                    cancelled = error
            if not closing.cancelled() and isinstance(failed := closing.exception(), Exception):
                errors.append(failed)
        group = ExceptionGroup("some of what plugins kept open could not be closed", errors) if errors else None
        if cancelled is not None:
            raise cancelled from group
        if group is not None:
            raise group

    def _oldest(self) -> Closable:
        key, free = next(iter(self._free.items()))
        oldest = free.pop(0)
        if not free:
            del self._free[key]
        return oldest

    def _is_here(self) -> bool:
        return os.getpid() == self._process_id and asyncio.get_running_loop() is self._loop
