"""What must be there when the power went in the middle of a piece of work."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final

from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.store import RunHistory
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from hookspecs import RunExists
from tests.checkpoint_plugin.test_store import definition
from tests.power.disk import Disk
from tests.power.trace import Acknowledged
from tests.power.work import CHECKPOINT, FINISHED, NOTES, ROTATED, RUN_ID, Recording, opened

__all__ = ["cut_power"]

SOME: Final = 3
"""So many of the older checkpoints are restored, and …"""
OFTEN: Final = 0.25
"""… so often everything is looked at."""
SHOWN: Final = 8


async def cut_power(recording: Recording, folder: Path, moments: Iterable[int], seed: int) -> None:
    """Cut the power at some moments, and look each time what is left.

    Args:
        recording: what was going on.
        folder: where the disks are built.
        moments: positions of the trace, in order.
        seed: of what the disk keeps.

    Raises:
        AssertionError: something that was acknowledged is lost, something else than what was written is there, or the store
            does not open; tells the seed and the moment, and comes from what was found.
    """
    disk = Disk(recording.trace)
    operations = recording.trace.operations
    for number, moment in enumerate(moments):
        disk.follow(moment)
        random = Random(f"{seed} {number}")
        root = folder / "after"
        disk.cut(random).write(recording.trace.root, root)
        try:
            await _check(root, recording.acknowledged(moment), recording, random)
        except Exception as error:
            before = [repr(operation)[:100] for operation in operations[max(moment - SHOWN, 0) : moment]]
            raise AssertionError(f"seed {seed}, cut {number} at {moment} of {len(operations)}, after {before}") from error
        shutil.rmtree(root)


async def _check(root: Path, told: list[Acknowledged], recording: Recording, random: Random) -> None:
    if not told:
        await _begin_anew(root)
        return
    ring = recording.keys[any(found.what == ROTATED for found in told)]
    if recording.look is not None:
        await recording.look(root, told)
    else:
        await _compare(root, told, recording, ring, random)
    if random.random() < OFTEN:
        async with opened(root, ring=ring) as store:
            report = await check_store(store, witness=root / NOTES if recording.noted else None)
        assert not report.all_findings


async def _compare(root: Path, told: list[Acknowledged], recording: Recording, ring: KeyRing | None, random: Random) -> None:
    newest = max((found.number for found in told if found.what == CHECKPOINT), default=0)
    async with opened(root, ring=ring, noted=recording.noted) as store:
        status = (await store.job(RUN_ID)).status
        numbers = [row.number for row in await store.checkpoints(RUN_ID)]
        assert max(numbers, default=0) >= newest, f"checkpoint {newest} was acknowledged; there are {numbers}"
        for number in (None, *random.sample(numbers, min(SOME, len(numbers)))):
            history = RunHistory(RUN_ID, 1, 1)
            cut = await store.restore(history, number)
            assert history.number == (number or max(numbers, default=0))
            assert cut == recording.cuts.get(history.number), f"checkpoint {history.number} is not as it was"
    assert not any(one.what == FINISHED for one in told) or status == "completed"


async def _begin_anew(root: Path) -> None:
    """Nothing was acknowledged, so there may be anything: a run is started as if nothing had been."""
    async with opened(root, create=True) as store:
        try:
            await store.insert_job(RUN_ID, definition())
        except RunExists:
            return
        assert await store.restore(RunHistory(RUN_ID, 1, 1), None) is None
