"""Pieces of work on a SQLite store, as they are recorded, and what must be there when the power went in the middle of one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from checkpoint_plugin.location import locate
from checkpoint_plugin.pruning import prune_runs
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import CheckpointRef, PluginHost, RunExists, RunInfo, Snapshot, hookimpl
from tests.checkpoint_plugin.test_migrations import make_older
from tests.checkpoint_plugin.test_store import definition
from tests.power import nodes
from tests.power.calls import recorded_calls
from tests.power.library import recorded_library
from tests.power.trace import Acknowledged, Trace
from workflow_runner import Result, WorkflowRunner

__all__ = ["RUN_ID", "WORK", "Recording", "check", "record", "url_of"]

RUN_ID: Final = "r"
STARTED: Final = "started"
CHECKPOINT: Final = "checkpoint"
FINISHED: Final = "finished"
STORE: Final = Path("new", "folder", "store.db")
"""In folders that are made for it: their names must be on the disk, too."""
KEEP: Final = 3
SOME: Final = 3


@dataclass
class Recording:
    """What was recorded of a piece of work.

    Args:
        trace: everything that was written.
        first: the power is cut from this position on.
        cuts: what each checkpoint holds, by its number.
    """

    trace: Trace
    first: int = 0
    cuts: dict[int, Snapshot] = field(default_factory=dict)

    def acknowledged(self, position: int) -> list[Acknowledged]:
        """What the program had been told when the power went."""
        return [found for found in self.trace.operations[:position] if isinstance(found, Acknowledged)]


class Witness:
    """Hears of durable checkpoints as every plugin can."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    @hookimpl(trylast=True)
    async def before_run(self, run: RunInfo) -> None:
        """The run's row is durable before any node fires."""
        self._trace.acknowledge(STARTED)

    @hookimpl
    async def checkpoint_saved(self, run: RunInfo, ref: CheckpointRef) -> None:
        """This checkpoint is durable."""
        self._trace.acknowledge(CHECKPOINT, ref.number)


GRAPH: Final[Mapping[str, Any]] = {
    "nodes": [
        {"id": "n", "type": "workflow.Input", "data": {"name": "n"}},
        {"id": "blobs", "type": f"{nodes.__name__}.blobs", "data": {"size": 20_000}},
        {"id": "pair", "type": f"{nodes.__name__}.pair", "data": {}},
        {"id": "joined", "type": f"{nodes.__name__}.joined", "data": {}},
        {"id": "out", "type": "workflow.Output", "data": {"name": "counts"}},
    ],
    "edges": [
        {"source": "n", "target": "blobs", "targetHandle": "n"},
        {"source": "blobs", "target": "pair", "targetHandle": "value"},
        {"source": "pair", "target": "joined", "targetHandle": "values"},
        {"source": "joined", "target": "out", "targetHandle": "value"},
    ],
}


def url_of(root: Path) -> str:
    """The store below a folder."""
    return f"sqlite:///{root / STORE}"


async def run(trace: Trace, n: int, **options: Any) -> Result:
    """Run the workflow, and say what it acknowledges."""
    host = PluginHost().register(Witness(trace), "witness")
    runner = WorkflowRunner(plugins=host, nodes=[nodes])
    enable = {"checkpoint": {**options, "url": url_of(trace.root)}}
    result = await runner.run(GRAPH, {"n": n}, enable=enable, run_id=RUN_ID)
    trace.acknowledge(FINISHED)
    return result


@asynccontextmanager
async def opened(root: Path, *, create: bool = False) -> AsyncIterator[Store]:
    """The store below a folder."""
    store = Store(locate(url_of(root)), create=create)
    try:
        yield store
    finally:
        await store.close()


async def cuts_of(root: Path) -> dict[int, Snapshot]:
    """Every checkpoint of the run, restored."""
    found: dict[int, Snapshot] = {}
    async with opened(root) as store:
        for row in await store.checkpoints(RUN_ID):
            snapshot = await store.restore(RunHistory(RUN_ID, 1, 1), row.number)
            assert snapshot is not None
            found[row.number] = snapshot
    return found


async def creating(trace: Trace, recording: Recording) -> None:
    """A store is made, and a short run saves three times."""
    await run(trace, 1, every_firing=True)
    recording.cuts = await cuts_of(trace.root)


async def saving(trace: Trace, recording: Recording) -> None:
    """A run saves each firing, and waits for it; the log is moved into the database more than once."""
    await run(trace, 60, every_firing=True)
    recording.cuts = await cuts_of(trace.root)


async def saving_behind(trace: Trace, recording: Recording) -> None:
    """The same, but nobody waits."""
    await run(trace, 60, every_firing=True, durability="async")
    recording.cuts = await cuts_of(trace.root)


async def upgrading(trace: Trace, recording: Recording) -> None:
    """A store of an older layout is opened, upgraded, and written to."""
    await run(trace, 3, every_firing=True)
    recording.cuts = await cuts_of(trace.root)
    async with opened(trace.root) as store:
        await store.transact(make_older)
    recording.first = trace.position
    async with opened(trace.root) as store:
        await store.job(RUN_ID)


async def pruning(trace: Trace, recording: Recording) -> None:
    """Of a long run most checkpoints are pruned, and the space is given back; then it is saved by hand."""
    await run(trace, 25, every_firing=True)
    recording.cuts = await cuts_of(trace.root)
    recording.first = trace.position
    async with opened(trace.root) as store:
        size = (trace.root / STORE).stat().st_size
        await prune_runs(store, Retention(keep_last=KEEP))
        assert (trace.root / STORE).stat().st_size < size, "no space was given back"


WORK: Final[Mapping[str, Callable[[Trace, Recording], Awaitable[None]]]] = {
    work.__name__: work for work in (creating, saving, saving_behind, upgrading, pruning)
}


async def record(root: Path, work: Callable[[Trace, Recording], Awaitable[None]]) -> Recording:
    """Do a piece of work, and record it.

    Args:
        root: a new, empty folder.
        work: what is done.
    """
    trace = Trace(root)
    recording = Recording(trace)
    with recorded_library(trace), recorded_calls(trace):
        await work(trace, recording)
    return recording


async def check(root: Path, told: list[Acknowledged], recording: Recording, random: Random) -> None:
    """Go on after a power cut, and compare.

    Args:
        root: what the disk has kept.
        told: what had been acknowledged.
        recording: what was going on.
        random: chooses which of the older checkpoints are looked at.

    Raises:
        AssertionError: something that was acknowledged is lost, something else than what was written is there, or the
            store does not open.
    """
    newest = max((found.number for found in told if found.what == CHECKPOINT), default=0)
    if not told:
        await _begin_anew(root)
        return
    async with opened(root) as store:
        status = (await store.job(RUN_ID)).status
        numbers = [row.number for row in await store.checkpoints(RUN_ID)]
        assert max(numbers, default=0) >= newest, f"checkpoint {newest} was acknowledged; there are {numbers}"
        for number in (None, *random.sample(numbers, min(SOME, len(numbers)))):
            history = RunHistory(RUN_ID, 1, 1)
            cut = await store.restore(history, number)
            assert history.number == (number or max(numbers, default=0))
            assert cut == recording.cuts.get(history.number), f"checkpoint {history.number} is not as it was"
    assert not any(one.what == FINISHED for one in told) or status == "completed"
    with sqlite3.connect(root / STORE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def _begin_anew(root: Path) -> None:
    """Nothing was acknowledged, so there may be anything: a run is started as if nothing had been."""
    async with opened(root, create=True) as store:
        try:
            await store.insert_job(RUN_ID, definition())
        except RunExists:
            return
        history = RunHistory(RUN_ID, 1, 1)
        assert await store.restore(history, None) is None
