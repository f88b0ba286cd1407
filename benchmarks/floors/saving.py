"""How a hand-written node makes its value durable: it waits for it (and shares the commit), or leaves it behind."""

from __future__ import annotations

import asyncio
from typing import Any

import ormsgpack

from benchmarks.floors.writer import Row, Writer

__all__ = ["Saver"]


class Saver:
    """One task writes whatever waits, in one transaction, over and over.

    Args:
        writer: of the table.
        behind: nobody waits but `end`.
    """

    def __init__(self, writer: Writer, behind: bool) -> None:
        self._writer = writer
        self._behind = behind
        self._rows: list[Row] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._work())
        self._ended = False

    async def save(self, number: int, value: Any) -> None:
        """Make it durable."""
        self._rows.append((number, ormsgpack.packb(value)))
        self._wake.set()
        if not self._behind:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    async def end(self) -> None:
        """Wait for everything."""
        self._ended = True
        self._wake.set()
        await self._task

    async def _work(self) -> None:
        while not self._ended or self._rows:
            await self._wake.wait()
            self._wake.clear()
            rows, self._rows = self._rows, []
            waiting, self._waiting = self._waiting, []
            if rows:
                await self._writer.write(rows)
            for future in waiting:
                future.set_result(None)
            if self._rows:
                self._wake.set()
