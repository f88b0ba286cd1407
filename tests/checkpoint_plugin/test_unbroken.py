"""Work that a cancellation does not tear apart, and the thread that does it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from checkpoint_plugin.database.unbroken import Outcome, Unbroken, finish
from checkpoint_plugin.database.worker import Worker

Way = Callable[[Any], Any]


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test-worker")
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "test-worker"]


async def steps(worker: Worker, go: threading.Event, done: list[str], error: Exception | None = None) -> str:
    """Waits in every way that there is."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    done.append("turn")
    plain = loop.create_future()
    loop.call_later(0.01, plain.set_result, None)
    await plain
    done.append("future")
    await worker.call(lambda: go.wait(30))
    done.append("thread")
    await asyncio.sleep(0.01)
    done.append("sleep")
    if error is not None:
        raise error
    return "found"


ALL = ["turn", "future", "thread", "sleep"]


async def test_it_is_awaited_like_any_other(worker: Worker) -> None:
    go, done = threading.Event(), list[str]()
    go.set()
    assert await Unbroken(steps(worker, go, done)) == "found"
    with pytest.raises(KeyError):
        await Unbroken(steps(worker, go, done, KeyError("k")))
    assert done == ALL * 2


@pytest.mark.parametrize("way", [Unbroken, finish])
async def test_it_may_have_an_answer_to_what_a_thread_raises(worker: Worker, way: Way) -> None:
    async def work() -> str:
        try:
            await worker.call(fail)
        except KeyError:
            await asyncio.sleep(0)
            return await worker.call(lambda: "found")
        return "nothing"

    def fail() -> None:
        raise KeyError("k")

    assert await way(work()) == "found"


@pytest.mark.parametrize("way", [Unbroken, finish])
async def test_it_may_have_an_answer_to_what_others_cancel(way: Way) -> None:
    given = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await given
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "found"
        return "nothing"

    asyncio.get_running_loop().call_soon(given.cancel)
    assert await way(work()) == "found"


@pytest.mark.parametrize("way", [Unbroken, finish])
@pytest.mark.parametrize("error", [None, KeyError("k")])
async def test_a_cancellation_is_told_when_the_work_is_over(worker: Worker, way: Way, error: Exception | None) -> None:
    """Cancelled at every step of the work, and more than once."""
    go, done, ended = threading.Event(), list[str](), list[BaseException]()

    async def caller() -> None:
        try:
            await way(steps(worker, go, done, error))
        except asyncio.CancelledError as cancelled:
            ended.append(cancelled)
            assert done == ALL
            raise

    task = asyncio.create_task(caller())
    for _ in range(20):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0.03)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended[0].__cause__ is error


async def test_an_outcome_refuses_to_be_cancelled() -> None:
    outcome: Outcome[int] = Outcome()
    assert outcome.cancel() is False
    outcome.set_result(1)
    assert await outcome == 1


async def test_the_thread_does_one_thing_after_the_other(worker: Worker) -> None:
    order = list[int]()
    await asyncio.gather(*(worker.call(partial(order.append, number)) for number in range(100)))
    assert order == list(range(100))
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 / 0)
    assert await worker.call(threading.current_thread) is not threading.current_thread()


async def test_a_thread_that_is_closed_while_another_event_loop_uses_it_ends(worker: Worker) -> None:
    """What that one hands over next is done by another thread, after it."""
    go, order = threading.Event(), list[str]()

    def first() -> None:
        go.wait(30)
        order.append("first")

    calls = [worker.call(first)]
    closing = threading.Thread(target=worker.close, daemon=True)
    closing.start()
    await asyncio.sleep(0.1)
    assert not worker.is_started
    calls.append(worker.call(partial(order.append, "second")))
    await asyncio.sleep(0.1)
    assert order == []
    go.set()
    await asyncio.wait(calls, timeout=10)
    closing.join(10)
    assert (order, closing.is_alive()) == (["first", "second"], False)


async def test_the_thread_keeps_nothing_alive(worker: Worker) -> None:
    class Large:
        pass

    large = Large()
    seen = weakref.ref(large)
    assert await worker.call(lambda kept=large: kept is not None)  # type: ignore[misc]
    del large
    await worker.call(lambda: None)
    gc.collect()
    assert seen() is None


def test_the_thread_outlives_an_event_loop_that_was_closed(worker: Worker) -> None:
    go = threading.Event()

    async def leave() -> None:
        worker.call(lambda: go.wait(30))

    async def ask() -> int:
        return await worker.call(lambda: 7)

    asyncio.run(leave())
    go.set()
    assert asyncio.run(ask()) == 7
