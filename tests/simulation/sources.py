"""Node types of the simulation that begin a stream. What each must emit is said in `models`, in other words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.simulation.lab import LAB, shape
from workflow_runner import Context, node


@node
async def count_up(n: int, form: str, context: Context) -> AsyncIterator[Any]:
    lab = LAB.get()
    lab.begin(context)
    for i in range(n):
        await lab.pause()
        yield shape(form, f"{context.node_id}.{i}")


@node
async def commit_up(n: int, form: str, every: int, context: Context) -> AsyncIterator[Any]:
    lab = LAB.get()
    lab.begin(context)
    for i in range(context.state or 0, n):
        lab.step(context, context.state or 0)
        await lab.pause()
        yield shape(form, f"{context.node_id}.{i}")
        if i % every == 0:
            context.commit(i + 1)


@node
async def random_up(n: int, context: Context) -> AsyncIterator[Any]:
    """Not deterministic, so it commits after each item."""
    lab = LAB.get()
    lab.begin(context)
    for i in range(context.state or 0, n):
        await lab.pause()
        yield (i, lab.random.randrange(1_000_000))
        context.commit(i + 1)


@node
async def endless(form: str, context: Context) -> AsyncIterator[Any]:
    """Ends only because nobody is left to hear it, and commits even then."""
    lab = LAB.get()
    lab.begin(context)
    i = context.state or 0
    try:
        while True:
            await lab.pause()
            yield shape(form, f"{context.node_id}.{i}")
            i += 1
    except GeneratorExit:
        await asyncio.sleep(0)
        context.commit(i)
        raise


@node
async def single(form: str, context: Context) -> Any:
    lab = LAB.get()
    lab.begin(context)
    await lab.pause()
    return shape(form, context.node_id)


@node
def thread_up(n: int, form: str, every: int, context: Context) -> Iterator[Any]:
    lab = LAB.get()
    lab.begin(context)
    for i in range(context.state or 0, n):
        lab.fail()
        yield shape(form, f"{context.node_id}.{i}")
        if i % every == 0:
            context.commit(i + 1)
