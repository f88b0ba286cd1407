"""Node types of the simulation that read streams; see `models` for what each must emit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.simulation.lab import LAB, mix, shape
from workflow_runner import Context, Stream, node


@node
async def running(items: Stream[Any], form: str, every: int, context: Context) -> AsyncIterator[Any]:
    """Commits after every few items; with `every` 0 never."""
    lab = LAB.get()
    lab.begin(context)
    count, last = context.state or (0, "")
    async for item in items:
        lab.step(context, count, item)
        await lab.pause()
        last = mix(context.node_id, last, item)
        count += 1
        yield shape(form, last)
        if every and count % every == 0:
            context.commit((count, last))


@node
async def gather_state(items: Stream[Any], every: int, context: Context) -> AsyncIterator[Any]:
    """Changes its state in place, before and after it commits it."""
    lab = LAB.get()
    lab.begin(context)
    state: dict[str, list[Any]] = context.state or {"items": []}
    async for item in items:
        state["items"].append(item)
        lab.step(context, len(state["items"]), item)
        await lab.pause()
        yield mix(context.node_id, state["items"])
        if len(state["items"]) % every == 0:
            lab.promise(context, len(state["items"]) // every)  # in the step that is repeated, so that a retry asks again
            context.commit(state)


@node(stateless=True)
async def double(items: Stream[Any], context: Context) -> AsyncIterator[Any]:
    lab = LAB.get()
    lab.begin(context)
    async for item in items:
        await lab.pause()
        yield mix(context.node_id, item, 0)
        await lab.pause()
        yield mix(context.node_id, item, 1)


@node
async def keep_every(items: Stream[Any], k: int, context: Context) -> AsyncIterator[Any]:
    """A filter by position."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    async for item in items:
        lab.step(context, count, item)
        await lab.pause()
        if count % k == 0:
            yield item
        count += 1
        context.commit(count)


@node
async def first(items: Stream[Any], k: int, every: int, context: Context) -> AsyncIterator[Any]:
    """Ends before its stream does."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    if count >= k:
        return
    async for item in items:
        lab.step(context, count, item)
        await lab.pause()
        yield item
        count += 1
        if every and count % every == 0:
            context.commit(count)
        if count == k:
            break


@node
async def arrive(a: Stream[Any], b: Stream[Any], every: int, context: Context) -> AsyncIterator[Any]:
    """Reads the first item of one stream, and then both in arrival order."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    if not count and (item := await anext(a, END)) is not END:
        lab.step(context, (count, "a"), item)
        count += 1
        yield ("a", item)
    async for handle, item in context.arrivals(a, b):
        lab.step(context, (count, handle), item)
        await lab.pause()
        count += 1
        yield (handle, item)
        if every and count % every == 0:
            context.commit(count)


@node(stateless=True)
async def mingle(a: Stream[Any], b: Stream[Any], context: Context) -> AsyncIterator[Any]:
    """Keeps nothing, and reads in arrival order."""
    lab = LAB.get()
    lab.begin(context)
    async for handle, item in context.arrivals(a, b):
        await lab.pause()
        yield (handle, item)


@node
async def alternate(a: Stream[Any], b: Stream[Any], every: int, context: Context) -> AsyncIterator[Any]:
    """Reads one of each in turn, until one has ended."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    async for one in a:
        lab.step(context, count, one)
        other = await anext(b, END)
        if other is END:
            break
        await lab.pause()
        yield mix(context.node_id, one, other)
        count += 1
        if every and count % every == 0:
            context.commit(count)


END = object()


@node
async def two_readers(a: Stream[Any], b: Stream[Any], context: Context) -> AsyncIterator[Any]:
    """Reads its streams in two tasks, which get their items in an order that only the script knows."""
    lab = LAB.get()
    lab.begin(context)
    out: asyncio.Queue[Any] = asyncio.Queue()

    async def read(name: str, stream: Stream[Any]) -> None:
        last = ""
        async for item in stream:
            await lab.pause()
            last = mix(context.node_id, name, last, item)
        await out.put((name, last))

    async with asyncio.TaskGroup() as tasks:
        for name, stream in (("a", a), ("b", b)):
            tasks.create_task(read(name, stream), name=f"{context.node_id} reads {name}")
        found = dict([await out.get(), await out.get()])
    for name in sorted(found):
        yield found[name]


@node
async def consult_stream(items: Stream[Any], context: Context) -> AsyncIterator[Any]:
    """Waits for a person at every second item."""
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    if context.is_resuming:
        (item,) = context.saved_state
        yield mix(context.node_id, item, context.answer)
        count += 1
        context.commit(count)
    async for item in items:
        lab.step(context, count, item)
        await lab.pause()
        if count % 2:
            with lab.suspending(context):
                await context.suspend("what of this one?", state=[item])
        yield mix(context.node_id, item)
        count += 1
        context.commit(count)


@node
async def relay(items: Stream[Any], form: str, context: Context) -> AsyncIterator[Any]:
    """Reads ahead in a task of its own while it yields."""
    lab = LAB.get()
    lab.begin(context)
    ahead: asyncio.Queue[Any] = asyncio.Queue()

    async def read() -> None:
        async for item in items:
            await ahead.put(item)
            await asyncio.sleep(lab.random.choice((0, 1)))
        await ahead.put(END)

    reading = asyncio.create_task(read(), name=f"{context.node_id} reads ahead")
    try:
        while (item := await ahead.get()) is not END:
            context.progress(1)
            yield shape(form, mix(context.node_id, item))
    finally:
        reading.cancel()
        await asyncio.wait((reading,))


@node
async def scale(items: Stream[Any], by: Any, context: Context) -> AsyncIterator[Any]:
    """A streaming node with a plain input, which takes exactly one item."""
    lab = LAB.get()
    lab.begin(context, by)
    async for item in items:
        await lab.pause()
        yield mix(context.node_id, by, item)
        context.commit(None)


@node
def thread_running(items: Stream[Any], every: int, form: str, context: Context) -> Iterator[Any]:
    lab = LAB.get()
    lab.begin(context)
    count, last = context.state or (0, "")
    for item in items:
        lab.step(context, count, item)
        lab.fail()
        last = mix(context.node_id, last, item)
        count += 1
        yield shape(form, last)
        if every and count % every == 0:
            context.commit((count, last))
