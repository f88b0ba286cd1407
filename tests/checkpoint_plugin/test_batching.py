"""Batches: by size, by time, in order, tried again, never lost silently."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from checkpoint_plugin.database.unbroken import finish
from checkpoint_plugin.errors import StoreDamaged, StoreUnreadable, WriterStopped
from checkpoint_plugin.runs import batching
from checkpoint_plugin.runs.batching import BatchWriter


class Target:
    """Takes batches; fails as often as it is told, and waits while it is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.tried: list[Sequence[int]] = []
        self.failures: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self.changed = asyncio.Event()
        self.asked = asyncio.Event()

    async def write(self, values: Sequence[int]) -> None:
        self.tried.append(values)
        self.asked.set()
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(values))
        self.changed.set()


def writer(target: Target, size: int = 3, interval: float = 100.0, **more: float | int) -> BatchWriter[int]:
    return BatchWriter(
        target.write,
        name="test",
        size=size,
        interval=interval,
        limit=int(more.get("limit", 100)),
        wait_seconds=float(more.get("wait_seconds", 5)),
        give_up_seconds=float(more.get("give_up_seconds", 60)),
    )


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FIRST_PAUSE", 0.001)


async def settled(target: Target, count: int) -> None:
    while sum(map(len, target.batches)) < count:
        target.changed.clear()
        await target.changed.wait()


async def test_several_that_stop_it_wait_for_the_same_end() -> None:
    target = Target()
    batches = writer(target)
    batches.start()
    for value in range(5):
        await batches.put(value)
    target.open.clear()
    given_up = asyncio.create_task(batches.stop(5))
    await asyncio.wait((given_up,), timeout=0.01)
    given_up.cancel()
    await asyncio.wait((given_up,))
    both = asyncio.gather(batches.stop(5), batches.stop(5))
    await target.asked.wait()
    target.open.set()
    await both
    await batches.stop(5)
    assert target.batches == [[0, 1, 2], [3, 4]]
    batches.start()
    await batches.put(5, durable=True)
    await batches.stop(5)
    assert target.batches[2:] == [[5]]


async def test_a_failure_is_heard_once_by_who_flushes() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    target = Target()
    batches = writer(target)
    batches.start()
    for value in range(5):
        await batches.put(value)
    target.failures.append(StoreDamaged("r", "broken"))
    with pytest.raises(StoreDamaged):
        await batches.flush()
    with pytest.raises(WriterStopped):
        await batches.stop(1)
    del batches
    gc.collect()
    assert told == []


async def test_a_full_batch_is_written_at_once_and_the_rest_at_the_end() -> None:
    target = Target()
    batches = writer(target)
    batches.start()
    for value in range(7):
        await batches.put(value)
    await settled(target, 6)
    assert target.batches == [[0, 1, 2], [3, 4, 5]]
    await batches.stop(5)
    assert target.batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert (batches.stats.queued, batches.stats.processed, batches.stats.batches, batches.stats.errors) == (7, 7, 3, 0)


async def test_a_small_batch_is_written_when_it_is_old() -> None:
    target = Target()
    batches = writer(target, interval=0.01)
    batches.start()
    await batches.put(1)
    await settled(target, 1)
    assert target.batches == [[1]]
    await batches.stop(5)


async def test_a_writer_that_has_nothing_to_do_hears_of_what_comes() -> None:
    target = Target()
    batches = writer(target, size=2, interval=0.01)
    batches.start()
    await asyncio.sleep(0.005)  # it waits for a value
    await batches.put(1)
    async with asyncio.timeout(4):
        await settled(target, 1)
    await batches.stop(5)


async def test_values_that_come_one_by_one_make_a_batch_that_is_written_at_once() -> None:
    target = Target()
    batches = writer(target)
    batches.start()
    for value in range(3):
        await asyncio.sleep(0.005)  # it waits for more
        assert target.tried == []
        await batches.put(value)
    async with asyncio.timeout(4):
        await settled(target, 3)
    assert target.batches == [[0, 1, 2]]
    await batches.stop(5)


async def test_who_flushes_does_not_wait_for_the_time_of_a_batch() -> None:
    target = Target()
    batches = writer(target)
    batches.start()
    await batches.put(1)
    await asyncio.sleep(0.005)  # it waits for more
    async with asyncio.timeout(4):
        await batches.flush()
    assert target.batches == [[1]]
    await batches.stop(5)


async def test_of_several_who_wait_for_a_value_one_may_leave() -> None:
    target = Target()
    target.open.clear()
    batches = writer(target)
    batches.start()
    await batches.put(1)
    leaving, staying = (asyncio.create_task(batches.flush()) for _ in range(2))
    await target.asked.wait()
    leaving.cancel()
    await asyncio.wait((leaving,))
    target.open.set()
    async with asyncio.timeout(4):
        await staying
    await batches.stop(5)


async def test_who_flushes_waits_for_the_batch_that_is_being_written() -> None:
    target = Target()
    target.open.clear()
    batches = writer(target)
    batches.start()
    for value in range(3):
        await batches.put(value)
    await target.asked.wait()
    flushing = asyncio.create_task(batches.flush())
    await asyncio.sleep(0.01)
    assert not flushing.done()
    target.open.set()
    await flushing
    assert target.batches == [[0, 1, 2]]
    await batches.stop(5)


async def test_who_asks_for_it_waits_until_its_value_is_durable() -> None:
    target = Target()
    batches = writer(target)
    batches.start()
    await batches.put(1)
    await batches.put(2, durable=True)
    assert target.batches == [[1, 2]]
    await batches.put(3)
    await batches.flush()
    assert target.batches == [[1, 2], [3]]
    await batches.stop(5)


async def test_what_came_before_the_start_is_written_after_it() -> None:
    target = Target()
    batches = writer(target)
    await batches.put(1)
    batches.start()
    batches.start()
    await batches.flush()
    assert target.batches == [[1]]
    await batches.stop(5)
    await batches.stop(5)


async def test_nobody_is_told_that_something_is_durable_before_the_start() -> None:
    target = Target()
    batches = writer(target)
    await batches.flush()
    await batches.put(1)
    with pytest.raises(WriterStopped) as raised:
        await batches.flush()
    assert raised.value.unwritten == (1,)
    batches.start()
    await batches.stop(5)
    assert target.batches == [[1]]
    await batches.flush()


async def test_a_batch_that_failed_is_tried_again_unchanged() -> None:
    target = Target()
    target.failures = [StoreUnreadable("away")] * 3
    batches = writer(target)
    batches.start()
    for value in range(3):
        await batches.put(value)
    await settled(target, 3)
    assert target.batches == [[0, 1, 2]]
    assert len(target.tried) == 4
    assert all(values is target.tried[0] for values in target.tried)
    assert batches.stats.errors == 3
    await batches.stop(5)


async def test_what_cannot_be_written_before_the_end_is_told() -> None:
    target = Target()
    target.failures = [StoreUnreadable("away")] * 10_000
    batches = writer(target)
    batches.start()
    for value in range(5):
        await batches.put(value)
    with pytest.raises(WriterStopped, match="5 writes of the test are not durable") as raised:
        await batches.stop(0.05)
    assert raised.value.unwritten == (0, 1, 2, 3, 4)
    with pytest.raises(WriterStopped, match="takes nothing more"):
        await batches.put(6)


async def test_who_waits_until_a_value_is_durable_hears_that_the_writer_has_given_up() -> None:
    target = Target()
    target.failures = [StoreUnreadable("away")] * 10_000
    batches = writer(target)
    batches.start()
    waiting = [asyncio.create_task(each) for each in (batches.put(1, durable=True), batches.put(2, durable=True))]
    await target.asked.wait()
    with pytest.raises(WriterStopped):
        await batches.stop(0.01)
    async with asyncio.timeout(4):
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WriterStopped] * 2


async def test_a_writer_that_has_given_up_tries_no_more() -> None:
    target = Target()
    target.failures = [StoreUnreadable("away")] * 10_000
    batches = writer(target)
    batches.start()
    for value in range(3):
        await batches.put(value)
    await target.asked.wait()
    with pytest.raises(WriterStopped):
        await batches.stop(0.01)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "workflow-test"]


async def test_what_was_given_up_is_no_part_of_what_comes_after_a_new_start() -> None:
    target = Target()
    target.open.clear()
    batches = merging(target, size=1, limit=5)
    batches.start()
    for value, key in ((1, "a"), (2, "b")):
        await batches.put(value, key)
    await target.asked.wait()
    with pytest.raises(WriterStopped) as raised:
        await batches.stop(0.01)
    assert raised.value.unwritten == (1, 2)
    target.open.set()
    batches.start()
    await batches.put(3, "b")
    async with asyncio.timeout(4):
        await batches.flush()
    assert target.batches == [[3]]
    await batches.stop(5)


async def test_another_error_breaks_the_writer_and_everybody_hears_of_it() -> None:
    target = Target()
    target.failures = [StoreDamaged("r", "all of it")]
    batches = writer(target)
    batches.start()
    await batches.put(1)
    with pytest.raises(StoreDamaged):
        await batches.put(2, durable=True)
    for call in (batches.put(3), batches.flush()):
        with pytest.raises(StoreDamaged):
            await call
    with pytest.raises(WriterStopped) as raised:
        await batches.stop(5)
    assert raised.value.unwritten == (1, 2)
    assert isinstance(raised.value.__cause__, StoreDamaged)


async def test_a_batch_is_not_tried_for_ever() -> None:
    target = Target()
    target.failures = [StoreUnreadable("away")] * 10_000
    batches = writer(target, give_up_seconds=0.02)
    batches.start()
    with pytest.raises(StoreUnreadable, match="away"):
        await batches.put(1, durable=True)
    with pytest.raises(WriterStopped) as raised:
        await batches.stop(5)
    assert raised.value.unwritten == (1,)


async def test_who_adds_to_a_full_writer_waits_for_room() -> None:
    target = Target()
    target.open.clear()
    batches = writer(target, size=2, limit=2)
    batches.start()
    for value in (1, 2):
        await batches.put(value)
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    for value in (3, 4):
        await batches.put(value)
    late = asyncio.create_task(batches.put(5))
    await asyncio.sleep(0.01)
    assert not late.done()
    target.open.set()
    await late
    await batches.stop(5)
    assert [value for batch in target.batches for value in batch] == [1, 2, 3, 4, 5]


async def test_nobody_waits_for_room_beyond_the_bound() -> None:
    target = Target()
    target.open.clear()
    batches = writer(target, size=1, limit=1, wait_seconds=0.02)
    batches.start()
    await batches.put(1)
    await asyncio.sleep(0.01)
    await batches.put(2)
    with pytest.raises(WriterStopped) as raised:
        await batches.put(3)
    assert raised.value.unwritten == (1, 2)
    target.open.set()
    await batches.flush()
    await batches.put(4)  # nobody is in line any more
    await batches.stop(5)
    assert target.batches == [[1], [2], [4]]


async def test_a_full_writer_makes_room_though_a_batch_could_be_larger() -> None:
    target = Target()
    batches = writer(target, size=3, limit=2)
    batches.start()
    for value in range(5):
        await batches.put(value)
    assert target.batches == [[0, 1], [2, 3]]
    await batches.stop(5)
    assert target.batches == [[0, 1], [2, 3], [4]]


async def test_values_of_one_key_become_one() -> None:
    target = Target()
    batches = BatchWriter(target.write, name="test", size=3, interval=100, merge=lambda old, new: 10 * old + new)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        await batches.put(value, key)
    batches.start()
    await settled(target, 3)
    assert target.batches == [[13, 2, 4]]
    await batches.put(5, "a")
    await batches.flush()
    assert target.batches[1] == [5]
    assert (batches.stats.queued, batches.stats.processed, batches.stats.batches) == (5, 5, 2)
    await batches.stop(5)


def merging(target: Target, size: int = 2, limit: int = 2, wait_seconds: float = 5) -> BatchWriter[int]:
    return BatchWriter(
        target.write,
        name="test",
        size=size,
        interval=0,
        limit=limit,
        wait_seconds=wait_seconds,
        merge=lambda old, new: 10 * old + new,
    )


async def in_line(batches: BatchWriter[int], *values: tuple[int, str]) -> list[asyncio.Task[None]]:
    """Tasks that wait for room, in this order."""
    tasks = [asyncio.create_task(batches.put(value, key)) for value, key in values]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_values_of_one_key_that_wait_for_room_together_become_one_in_order() -> None:
    target = Target()
    target.open.clear()
    batches = merging(target)
    batches.start()
    for value, key in ((1, "a"), (2, "b")):
        await batches.put(value, key)
    await target.asked.wait()
    for value, key in ((3, "a"), (4, "b")):
        await batches.put(value, key)
    waiting = await in_line(batches, (5, "n"), (6, "c"), (7, "n"), (8, "d"), (9, "n"))
    target.open.set()
    await asyncio.gather(*waiting)
    await batches.stop(5)
    assert target.batches == [[1, 2], [3, 4], [579, 6], [8]]
    assert (batches.stats.queued, batches.stats.processed, batches.stats.batches) == (9, 9, 4)


async def test_who_calls_when_there_is_room_does_not_come_before_who_waited_for_it() -> None:
    target = Target()
    batches = merging(target, size=1, limit=1)
    await batches.put(1, "a")
    waiting = await in_line(batches, (2, "n"))

    async def write(values: Sequence[int]) -> None:
        target.batches.append(list(values))
        if values == [1]:  # there is room since a moment, and who waits for it has not run yet
            late.append(asyncio.create_task(batches.put(3, "n")))
            assert not waiting[0].done()
            await late[0]

    late: list[asyncio.Task[None]] = []
    batches._write = write
    batches.start()
    await asyncio.gather(*waiting)
    await batches.stop(5)
    assert target.batches == [[1], [23]]


async def test_who_waits_for_room_before_the_start_gets_it_after() -> None:
    target = Target()
    batches = merging(target, wait_seconds=1000)
    for value, key in ((1, "a"), (2, "b")):
        await batches.put(value, key)
    waiting = await in_line(batches, (3, "n"), (4, "n"))
    batches.start()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    await batches.stop(5)
    assert target.batches == [[1, 2], [34]]


async def test_who_gives_up_waiting_for_room_takes_its_value_along() -> None:
    target = Target()
    batches = merging(target, wait_seconds=1000)
    for value, key in ((1, "a"), (2, "b")):
        await batches.put(value, key)
    first, second, third = await in_line(batches, (3, "n"), (4, "n"), (5, "c"))
    for task in (first, third):
        task.cancel()
    batches.start()
    await second
    await batches.stop(5)
    assert (first.cancelled(), third.cancelled()) == (True, True)
    assert target.batches == [[1, 2], [4]]
    assert (batches.stats.queued, batches.stats.processed) == (3, 3)


async def test_who_waits_for_room_and_until_its_value_is_durable_hears_of_it() -> None:
    target = Target()
    batches = merging(target, size=1, limit=1)
    await batches.put(1, "a")
    waiting = asyncio.create_task(batches.put(2, "b", durable=True))
    await asyncio.sleep(0)
    batches.start()
    async with asyncio.timeout(5):
        await waiting
    assert target.batches == [[1], [2]]
    await batches.stop(5)


@pytest.mark.parametrize("broken", [False, True])
async def test_who_waits_for_room_hears_that_the_writer_ended(broken: bool) -> None:
    target = Target()
    target.failures = [StoreDamaged("r", "all of it")] if broken else []
    batches = merging(target)
    for value, key in ((1, "a"), (2, "b"), (3, "a")):
        await batches.put(value, key)
    (waiting,) = await in_line(batches, (4, "c"))
    target.open.clear()
    batches.start()
    await target.asked.wait()
    await waiting  # there was room
    await batches.put(5, "d")
    (waiting,) = await in_line(batches, (6, "e"))
    if broken:
        target.open.set()
        with pytest.raises(StoreDamaged):
            await waiting
    with pytest.raises(WriterStopped) as raised:
        await batches.stop(0.01)
    assert raised.value.unwritten == (13, 2, 4, 5)
    if not broken:
        with pytest.raises(WriterStopped, match="takes nothing more"):
            await waiting


async def test_what_a_stop_gave_up_breaks_no_writer_that_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GRACE_SECONDS", 0.01)
    target = Target()
    target.open.clear()
    batches = BatchWriter[int](lambda values: finish(target.write(values)), name="test", size=1, interval=100)
    batches.start()
    await batches.put(1)
    await target.asked.wait()
    with pytest.raises(WriterStopped):
        await batches.stop(0.01)
    batches.start()
    await batches.put(2)
    target.open.set()
    await settled(target, 2)
    await batches.put(3, durable=True)
    await batches.stop(5)
    assert sorted(target.batches) == [[1], [2], [3]]


async def test_who_waits_hears_that_the_task_of_the_writer_was_cancelled() -> None:
    target = Target()
    target.open.clear()
    batches = writer(target, limit=1)
    batches.start()
    waiting = [asyncio.create_task(batches.put(number, durable=True)) for number in range(3)]
    await target.asked.wait()
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "workflow-test")
    task.cancel()
    async with asyncio.timeout(4):
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [WriterStopped] * 3
        with pytest.raises(WriterStopped):
            await batches.put(4)
    with pytest.raises(WriterStopped) as caught:
        await batches.stop(1)
    assert caught.value.unwritten == (0, 1)


def test_a_writer_may_start_again_on_another_event_loop() -> None:
    target = Target()
    batches = merging(target)
    loops = [asyncio.new_event_loop() for _ in range(2)]
    for value, key in ((1, "a"), (2, "b")):
        loops[0].run_until_complete(batches.put(value, key))
    left = loops[0].create_task(batches.put(3, "c"))  # it never hears that its loop has ended
    loops[0].run_until_complete(asyncio.sleep(0))
    assert not left.done()

    async def again() -> None:
        batches.start()
        await batches.put(4, "d")
        await batches.stop(5)

    loops[1].run_until_complete(again())
    assert target.batches == [[1, 2], [4]]
    left.cancel()
    loops[0].run_until_complete(asyncio.wait((left,)))
    for loop in loops:
        loop.close()


def test_sizes_are_checked() -> None:
    for size, interval in ((0, 1.0), (float("nan"), 1.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(ValueError, match="size of 1 or more"):
            BatchWriter(Target().write, name="test", size=size, interval=interval)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="waits for room for 0 or more seconds, not nan"):
        BatchWriter(Target().write, name="test", size=1, interval=1.0, wait_seconds=float("nan"))
