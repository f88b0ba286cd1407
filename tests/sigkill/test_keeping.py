"""Processes that save, prune and rotate keys at once, and are killed meanwhile: what is kept restores, and nothing dangles."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from sqlalchemy import select

from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.models import RUN_KEY
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.key_rotation import rotate_keys
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from tests.sigkill.keeper import KEYS, RUN, make_run, open_store, ring, save_steps, states_at

LIMIT_SECONDS = 120


@contextmanager
def keeper(verb: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process, ready, which is gone at the end."""
    command = [sys.executable, "-m", "tests.sigkill.keeper", verb, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def opened(url: str, *keys: bytes) -> AsyncIterator[Store]:
    """A store that is closed at the end."""
    store = open_store(url, *keys)
    try:
        yield store
    finally:
        await store.close()


def lines(process: subprocess.Popen[str]) -> list[str]:
    """What it has told, to its end."""
    told, _ = process.communicate(timeout=LIMIT_SECONDS)
    return told.split()


async def begin(url: str, steps: int) -> None:
    store = open_store(url, create=True)
    await save_steps(store, await make_run(store), steps)
    await store.close()


async def check(store: Store, run_id: str = RUN) -> list[int]:
    """Nothing is damaged, nothing is mentioned that is not there, and every checkpoint is what it was; their numbers."""
    report = await check_store(store, [run_id])
    assert list(report.all_findings) == []
    assert list(report.unverified) == []
    numbers = [row.number for row in await store.checkpoints(run_id)]
    for number in numbers:
        found = await store.restore(RunHistory(run_id, 1, 1), number)
        assert found is not None
        assert {node.node_id: node.state for node in found.nodes} == {**states_at(number), "stays": stays_at(number)}
    return numbers


def stays_at(step: int) -> object:
    """What the node that stays was last saved as."""
    while not (step % 5 in (0, 1) or step < 3):
        step -= 1
    return states_at(step)["stays"]


def test_processes_that_save_and_prune_at_once(store_url: str, pytestconfig: pytest.Config) -> None:
    last = 10 + 10 * pytestconfig.getoption("--race-rounds")
    asyncio.run(begin(store_url, 3))
    with (
        keeper("prune", store_url) as pruner,
        keeper("prune", store_url) as another,
        keeper("save", store_url, str(last)) as saver,
    ):
        assert lines(saver)[-1:] == [str(last)]
        assert saver.returncode == 0
        for process in (pruner, another):
            process.kill()
        pruned = len(lines(pruner)) + len(lines(another))

    async def look() -> None:
        async with opened(store_url) as store:
            numbers = await check(store)
        assert numbers[-1] == last
        assert len(numbers) < last

    asyncio.run(look())
    assert pruned > 2


def test_killed_while_it_prunes(store_url: str, pytestconfig: pytest.Config) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    dice = random.Random(seed)
    asyncio.run(begin(store_url, 3))
    for number in range(max(3, pytestconfig.getoption("--killed-runs") // 8)):
        last = 3 + 15 * (number + 1)
        with keeper("prune", store_url) as pruner, keeper("save", store_url, str(last)) as saver:
            time.sleep(dice.uniform(0.01, 0.4))
            pruner.kill()
            assert pruner.wait() == -signal.SIGKILL
            assert lines(saver)[-1:] == [str(last)], f"seed {seed}"
            assert saver.returncode == 0

        async def look(last: int = last) -> None:
            async with opened(store_url) as store:
                kept = await check(store)
                assert kept[-1] == last, f"seed {seed}"
                await prune_runs(store, Retention(keep_last=2), [RUN])
                assert await check(store) == kept[-2:], f"seed {seed}"

        asyncio.run(look())


def test_killed_while_it_rotates_keys(store_url: str, pytestconfig: pytest.Config) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    dice = random.Random(seed)
    run_ids = [f"run {number}" for number in range(12)]

    async def begin_runs() -> None:
        store = open_store(store_url, KEYS[0], create=True)
        for run_id in run_ids:
            await save_steps(store, await make_run(store, run_id), 2)
        await store.close()

    async def look(*keys: bytes) -> None:
        async with opened(store_url, *keys) as store:
            for run_id in run_ids:
                assert await check(store, run_id) == [1, 2], f"seed {seed}"

    async def finish() -> set[str]:
        async with opened(store_url, *KEYS) as store:
            await rotate_keys(store, ring(*KEYS))
            return await store.transact(lambda c: set(c.execute(select(RUN_KEY.c.key_id)).scalars()), write=False)

    asyncio.run(begin_runs())
    for _ in range(max(3, pytestconfig.getoption("--killed-runs") // 8)):
        with keeper("rotate", store_url) as rotator:
            time.sleep(dice.uniform(0.005, 0.15))
            rotator.kill()
            assert rotator.wait() == -signal.SIGKILL
        asyncio.run(look(*KEYS))
    assert len(asyncio.run(finish())) == 1
    asyncio.run(look(KEYS[0]))
