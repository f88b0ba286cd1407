"""The node types of the simulation. What each must emit is said in `models`, in other words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from tests.simulation.lab import LAB, mix, shape
from workflow_runner import Context, Node, Stream, node

# Sources.


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
    """Ends only because nobody is left to hear it."""
    lab = LAB.get()
    lab.begin(context)
    i = 0
    while True:
        await lab.pause()
        yield shape(form, f"{context.node_id}.{i}")
        i += 1


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


# Plain nodes.


@node
async def mix_one(a: Any, form: str, context: Context) -> Any:
    lab = LAB.get()
    lab.begin(context, a)
    await lab.pause()
    value = shape(form, mix(context.node_id, a))
    lab.made(context, value)
    return value


class MixTwo(Node):
    a: Any
    b: Any
    form: str

    async def process(self, context: Context) -> Any:
        lab = LAB.get()
        lab.begin(context, self.a, self.b)
        await lab.pause()
        value = shape(self.form, mix(context.node_id, self.a, self.b))
        lab.made(context, value)
        return value


@node
async def mix_list(items: list[Any], form: str, context: Context) -> Any:
    lab = LAB.get()
    lab.begin(context, *items)
    await lab.pause()
    value = shape(form, mix(context.node_id, *items))
    lab.made(context, value)
    return value


@node
def thread_mix(a: Any, b: Any, form: str, context: Context) -> Any:
    lab = LAB.get()
    lab.begin(context, a, b)
    lab.fail()
    value = shape(form, mix(context.node_id, a, b))
    lab.made(context, value)
    return value


@node
async def chain(a: Any, form: str, context: Context) -> Any:
    """Keeps a state from firing to firing, staged until it returns."""
    lab = LAB.get()
    lab.begin(context, a)
    count, last = context.state or (0, "")
    value = mix(context.node_id, last, a)
    context.commit((count + 1, value))
    context.on_durable(partial(lab.durable, context.node_id, count + 1))
    await lab.pause()
    lab.made(context, shape(form, value))
    return shape(form, value)


@node(outputs=("left", "right"))
async def split(a: Any, context: Context) -> dict[str, Any]:
    lab = LAB.get()
    lab.begin(context, a)
    count = context.state or 0
    context.commit(count + 1)
    await lab.pause()
    both = {"left": mix(context.node_id, "left", a), "right": [a]}
    if count % 3 == 1:
        del both["left"]
    if count % 3 == 2:
        del both["right"]
    return both


@node
async def fan(a: Any, k: int, form: str, context: Context) -> AsyncIterator[Any]:
    """A generator with a plain argument that commits in the middle; every firing begins at nought."""
    lab = LAB.get()
    lab.begin(context, a)
    firing, done = context.state or (0, 0)
    for i in range(done, k):
        await lab.pause()
        yield shape(form, mix(context.node_id, a, firing, i))
        if i % 2 == 0:
            context.commit((firing, i + 1))
    context.commit((firing + 1, 0))


@node
def thread_fan(a: Any, k: int, form: str, context: Context) -> Iterator[Any]:
    lab = LAB.get()
    lab.begin(context, a)
    for i in range(k):
        lab.fail()
        yield shape(form, mix(context.node_id, a, i))


@node
async def forget(a: Any, context: Context) -> None:
    """Nobody reads what it returns."""
    lab = LAB.get()
    lab.begin(context, a)
    await lab.pause()


# Streaming nodes.


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
            context.commit(state)
            context.on_durable(partial(lab.durable, context.node_id, len(state["items"]) // every + 1))


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
    lab = LAB.get()
    lab.begin(context)
    count = context.state or 0
    async for handle, item in context.arrivals(a, b):
        lab.step(context, (count, handle), item)
        await lab.pause()
        count += 1
        yield (handle, item)
        if every and count % every == 0:
            context.commit(count)


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
