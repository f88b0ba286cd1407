"""Node types of a run in which people are asked while other nodes work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from workflow_runner import Context, Stream, node


@node
async def ask(number: int, context: Context) -> str:
    verdicts = [await context.suspend(f"question {n} of {number}?") for n in range(2)]
    return f"{number}: {verdicts}"


@node
async def tick(ticks: int, seconds: float, context: Context) -> AsyncIterator[int]:
    for number in range(context.state or 0, ticks):
        await asyncio.sleep(seconds)
        yield number
        context.commit(number + 1)


@node
async def judge(ticks: Stream[int], context: Context) -> AsyncIterator[Any]:
    """Asks about every fifth, in the middle of the stream."""
    if context.is_resuming:
        yield f"{context.saved_state} {context.answer}"
        context.commit()
    async for number in ticks:
        if number % 5 == 0:
            await context.suspend(f"question about tick {number}?", state=number)
        yield number
        context.commit()
