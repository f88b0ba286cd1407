"""Node types of the simulation that fire once for each set of inputs; see `models` for what each must emit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.simulation.lab import LAB, PACKED, mix, shape
from workflow_runner import Context, Node, node


@node
async def mix_one(a: Any, form: str, context: Context) -> Any:
    lab = LAB.get()
    lab.begin(context, a)
    await lab.pause()
    value = shape(form, mix(context.node_id, a))
    lab.made(context, value)
    return value


@node
async def pack(a: Any, context: Context) -> list[str]:
    lab = LAB.get()
    lab.begin(context, a)
    await lab.pause()
    return [mix(context.node_id, a, i) for i in range(PACKED)]


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
    lab.promise(context, count + 1)
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
async def consult(a: Any, form: str, context: Context) -> Any:
    """Waits for a person, who answers in a later world."""
    lab = LAB.get()
    lab.begin(context, a)
    await lab.pause()
    with lab.suspending(context):
        answer = await context.suspend("what of it?", state=[a])
    await lab.pause()
    value = shape(form, mix(context.node_id, a, answer))
    lab.made(context, value)
    return value


@node
async def forget(a: Any, context: Context) -> None:
    """Nobody reads what it returns."""
    lab = LAB.get()
    lab.begin(context, a)
    await lab.pause()
