"""`workflow db size`: what takes the space, by run and node."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import event, text

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.cli.db import db
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.space.size import PARTS, RunSize, StoreSize, measure_store
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import Definition
from hookspecs import NodeSnapshot, RunNotFound, Snapshot

AT = datetime(2026, 1, 2, tzinfo=UTC)
RUNS = {"large": 100_000, "small": 1_000}
"""Bytes of a value by run."""


def noise(size: int, seed: int) -> bytes:
    return Random(seed).randbytes(size)


async def fill(store: Store, runs: Mapping[str, int] = RUNS) -> None:
    """Runs; in each a value that two nodes hold, one that grows, items, a text that is not ASCII."""
    for run_id, size in runs.items():
        await store.insert_job(run_id, Definition(noise(500, 1), '{"é": 1}', "{}"))
        history = RunHistory(run_id, 1, 1)
        shared = noise(size, 2)
        log = noise(size, 3)
        for number in range(3):
            log += noise(2_000, 10 + number)
            nodes = [
                NodeSnapshot("grows", "running", state=log),
                NodeSnapshot("out", "running", collected=[noise(300, n) for n in range(number + 1)]),
            ]
            if number == 0:
                nodes += [NodeSnapshot("first", "completed", state=shared)]
            if number == 1:
                nodes += [NodeSnapshot("second", "running", state=shared)]
            await store.save(history, Snapshot(run_id, 1, "running", tuple(nodes), AT), "x")


@pytest.fixture
async def filled(store_url: str) -> str:
    store = Store(locate(store_url), create=True)
    await fill(store)
    await store.close()
    return store_url


async def measure(url: str, run_id: str | None = None) -> StoreSize:
    store = Store(locate(url), create=False)
    try:
        return await measure_store(store, run_id)
    finally:
        await store.close()


def by_node(run: RunSize) -> dict[str, int]:
    return {node.node_id: node.total for node in run.nodes}


async def test_bytes_by_run_and_node(filled: str) -> None:
    found = await measure(filled)
    assert [run.run_id for run in found.runs] == ["large", "small"]
    large, small = found.runs
    assert 306_000 < large.parts["values"] < 310_000  # a value that grows is there alone, and as a series
    assert 8_000 < small.parts["values"] < 20_000
    assert 900 < large.parts["items"] + large.parts["rows"] < 4_000
    assert large.parts["run"] >= 500 + len('{"é": 1}'.encode()) + 2
    nodes = by_node(large)
    assert list(nodes) == ["grows", "first", "out", "second"]
    assert 206_000 < nodes["grows"] < 209_000
    assert 100_000 < nodes["first"] < 101_000
    assert nodes["second"] < 1_000  # `first` had the value before
    assert nodes["out"] > 900
    assert sum(nodes.values()) <= large.total
    assert sum(found.disk.values()) > large.total + small.total
    assert (found.free is None) == filled.startswith("postgresql")
    assert [run.run_id for run in (await measure(filled, "small")).runs] == ["small"]
    with pytest.raises(RunNotFound):
        await measure(filled, "nobody")


@pytest.mark.parametrize("at_once", [1, 7, 1_000])
async def test_many_runs_take_no_more_queries_than_one(store_url: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_plugin.space.size.ROWS_AT_ONCE", at_once)
    asked: list[str] = []
    store = Store(locate(store_url), create=True)
    try:
        await fill(store, {"Z": 100, "a b": 5_000, "é": 100})
        await store.insert_job("B has no rows", Definition(b"", "{}", "{}"))
        await store.transact(
            lambda connection: event.listen(connection.core.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
        )
        alone = {run_id: (await measure_store(store, run_id)).runs for run_id in ("Z", "a b", "B has no rows", "é")}
        of_one, asked[:] = len(asked) / len(alone), []
        found = await measure_store(store)
    finally:
        await store.close()
    assert len(asked) == of_one > 0
    assert {run.run_id: [run] for run in found.runs} == alone
    assert [len(run.nodes) for run in found.runs] == [4, 4, 4, 0]


async def test_of_many_runs_the_one_that_is_damaged_is_named(tmp_path: Path) -> None:
    store = Store(locate(f"sqlite:///{tmp_path / 'c.db'}"), create=True)
    try:
        await fill(store, dict.fromkeys("abc", 5_000))
        bend = "UPDATE payload SET digest = 7 WHERE rowid = (SELECT min(rowid) FROM payload WHERE run_id = 'b')"
        await store.transact(lambda connection: connection.execute(text(bend)))
        with pytest.raises(StoreDamaged, match="run 'b'"):
            await measure_store(store)
    finally:
        await store.close()


async def test_values_that_are_files_count(tmp_path: Path) -> None:
    location = locate(f"sqlite:///{tmp_path / 'c.db'}")
    store = Store(location, create=True, blobs=Blobs(location, True, 50_000))
    await fill(store)
    found = await measure_store(store, "large")
    await store.close()
    (large,) = found.runs
    assert large.parts["files"] == sum(node.parts["files"] for node in large.nodes)
    assert large.parts["files"] == found.disk["c.db.blobs"] > 100_000


@pytest.mark.parametrize("when", ["before it is looked at", "after it was looked at", "its folder is read"])
async def test_what_others_delete_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A process that prunes or sweeps deletes files of values, and the last that closes the database its `-wal`."""
    location = locate(f"sqlite:///{tmp_path / 'c.db'}")
    store = Store(location, create=True, blobs=Blobs(location, True, 50_000))
    await fill(store, {"large": 100_000})
    beside = tmp_path / "c.db.blobs"
    (folder,) = beside.iterdir()
    gone = min(folder.iterdir())
    look, scan = os.stat, os.scandir

    def stat(path: Any, **options: Any) -> os.stat_result:
        if Path(path) != gone:
            return look(path, **options)
        if when == "before it is looked at":
            gone.unlink(missing_ok=True)
        found = look(path, **options)
        gone.unlink(missing_ok=True)
        return found

    def scandir(path: Any) -> Any:
        if when == "its folder is read" and str(path) == str(folder):
            shutil.rmtree(folder)
        return scan(path)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "scandir", scandir)
    found = await measure_store(store)
    monkeypatch.undo()
    await store.close()
    assert not gone.exists()
    assert (found.disk[beside.name] > 0) == (when != "its folder is read")


def test_the_command(filled: str) -> None:
    done = CliRunner().invoke(db, ["size", "--url", filled, "--json"])
    assert done.exit_code == 0
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["bytes"] == sum(document["disk"].values()) > 0
    assert [run["run_id"] for run in document["runs"]] == ["large", "small"]
    large = document["runs"][0]
    assert large["bytes"] == sum(large[part] for part in PARTS)
    assert large["nodes"][0]["node_id"] == "grows"
    table = CliRunner().invoke(db, ["size", "--url", filled]).stdout.splitlines()
    assert table[1].startswith("large")
    assert "bytes on the disk" in table[-1]
    table = CliRunner().invoke(db, ["size", "--url", filled, "--run", "large"]).stdout.splitlines()
    assert table[1].startswith("grows")
    assert CliRunner().invoke(db, ["size", "--url", filled, "--quiet"]).stdout == ""
