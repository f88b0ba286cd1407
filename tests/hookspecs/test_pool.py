"""What plugins keep open between the runs of a runner: taken by one at a time, given back, and closed in the end."""

from __future__ import annotations

import asyncio
import os

import pytest

from hookspecs import ResourcePool
from hookspecs.pool import MOST_FREE, MOST_KEPT


class Resource:
    """Something that is open until it is closed once."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self._error = error

    async def close(self) -> None:
        """Close it."""
        self.closed += 1
        if self._error is not None:
            raise self._error


async def test_what_is_given_is_taken_once_and_the_last_first() -> None:
    pool, first, second = ResourcePool(), Resource(), Resource()
    assert pool.take("a") is None
    await pool.give("a", first)
    await pool.give("a", second)
    assert pool.take("b") is None
    assert [pool.take("a") for _ in range(3)] == [second, first, None]
    assert first.closed == second.closed == 0


async def test_only_so_many_are_kept() -> None:
    pool, resources = ResourcePool(), [Resource() for _ in range(MOST_FREE + 2)]
    for resource in resources:
        await pool.give("a", resource)
    assert [resource.closed for resource in resources] == [0] * MOST_FREE + [1, 1]
    await pool.give("b", other := Resource())
    assert other.closed == 0


async def test_of_many_keys_those_are_closed_that_nobody_used_for_long() -> None:
    pool, resources = ResourcePool(), [Resource() for _ in range(MOST_KEPT)]
    for key, resource in enumerate(resources):
        await pool.give(key, resource)
    assert not any(resource.closed for resource in resources)
    assert pool.take(0) is resources[0]
    await pool.give(0, resources[0])
    for name in ("a", "b"):
        await pool.give(name, Resource())
    assert [key for key, resource in enumerate(resources) if resource.closed] == [1, 2]
    assert pool.take(1) is None
    assert pool.take(0) is resources[0]


async def test_in_the_end_all_are_closed_and_so_is_what_comes_late() -> None:
    pool, error = ResourcePool(), OSError("it does not close")
    resources = [Resource(), Resource(error), Resource()]
    for key, resource in enumerate(resources):
        await pool.give(key, resource)
    with pytest.raises(ExceptionGroup) as caught:
        await pool.close()
    assert caught.value.exceptions == (error,)
    await pool.give(0, late := Resource())
    assert pool.take(0) is None
    assert [resource.closed for resource in (*resources, late)] == [1, 1, 1, 1]
    await pool.close()


@pytest.mark.parametrize("error", [None, OSError("it does not close")], ids=["all close", "one does not"])
async def test_who_is_cancelled_while_it_closes_has_closed_all(error: Exception | None) -> None:
    class Slow(Resource):
        async def close(self) -> None:
            await asyncio.sleep(0.01)
            await super().close()

    pool, resources = ResourcePool(), [Slow(), Slow(error), Slow()]
    for resource in resources:
        await pool.give("a", resource)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await closing
    assert [resource.closed for resource in resources] == [1, 1, 1]
    assert isinstance(caught.value.__cause__, ExceptionGroup) is (error is not None)


async def test_another_event_loop_gets_nothing_and_keeps_nothing() -> None:
    pool, ours, theirs = ResourcePool(), Resource(), Resource()
    await pool.give("a", ours)

    async def elsewhere() -> None:
        assert pool.take("a") is None
        await pool.give("a", theirs)

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert theirs.closed == 1
    assert pool.take("a") is ours


async def test_a_forked_process_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ResourcePool()
    await pool.give("a", Resource())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert pool.take("a") is None
