"""The seeded loop and its threads: they repeat, they end, and a dead world makes no sound."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from random import Random

import pytest

from tests.simulation.baton import Batons
from tests.simulation.loop import Crash, Livelock, SeededLoop, Stuck


def order_of(seed: int) -> list[int]:
    loop = SeededLoop(Random(seed))
    order: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(0)
        order.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(10):
                tasks.create_task(one(number))

    loop.run_until_complete(main())
    assert loop.remains() == []
    loop.dispose()
    return order


def test_the_order_depends_on_the_seed_alone() -> None:
    orders = [tuple(order_of(seed)) for seed in range(5)]
    assert orders == [tuple(order_of(seed)) for seed in range(5)]
    assert len(set(orders)) == 5


def test_time_passes_only_when_nothing_else_can_happen() -> None:
    loop = SeededLoop(Random(1))

    async def main() -> float:
        await asyncio.sleep(3_600)
        return loop.time()

    assert loop.run_until_complete(main()) == 3_600
    loop.dispose()


def test_timers_fire_in_order() -> None:
    loop = SeededLoop(Random(1))
    order: list[float] = []

    async def one(seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    async def main() -> None:
        await asyncio.gather(*(one(seconds) for seconds in (300.0, 100.0, 200.0)))

    loop.run_until_complete(main())
    assert order == [100.0, 200.0, 300.0]
    loop.dispose()


def test_a_world_that_waits_for_nothing_is_stuck() -> None:
    loop = SeededLoop(Random(1))
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.dispose()


def test_a_world_without_end_is_a_livelock() -> None:
    loop = SeededLoop(Random(1))

    async def turn() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        while True:
            await turn()

    task = loop.create_task(main())
    with pytest.raises(Livelock):
        loop.run_until_complete(task)
    loop.dispose()


@pytest.mark.parametrize("crash_after", range(1, 40, 3))
def test_a_crashed_world_is_thrown_away_without_a_sound(crash_after: int, capfd: pytest.CaptureFixture[str]) -> None:
    loop = SeededLoop(Random(crash_after), crash_after)

    async def items() -> AsyncGenerator[int, None]:
        try:
            await asyncio.sleep(0.1)
            yield 1
        finally:
            await clean_up()

    async def clean_up() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            loop.call_soon(str)  # raises once the loop is closed

    async def stubborn() -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(5)
            except BaseException:
                await asyncio.sleep(5)
                raise

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("nobody hears this")

    async def main() -> None:
        failing = asyncio.ensure_future(fails())
        failing.add_done_callback(str)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stubborn())
            while True:
                generator = items()
                try:
                    async for _ in generator:
                        break
                finally:
                    await generator.aclose()

    with pytest.raises(Crash):
        loop.run_until_complete(loop.create_task(main()))
    loop.dispose()
    gc.collect()  # what would complain does it now: warnings are errors, and the rest is printed
    assert capfd.readouterr() == ("", "")


def test_threads_run_one_at_a_time_and_die_with_their_world() -> None:
    batons = Batons()
    thread, other = batons.make(), batons.make()
    told: list[str] = []

    def body() -> None:
        try:
            told.append("began")
            thread.park()
            told.append("went on")
            thread.park()
            told.append("never")
        finally:
            told.append("cleaned up")

    thread.start(body, "one")
    assert told == ["began"]
    thread.unpark()
    assert told == ["began", "went on"]
    assert batons.alive() == ["one"]
    other.start(lambda: told.append("other"), "two")
    assert batons.alive() == ["one"]
    batons.kill()
    assert told == ["began", "went on", "other", "cleaned up"]
    assert batons.alive() == []
