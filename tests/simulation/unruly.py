"""Node types of the simulation that clean up after themselves, ask for checkpoints, or break a rule on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.simulation.lab import LAB, mix
from workflow_runner import Context, Stream, node


@node
async def tidy(items: Stream[Any], every: int, context: Context) -> AsyncIterator[Any]:
    """Cleans up in `finally`, and tries there what is over."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    stopped = False
    try:
        async for item in items:
            lab.step(context, count, item)
            await lab.pause()
            yield mix(context.node_id, count, item)
            count += 1
            if every and count % every == 0:
                context.commit(count)
    except asyncio.CancelledError:
        stopped = True
        raise
    finally:
        if stopped:
            await asyncio.sleep(0)
            try:
                context.commit(1_000)
            except asyncio.CancelledError:
                pass
            else:
                lab.violate(f"node {context.node_id} committed after the run was stopped")
            yield "too late"
            lab.violate(f"node {context.node_id} emitted after the run was stopped")


@node
async def stubborn(items: Stream[Any], context: Context) -> AsyncIterator[Any]:
    """Does not want to be cancelled and reads on."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    stopped = False
    while True:
        try:
            item = await anext(items)
        except StopAsyncIteration:
            if stopped:
                lab.violate(f"node {context.node_id} was told that its stream ended after the run was stopped")
            return
        except asyncio.CancelledError:
            if stopped:
                raise
            stopped = True
            continue
        if stopped:
            lab.violate(f"node {context.node_id} was given an item after the run was stopped")
        await lab.pause()
        yield mix(context.node_id, count, item)
        count += 1
        context.commit(count)


@node
async def ask(items: Stream[Any], every: int, context: Context) -> AsyncIterator[Any]:
    """Asks for a checkpoint in the middle of its steps, before it yields."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    emitted = 0
    async for item in items:
        lab.step(context, count, item)
        await lab.pause()
        count += 1
        if count % 3 == 0:
            ref = await context.checkpoint("asked")
            if ref is not None and emitted < lab.owed.get(context.node_id, 0):
                lab.violate(f"node {context.node_id} was given a checkpoint while its emissions were swallowed")
        yield mix(context.node_id, count, item)
        emitted += 1
        if count % every == 0:
            context.commit(count)
            lab.owed.pop(context.node_id, None)


@node
async def diverge(items: Stream[Any], context: Context) -> AsyncIterator[Any]:
    """Breaks the rule: it may yield less when its step is run again, and must be caught at that."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    async for _ in items:
        await lab.pause()
        for i in range(lab.random.choice((1, 4))):
            yield (count, i)
            await lab.pause()
        count += 1
        context.commit(count)


@node
async def change_item(items: Stream[Any], context: Context) -> AsyncIterator[Any]:
    """Breaks the rule: it changes what it received."""
    lab = LAB.get()
    lab.begin(context)
    async for item in items:
        await lab.pause()
        item.append("changed")
        yield len(item)
        context.commit(None)


@node
async def hoard(items: Stream[Any], context: Context) -> AsyncIterator[Any]:
    """Never commits, and takes more than the log may hold."""
    lab = LAB.get()
    lab.begin(context)
    async for _ in items:
        await lab.pause()
    yield "all"


@node
def thread_arrive(a: Stream[Any], b: Stream[Any], context: Context) -> Iterator[Any]:
    """Reads in arrival order in a thread, and cleans up."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    stopped = False
    try:
        for handle, item in context.arrivals(a, b):
            lab.fail()
            yield (handle, item)
            count += 1
            context.commit(count)
    except asyncio.CancelledError:
        stopped = True
        raise
    finally:
        if stopped:
            try:
                context.commit(1_000)
            except asyncio.CancelledError:
                pass
            else:
                lab.violate(f"node {context.node_id} committed after the run was stopped")
