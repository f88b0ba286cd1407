"""`workflow prune`, `fork` and `db rotate-key`, killed anywhere: what was kept restores, and the next does what is left."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import KeyMissing
from checkpoint_plugin.models import RUN_KEY
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from checkpoint_plugin.tables.definition import Definition
from hookspecs import NodeSnapshot, Snapshot
from tests.sigkill.commander import Commander
from tests.sigkill.nursery import KILLED

RUNS = [f"run {number}" for number in range(6)]
KEPT = 3
NEW_CHECKPOINTS = 5
SLICES = 4
"""The moments of the kills are spread over so many parts of the time that the command takes."""


@pytest.fixture
def commander(tmp_path: Path) -> Iterator[Commander]:
    with Commander(tmp_path / "messages") as found:
        yield found


@pytest.fixture
def turns(pytestconfig: pytest.Config) -> int:
    return max(int(pytestconfig.getoption("--killed-runs")) // 3, 2)


def nodes_at(run_id: str, number: int) -> dict[str, object]:
    """What each node of a run has saved in a checkpoint: a value that is new, one that stays for some time, one that grows."""
    return {
        "grows": [f"line {line} of {run_id}: " + "word " * 20 for line in range(number)],
        "new": Random(f"{run_id} {number}").randbytes(3_000),
        "stays": Random(f"{run_id} of {number // 4}").randbytes(5_000),
    }


async def save_some(store: Store, history: RunHistory, count: int) -> None:
    for _ in range(count):
        states = nodes_at(history.run_id, history.number + 1)
        nodes = tuple(NodeSnapshot(node_id, "running", state=state) for node_id, state in states.items())
        await store.save(history, Snapshot(history.run_id, 1, "running", nodes, datetime.now(UTC)), "test")


async def new_runs(store: Store) -> list[RunHistory]:
    body = encode({"graph": {"nodes": [], "edges": []}, "inputs": {}, "enable": {}}, str)
    for run_id in RUNS:
        await store.insert_job(run_id, Definition(body, "{}", "{}"))
    return [RunHistory(run_id, 1, 1) for run_id in RUNS]


async def read_numbers(store: Store, run_id: str) -> list[int]:
    """The checkpoints of a run; each is as it was saved."""
    numbers = [row.number for row in await store.checkpoints(run_id)]
    for number in numbers:
        found = await store.restore(RunHistory(run_id, 1, 1), number)
        assert found is not None
        assert {node.node_id: node.state for node in found.nodes} == nodes_at(run_id, number)
    return numbers


class Reaper:
    """Kills a command, in turn, at a certain step of its work and in each part of the time that it takes, as far as it is known.

    Args:
        commander: runs it.
        command: the command line.
        steps: functions that it calls for each run.
        more: how it is run.
    """

    def __init__(self, commander: Commander, command: Sequence[str], steps: Sequence[str], **more: Any) -> None:
        self._commander = commander
        self._command = command
        self._steps = steps
        self._more = more
        self._random = Random(0)
        self._seconds = 0.0
        self.kills = 0

    def run(self, turn: int, **more: Any) -> bool:
        """Whether it came to its end."""
        part, timed = divmod(turn, 2)
        if timed:
            more["kill_after_seconds"] = self._seconds * (part % SLICES + self._random.random()) / SLICES
        else:
            more["kill_at"] = self._steps[part % len(self._steps)], 2 + part % (len(RUNS) - 1)
        code = self._commander.run(self._command, **self._more, **more)
        assert code == KILLED or (timed and code == 0)
        self.kills += code == KILLED
        return code == 0

    def finish(self, **more: Any) -> None:
        """Run it to its end."""
        begun = time.monotonic()
        assert self._commander.run(self._command, **self._more, **more) == 0
        self._seconds = time.monotonic() - begun


async def test_prune_killed_anywhere(store_url: str, commander: Commander, turns: int) -> None:
    steps = [f"checkpoint_plugin.space.pruning:{name}" for name in ("prune_run", "_delete_rows", "_delete_payloads", "_pruned")]
    reaper = Reaper(commander, ("prune", "--keep-last", str(KEPT), "--url", store_url, "--quiet"), steps)
    store = Store(locate(store_url), create=True)
    histories = await new_runs(store)
    half = 0
    for turn in range(turns):
        for history in histories:
            await save_some(store, history, NEW_CHECKPOINTS)
        finished = reaper.run(turn)
        found = [await read_numbers(store, run_id) for run_id in RUNS]
        for history, numbers in zip(histories, found, strict=True):
            assert numbers[-KEPT:] == list(range(history.number - KEPT + 1, history.number + 1))
            assert not finished or len(numbers) == KEPT
        half += len({len(numbers) for numbers in found}) > 1
        if turn % 2 == 0:
            reaper.finish()
            assert [len(await read_numbers(store, run_id)) for run_id in RUNS] == [KEPT] * len(RUNS)
    await store.close()
    assert reaper.kills >= turns // 2
    assert half


async def test_rotate_key_killed_anywhere(store_url: str, commander: Commander, turns: int) -> None:
    steps = ["checkpoint_plugin.stored_bytes.encryption:KeyRing.rewrap"]
    each = {"checkpoint_plugin.runs.key_rotation:BATCH": 1}
    reaper = Reaper(commander, ("db", "rotate-key", "--url", store_url, "--quiet"), steps, patches=each)
    old, new = bytes(32), bytes(range(32))
    store = Store(locate(store_url), create=True, ring=KeyRing((old,)))
    for history in await new_runs(store):
        await save_some(store, history, 2)
    await store.close()
    half = 0
    for turn in range(turns):
        environment = {"WORKFLOW_CHECKPOINT_KEY": ",".join(base64.b64encode(key).decode() for key in (new, old))}
        reaper.run(turn, environment=environment)
        half += len(await key_ids(store_url, new, old)) > 1
        reaper.finish(environment=environment)
        assert len(await key_ids(store_url, new)) == 1
        with pytest.raises(KeyMissing):
            await key_ids(store_url, old)
        old, new = new, Random(turn).randbytes(32)
    assert reaper.kills >= turns // 2
    assert half


async def test_fork_killed_anywhere(store_url: str, commander: Commander, turns: int) -> None:
    """Either there is no other run, or it has its checkpoint."""
    before = ["saving.cut_encoder:CutEncoder.encode", "runs.forking:make_run", "saving.writing:CutWriter.write"]
    kills: list[dict[str, Any]] = [{"kill_at": (f"checkpoint_plugin.{step}", 1)} for step in before]
    kills.append({"kill_at": ("checkpoint_plugin.tables.keys:RunKeys.remember", 2)})  # after that of the run itself
    kills += [{"kill_after_seconds": None}] * (turns // 2)
    store = Store(locate(store_url), create=True)
    history, *_ = await new_runs(store)
    await save_some(store, history, 3)
    random, seconds = Random(0), 0.0
    for number, kill in enumerate(kills):
        new_id = f"fork {number}"
        command = ("fork", history.run_id, new_id, "--checkpoint", "2", "--url", store_url, "--quiet")
        timed = "kill_at" not in kill
        code = commander.run(command, **({"kill_after_seconds": seconds * random.random()} if timed else kill))
        assert code == KILLED or (timed and code == 0)
        is_there = new_id in {row.id for row in await store.jobs()}
        assert timed or is_there == (number >= len(before)), kill
        if not is_there:
            begun = time.monotonic()
            assert commander.run(command) == 0
            seconds = time.monotonic() - begun
        found = await store.restore(RunHistory(new_id, 1), None)
        assert found is not None
        assert {node.node_id: node.state for node in found.nodes} == nodes_at(history.run_id, 2)
    await store.close()


async def key_ids(url: str, *keys: bytes) -> set[str]:
    """The master keys of the runs, each of which can be restored with these."""
    store = Store(locate(url), create=False, ring=KeyRing(keys))
    try:
        assert [await read_numbers(store, run_id) for run_id in RUNS] == [[1, 2]] * len(RUNS)
        return set(await store.transact(lambda c: c.execute(select(RUN_KEY.c.key_id)).scalars().all(), write=False))
    finally:
        await store.close()
