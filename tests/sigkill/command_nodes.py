"""Node types for `workflow run`, loaded from this file. Every square is a line in a journal outside of the system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from workflow_runner import Context, Stream, node


@node
async def numbers(n: int, context: Context) -> AsyncIterator[int]:
    for i in range(context.state or 0, n):
        yield i
        context.commit(i + 1)


@node
async def square(number: int, journal: str, context: Context) -> int:
    line = f"{number} {context.idempotency_key}\n"
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    await asyncio.sleep(0.002)
    return number * number


@node
async def running_total(items: Stream[int], context: Context) -> AsyncIterator[int]:
    total = context.state or 0
    async for item in items:
        total += item
        yield total
        context.commit(total)
