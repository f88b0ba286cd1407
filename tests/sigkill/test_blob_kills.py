"""Killed while it writes, syncs, mentions or deletes files, a run restores what was kept, and the rest is swept."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from checkpoint_plugin.models import PAYLOAD
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.space.sweep import sweep_blobs
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import Snapshot
from tests.sigkill.blob_writer import KEEPS, RUN, states_at, store_with_files

LIMIT_SECONDS = 60
MOMENTS = ("write", "settle", "remove")


@dataclass
class Shelf:
    """A store and the folder of its files."""

    url: str
    option: str
    folder: Path

    @property
    def files(self) -> set[str]:
        """The names of all files that are there."""
        return {path.name for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def shelf(store_url: str, tmp_path: Path) -> Shelf:
    """Beside a SQLite database, or under a url for PostgreSQL."""
    if store_url.startswith("sqlite"):
        return Shelf(store_url, "true", Path(f"{store_url.removeprefix('sqlite:///')}.blobs"))
    return Shelf(store_url, f"file://{tmp_path}/kept", tmp_path / "kept")


def live(shelf: Shelf, moment: str, die: Callable[[subprocess.Popen[str]], None]) -> int:
    """One life of a writer; the last step that it told to be durable."""
    command = [sys.executable, "-m", "tests.sigkill.blob_writer", shelf.url, shelf.option, moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        die(process)
        told, _ = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == -signal.SIGKILL
    return int(told.split()[-1]) if told.split() else 0


def step_of(found: Snapshot) -> int:
    """The step of a checkpoint, all of whose values are those of that step."""
    states = {node.node_id: node.state for node in found.nodes}
    assert states == states_at(states["step"])
    return int(states["step"])


async def check(store: Store, told: int) -> int:
    """Every checkpoint that is there restores; the newest is what was told to be durable, or the one after it."""
    steps = []
    for row in await store.checkpoints(RUN):
        found = await store.restore(RunHistory(RUN, 1), row.number)
        assert found is not None
        steps.append(step_of(found))
    assert steps == sorted(steps)
    assert steps[-1:] in ([told], [told + 1]) or (not steps and not told)
    return steps[-1] if steps else 0


async def check_swept(shelf: Shelf, store: Store) -> int:
    """After a prune and a sweep exactly what rows mention is there; how many files went."""
    await prune_runs(store, KEEPS, [RUN])
    swept = await sweep_blobs(store, age=0)
    names = await store.transact(lambda c: list(c.execute(select(PAYLOAD.c.blob)).scalars()), write=False)
    assert shelf.files == {name.rpartition("/")[2] for name in names if name is not None}
    return swept.files


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_at_a_certain_moment(shelf: Shelf, moment: str) -> None:
    done = 0
    for _ in range(2):
        done = max(done, live(shelf, moment, lambda process: None))
        store = store_with_files(shelf.url, shelf.option)
        done = await check(store, done)
        assert await check_swept(shelf, store) > 0  # half a file, files that nobody mentions, or those of rows that are gone
        await store.close()
    assert done > 0


async def test_killed_at_any_moment(shelf: Shelf, pytestconfig: pytest.Config) -> None:
    rounds = max(3, pytestconfig.getoption("--killed-runs") // 4)
    dice, done, number = random.Random(7), 0, 0

    def die(process: subprocess.Popen[str]) -> None:
        time.sleep(dice.uniform(0.02, 0.6) * (1 + number // rounds))
        process.kill()

    while number < rounds or (done <= rounds and number < 5 * rounds):  # on a busy machine lives are short
        done = max(done, live(shelf, "any", die))
        store = store_with_files(shelf.url, shelf.option)
        done = await check(store, done)
        if number % 2:
            await check_swept(shelf, store)
        await store.close()
        number += 1
    assert done > rounds
