"""What a `CheckpointManager` saves beside the nodes is a value like theirs: stored once, and as what is new of one that grows."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from checkpoint_plugin import CheckpointManager
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.models import CHECKPOINT, PAYLOAD
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.light import is_light
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from hookspecs import StoreError
from tests.checkpoint_plugin.test_growing import stored

GRAPH: dict[str, Any] = {"nodes": [{"id": "a"}], "edges": []}
BITS = random.Random(9)
LARGE = {"page": BITS.randbytes(50_000)}


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


async def save(store: Store, context: dict[str, Any], manager: CheckpointManager | None = None) -> CheckpointManager:
    manager = manager or CheckpointManager("r", enabled=True, store=store)
    assert await manager.save_checkpoint(GRAPH, {"a"}, set(), set(), context)
    return manager


async def contexts(store: Store) -> dict[int, Any]:
    """What each checkpoint gives back."""
    found = {}
    for row in await store.checkpoints("r"):
        cut = await store.restore(RunHistory("r", 1, 1), row.number)
        assert cut is not None
        found[row.number] = cut.context
    return found


@pytest.mark.parametrize("ring", [None, KeyRing((bytes(32),))], ids=["plain", "encrypted"])
async def test_what_does_not_change_is_stored_once(store_url: str, ring: KeyRing | None) -> None:
    """It was stored in each checkpoint: 1 MB saved 200 times took 205 MB."""
    store = Store(locate(store_url), create=True, ring=ring)
    manager = await save(store, LARGE)
    for _ in range(20):
        await save(store, LARGE, manager)
    assert await store.transact(stored, write=False) < 1.2 * 50_000
    assert await contexts(store) == dict.fromkeys(range(1, 22), LARGE)
    assert not (await check_store(store)).all_findings
    await store.close()


@pytest.mark.parametrize("anew", [False, True], ids=["one manager", "a manager a save"])
async def test_what_grows_is_stored_as_what_is_new(store: Store, anew: bool) -> None:
    manager = None
    rows: list[bytes] = []
    for number in range(60):
        rows.append(BITS.randbytes(1_000))
        manager = await save(store, {"rows": rows, "step": number}, None if anew else manager)
    assert await store.transact(stored, write=False) <= 2.5 * 60_000
    assert await contexts(store) == {n: {"rows": rows[:n], "step": n - 1} for n in range(1, 61)}
    data = await CheckpointManager("r", enabled=True, store=store).restore_checkpoint(GRAPH)
    assert data is not None
    assert data.context_data == {"rows": rows, "step": 59}


async def test_a_prune_keeps_what_a_kept_checkpoint_needs(store: Store) -> None:
    manager = await save(store, {"old": BITS.randbytes(9_000)})
    for _ in range(3):
        await save(store, LARGE, manager)
    (pruned,) = await prune_runs(store, Retention(keep_last=1), ["r"])
    assert pruned.freed > 9_000
    await save(store, LARGE, manager)
    assert await contexts(store) == {4: LARGE, 5: LARGE}
    assert not (await check_store(store)).all_findings


async def test_a_missing_value_is_named(store: Store) -> None:
    manager = await save(store, {"small": 1})
    await save(store, LARGE, manager)
    await store.transact(lambda connection: connection.execute(delete(PAYLOAD)))
    (run,) = (await check_store(store)).runs
    assert run.damaged == {2}
    assert "its context: payload" in run.findings[0].what
    with pytest.raises(StoreError, match="a payload of its context is missing"):
        await store.restore(RunHistory("r", 1, 1), 2)
    assert (await contexts_of(store, 1)) == {"small": 1}


async def test_a_value_that_pruning_would_delete_is_named(store: Store) -> None:
    await save(store, LARGE)
    await store.transact(lambda connection: connection.execute(update(CHECKPOINT).values(mentions=None)))
    assert "does not list it" in (await check_store(store)).all_findings[0].what


async def contexts_of(store: Store, number: int) -> Any:
    cut = await store.restore(RunHistory("r", 1, 1), number)
    return None if cut is None else cut.context


async def test_it_may_become_a_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_BLOBS", f"file://{tmp_path / 'blobs'}")
    page = {"page": BITS.randbytes(1 << 20)}
    url = store.location.url
    manager = CheckpointManager("r", enabled=True, url=url)
    for _ in range(2):
        assert await manager.save_checkpoint(GRAPH, {"a"}, set(), set(), page)
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 1
    data = await CheckpointManager("r", enabled=True, url=url).restore_checkpoint(GRAPH)
    assert data is not None
    assert data.context_data == page


async def test_what_older_programs_stored_in_the_checkpoint_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_plugin.saving.rows.SMALL", 100_000)
    manager = await save(store, LARGE)
    monkeypatch.undo()
    await save(store, LARGE, manager)
    assert await contexts(store) == {1: LARGE, 2: LARGE}
    assert not (await check_store(store)).all_findings


def test_a_large_one_is_encoded_off_the_event_loop() -> None:
    assert is_light((), {}, {"small": 1})
    assert not is_light((), {}, LARGE)


def test_no_value_begins_as_a_payload_is_named() -> None:
    for value in (None, True, 1, -1, 2**70, 1.5, "x" * 300, b"x" * 300, [1] * 300, (), {1, 2}, {"a": 1}, {1: 2}):
        assert encode(value, str)[:1] != b"\xc1"
