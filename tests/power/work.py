"""Pieces of work on a SQLite store, as they are recorded."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.opening.witness import Witness
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.key_rotation import rotate_keys
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from hookspecs import CheckpointRef, PluginHost, RunInfo, Snapshot, hookimpl
from tests.checkpoint_plugin.test_migrations import make_older
from tests.power import nodes
from tests.power.calls import recorded_calls
from tests.power.library import recorded_library
from tests.power.trace import Acknowledged, Created, Trace, Written
from workflow_runner import WorkflowRunner

__all__ = [
    "CHECKPOINT",
    "FINISHED",
    "NOTES",
    "ROTATED",
    "RUN_ID",
    "STARTED",
    "WORK",
    "Recording",
    "Work",
    "creating",
    "finish",
    "opened",
    "record",
    "resuming",
    "saving",
    "saving_files",
    "saving_little",
    "url_of",
]

RUN_ID: Final = "r"
STARTED: Final = "started"
CHECKPOINT: Final = "checkpoint"
FINISHED: Final = "finished"
ROTATED: Final = "rotated"
STORE: Final = Path("new", "folder", "store.db")
"""In folders that are made for it: their names must be on the disk, too."""
NOTES: Final = Path("notes", "of", "witness")
KEEP: Final = 3
KEY: Final = "WORKFLOW_CHECKPOINT_KEY"
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
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


@dataclass
class Recording:
    """What was recorded of a piece of work.

    Args:
        trace: everything that was written.
        first: the power is cut from this position on.
        known: what had been acknowledged before the recording began.
        cuts: what each checkpoint holds, by its number.
        keys: the master keys of the run before they are rotated, and after.
        noted: a witness is kept.
        look: compares, instead of the checkpoints of a runner's run.
    """

    trace: Trace
    first: int = 0
    known: list[Acknowledged] = field(default_factory=list)
    cuts: dict[int, Snapshot] = field(default_factory=dict)
    keys: tuple[KeyRing | None, KeyRing | None] = (None, None)
    noted: bool = False
    look: Callable[[Path, list[Acknowledged]], Awaitable[None]] | None = None

    def acknowledged(self, position: int) -> list[Acknowledged]:
        """What the program had been told when the power went."""
        return self.known + [found for found in self.trace.operations[:position] if isinstance(found, Acknowledged)]


Work: TypeAlias = Callable[[Recording], Awaitable[None]]


class Listener:
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


def url_of(root: Path) -> str:
    """The store below a folder."""
    return f"sqlite:///{root / STORE}"


@asynccontextmanager
async def opened(root: Path, *, create: bool = False, ring: KeyRing | None = None, noted: bool = False) -> AsyncIterator[Store]:
    """The store below a folder."""
    witness = Witness(root / NOTES) if noted else None
    store = Store(locate(url_of(root)), create=create, ring=ring, witness=witness)
    try:
        yield store
    finally:
        await store.close()


async def run(recording: Recording, n: int, **options: Any) -> None:
    """Run the workflow, and say what it acknowledges; then read every checkpoint."""
    trace = recording.trace
    runner = WorkflowRunner(plugins=PluginHost().register(Listener(trace), "listener"), nodes=[nodes])
    enable = {"checkpoint": {"every_firing": True, **options, "url": url_of(trace.root)}}
    result = await runner.run(GRAPH, {"n": n}, enable=enable, run_id=RUN_ID)
    assert result.outputs == {"counts": list(range(1, n + 1))}
    trace.acknowledge(FINISHED)
    await read_cuts(recording)


async def read_cuts(recording: Recording) -> None:
    """Restore every checkpoint of the run."""
    async with opened(recording.trace.root, ring=recording.keys[0]) as store:
        for row in await store.checkpoints(RUN_ID):
            snapshot = await store.restore(RunHistory(RUN_ID, 1, 1), row.number)
            assert snapshot is not None
            recording.cuts[row.number] = snapshot


async def finish(root: Path, trace: Trace | None = None) -> list[int]:
    """Take the run over and bring it to its end; what it counted."""
    host = PluginHost() if trace is None else PluginHost().register(Listener(trace), "listener")
    result = await WorkflowRunner(plugins=host, nodes=[nodes]).resume(RUN_ID, url=url_of(root), steal=True)
    if trace is not None:
        trace.acknowledge(FINISHED)
    counts: list[int] = result.outputs["counts"]
    return counts


async def creating(recording: Recording) -> None:
    """A store is made, and a short run saves some times, with a witness."""
    recording.noted = True
    await run(recording, 1, witness=str(recording.trace.root / NOTES))


async def saving(recording: Recording) -> None:
    """A run saves each firing, and waits for it; the log is moved into the database."""
    await run(recording, 60)
    assert _moves(recording)


async def saving_little(recording: Recording) -> None:
    """A shorter one, to go on with."""
    await run(recording, 6)


async def saving_behind(recording: Recording) -> None:
    """The same, but nobody waits more than for three checkpoints."""
    await run(recording, 150, durability="async", max_lag_steps=3)
    assert _moves(recording)


async def saving_files(recording: Recording) -> None:
    """Large values become files beside the database."""
    await run(recording, 8, blobs=True, blob_bytes=4_096)
    folder = (recording.trace.root / STORE).with_name(f"{STORE.name}.blobs")
    assert any(path.is_file() for path in folder.rglob("*")), "no value became a file"


async def upgrading(recording: Recording) -> None:
    """A store of an older layout is opened, and so upgraded."""
    root = recording.trace.root
    await run(recording, 3)
    async with opened(root) as store:
        await store.transact(make_older)
    recording.first = recording.trace.position
    async with opened(root) as store:
        await store.job(RUN_ID)


async def pruning(recording: Recording) -> None:
    """Of a long run most checkpoints are deleted, and the space is given back."""
    await run(recording, 25)
    file = recording.trace.root / STORE
    size = file.stat().st_size
    await _prune(recording)
    assert file.stat().st_size < size, "no space was given back"


async def pruning_files(recording: Recording) -> None:
    """Of a run with files the same."""
    await run(recording, 8, blobs=True, blob_bytes=4_096)
    await _prune(recording)


def _moves(recording: Recording) -> bool:
    """Whether the log was moved into the database while the run was going on: the file is written at no other time."""
    operations = recording.trace.operations
    path = recording.trace.root / STORE
    file = next(found.file for found in operations if isinstance(found, Created) and found.path == path)
    going_on = operations[operations.index(Acknowledged(STARTED, 0)) : operations.index(Acknowledged(FINISHED, 0))]
    return any(isinstance(found, Written) and found.file == file for found in going_on)


async def _prune(recording: Recording) -> None:
    recording.first = recording.trace.position
    async with opened(recording.trace.root) as store:
        assert await prune_runs(store, Retention(keep_last=KEEP))


async def rotating(recording: Recording) -> None:
    """The keys of an encrypted run are wrapped by another master key."""
    recording.keys = KeyRing((OLD,)), KeyRing((NEW,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, base64.b64encode(OLD).decode())
        await run(recording, 3)
    recording.first = recording.trace.position
    ring = KeyRing((NEW, OLD))
    async with opened(recording.trace.root, ring=ring) as store:
        assert await rotate_keys(store, ring) == (1, 0)
    recording.trace.acknowledge(ROTATED)
    recording.keys = ring, KeyRing((NEW,))


async def resuming(recording: Recording) -> None:
    """What is left after a power cut is brought to its end."""
    counts = await finish(recording.trace.root, recording.trace)
    assert counts == list(range(1, len(counts) + 1))
    await read_cuts(recording)


WORK: Final[Sequence[Work]] = (creating, saving, saving_behind, saving_files, upgrading, pruning, pruning_files, rotating)


async def record(root: Path, work: Work, known: list[Acknowledged] | None = None) -> Recording:
    """Do a piece of work, and record it.

    Args:
        root: a folder; what is in it is durable.
        work: what is done.
        known: what had been acknowledged before.
    """
    trace = Trace(root)
    recording = Recording(trace, known=known or [])
    with recorded_library(trace), recorded_calls(trace):
        await work(recording)
    return recording
