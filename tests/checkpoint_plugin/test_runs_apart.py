"""Two runs of one store that are alike in all their names and numbers: neither is read, written or deleted with the other."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select, update

from checkpoint_plugin import CheckpointManager, JobRepository, RecoveryService, StateManager
from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import KeyMissing, StoreUnreachable
from checkpoint_plugin.events.rows import append_events, fetch_events
from checkpoint_plugin.models import JOB, Base
from checkpoint_plugin.recovery.claims import Claim, Search, claim_run, end_claim, keep_claim
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.answers import answer_nodes
from checkpoint_plugin.saving.completed import Tally
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.space.savepoints import name_checkpoint, unname_checkpoint
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.job import JobEnd
from hookspecs import EdgeSnapshot, NodeSnapshot, Prefix, RunNotFound, Snapshot, Suspension
from tests.checkpoint_plugin.test_store import definition

AT = datetime(2026, 1, 2, tzinfo=UTC)
HOLDER = Holder("worker")
GRAPH = {"nodes": [{"id": "a"}, {"id": "b"}, {"id": "c"}], "edges": []}
CHECKPOINTS = {"one": 6, "two": 9}
ITEMS = {run_id: [f"item {place} of run {run_id}" for place in range(200)] for run_id in CHECKPOINTS}
EVENT = {"kind": "said", "node_id": "out", "time": AT, "payload_json": None}
EVERY = {"one": 2, "two": 3}


@pytest.fixture
async def store(request: pytest.FixtureRequest, store_url: str) -> AsyncIterator[Store]:
    ring = KeyRing((bytes(range(32)),)) if getattr(request, "param", "") == "encrypted" else None
    store = Store(locate(store_url), create=True, ring=ring)
    yield store
    await store.close()


def grown(run_id: str, number: int) -> list[str]:
    return [f"part {part} of run {run_id}" * 20 for part in range(20 + number)]


def nodes(run_id: str, number: int) -> list[NodeSnapshot]:
    """What changes with a checkpoint of a run: a queue, a value that grows, an output, nodes that complete, one that asks.

    The queue of one run is long from the first checkpoint on, so that its next row tells only what changed; that of the other is
    not. One node changes now and then, in each run at another checkpoint.
    """
    items = ITEMS[run_id][number : number + (100 if number > 2 or run_id == "one" else 9)]
    changed = [
        NodeSnapshot("queue", "running", firing=number, inbox=(EdgeSnapshot("e", tuple(items), False),)),
        NodeSnapshot("grows", "running", commits=number, state=grown(run_id, number)),
        NodeSnapshot(f"of {run_id}", "running", firing=number),
        NodeSnapshot("out", "running", collected=Prefix([f"{run_id} {place}" for place in range(number)])),
        *(NodeSnapshot(f"done {number} {place}", "completed", firing=1) for place in range(4)),
    ]
    if number % EVERY[run_id] == 0:
        changed.append(NodeSnapshot("now and then", "running", firing=number))
    if number == 1:
        changed.append(NodeSnapshot("asks", "suspended", firing=1, suspension=Suspension("what?", AT, state=run_id)))
        # What the other run comes to by and by stands here as it is.
        changed.append(
            NodeSnapshot("has it", "running", state=grown("one", 4)) if run_id == "two" else NodeSnapshot("has it", "idle")
        )
    return changed


def plain(found: NodeSnapshot) -> tuple[Any, ...]:
    inbox = [(edge.edge_id, list(edge.items)) for edge in found.inbox]
    waits = None if found.suspension is None else found.suspension.state
    return found.node_id, found.status, found.firing, found.state, inbox, list(found.collected), waits


def expected(run_id: str, number: int) -> list[tuple[Any, ...]]:
    newest = {node.node_id: node for upto in range(1, number + 1) for node in nodes(run_id, upto)}
    return sorted(plain(node) for node in newest.values() if node.status != "idle")


async def save(store: Store, history: RunHistory, number: int) -> None:
    cut = Snapshot(history.run_id, 1, "running", tuple(nodes(history.run_id, number)), AT)
    await store.save(history, cut, "step")


async def save_both(store: Store) -> None:
    """Checkpoint by checkpoint, each run goes on with what it knows."""
    for run_id in CHECKPOINTS:
        await store.insert_job(run_id, definition(), Holder(f"worker of {run_id}"))
        await store.transact(lambda connection, run_id=run_id: append_events(connection, run_id, [EVENT] * 2))  # type: ignore[misc]
    histories = [RunHistory(run_id, 1, 1, tally=Tally(least=4)) for run_id in CHECKPOINTS]
    for number in range(1, max(CHECKPOINTS.values()) + 1):
        for history in histories:
            if number <= CHECKPOINTS[history.run_id]:
                await save(store, history, number)


def rows_of(connection: Connection, run_id: str) -> Sequence[tuple[str, Sequence[Any]]]:
    """All that is stored of a run."""

    def found(table: Table) -> Sequence[Any]:
        key = table.c.id if table is JOB else table.c.run_id
        return sorted(map(str, connection.execute(select(table).where(key == run_id)).all()))

    return [(table.name, found(table)) for table in Base.metadata.sorted_tables if table is JOB or "run_id" in table.c]


@pytest.mark.parametrize("store", ["plain", "encrypted"], indirect=True)
async def test_each_is_read_as_it_was_saved(store: Store) -> None:
    await save_both(store)
    for run_id, last in CHECKPOINTS.items():
        for number in range(1, last + 1):
            found = await store.restore(RunHistory(run_id, 1, 1), number)
            assert found is not None
            assert sorted(map(plain, found.nodes)) == expected(run_id, number)
        history = RunHistory(run_id, 1, 1)
        brief = await store.restore(history, None, brief=True, seen=(await store.load_job(run_id)).seen)
        assert brief is not None
        assert brief.number == last and len(brief.over) == 4 * last
        assert sorted(map(plain, brief.nodes)) == [each for each in expected(run_id, last) if not each[0].startswith("done")]
        assert [row.number for row in await store.checkpoints(run_id)] == list(range(1, last + 1))
        assert {row.node_id for row in await store.node_states(run_id)} == {node[0] for node in expected(run_id, last)}
        held = await store.holder(run_id)
        assert (await store.job(run_id)).id == run_id and held is not None and held[0].owner == f"worker of {run_id}"
        events = await store.transact(lambda connection, run_id=run_id: fetch_events(connection, run_id, None, None, None, None))  # type: ignore[misc]
        assert [(row.run_id, row.seq) for row in events] == [(run_id, 0), (run_id, 1)]
        await save(store, history, last + 1)  # what grows goes on from what was read
        found = await store.restore(RunHistory(run_id, 1, 1), None)
        assert found is not None
        assert sorted(map(plain, found.nodes)) == expected(run_id, last + 1)
    assert not [finding for run in (await check_store(store)).runs for finding in run.findings]


@pytest.mark.parametrize("store", ["plain", "encrypted"], indirect=True)
@pytest.mark.parametrize(("changed", "other"), [("one", "two"), ("two", "one")])
async def test_what_is_done_with_one_leaves_the_other_as_it_is(store: Store, changed: str, other: str) -> None:
    await save_both(store)
    await store.transact(lambda connection: connection.execute(update(JOB).values(set_aside="too often", retry_count=3)))
    before = await store.transact(lambda connection: rows_of(connection, other), write=False)
    history = RunHistory(changed, 1, 1)
    found = await store.restore(history, 3)
    assert found is not None
    await store.rewind(history, found)
    await save(store, history, 4)
    found = await store.restore(RunHistory(changed, 1, 1), None)
    assert found is not None
    assert sorted(map(plain, found.nodes)) == expected(changed, 4)
    of_other = [row.node_id for row in await store.node_states(changed) if row.node_id == f"of {other}"]
    assert not of_other, "going back tells anew of nodes of the run alone"
    await store.end_attempt(changed, 1, JobEnd("suspended", None, AT))
    await answer_nodes(store, changed, {"asks": "this"})
    lease, _ = await store.begin_attempt(changed, 2, HOLDER)
    await store.renew(lease, 60)
    await store.end_attempt(changed, lease.epoch, None)
    await prune_runs(store, Retention(keep_last=1), [changed])
    assert await store.transact(lambda connection: rows_of(connection, other), write=False) == before
    assert not [finding for run in (await check_store(store)).runs for finding in run.findings]
    await store.begin_attempt(changed, 3, HOLDER)
    await store.end_attempt(
        changed, (await store.begin_attempt(changed, 4, HOLDER, steal=True))[0].epoch, JobEnd("completed", None, AT)
    )
    (pruned,) = await prune_runs(store, Retention(drop_finished=0), list(CHECKPOINTS))
    assert (pruned.run_id, pruned.dropped) == (changed, True), "the other goes on"
    assert await store.transact(lambda connection: rows_of(connection, other), write=False) == before


async def test_what_a_prune_took_from_one_is_not_gone_on_from_because_the_other_has_it(store: Store) -> None:
    """A value that goes on growing after its parts were pruned is stored whole, though parts of the same numbers are there."""
    histories = {}
    for run_id in CHECKPOINTS:
        await store.insert_job(run_id, definition(), HOLDER)
        histories[run_id] = RunHistory(run_id, 1, 1)

    async def save_nodes(run_id: str, number: int, *states: Any) -> None:
        changed = [NodeSnapshot(f"n{place}", "running", commits=number, state=state) for place, state in enumerate(states)]
        await store.save(histories[run_id], Snapshot(run_id, 1, "running", tuple(changed), AT), "step")

    for number in range(1, 4):
        for run_id in CHECKPOINTS:
            await save_nodes(run_id, number, grown(run_id, number), "what both have" * 200)
    await save_nodes("one", 4, None, None)
    await prune_runs(store, Retention(keep_last=1), ["one"])
    left = dict(await store.transact(lambda connection: rows_of(connection, "one"), write=False))
    assert not left["payload"] and not left["payload_segment"], "those of the other run keep none of this one"
    await save_nodes("one", 5, grown("one", 5), "what both have" * 200)
    found = await store.restore(RunHistory("one", 1, 1), None)
    assert found is not None and [node.state for node in found.nodes] == [grown("one", 5), "what both have" * 200]
    found = await store.restore(RunHistory("two", 1, 1), None)
    assert found is not None and [node.state for node in found.nodes] == [grown("two", 3), "what both have" * 200]


@pytest.mark.parametrize(("changed", "other"), [("one", "two"), ("two", "one")])
async def test_savepoints_of_one_name_are_of_their_own_runs(store: Store, changed: str, other: str) -> None:
    await save_both(store)
    assert await name_checkpoint(store, other, "gold", 2) == 2
    before = await store.transact(lambda connection: rows_of(connection, other), write=False)
    assert await name_checkpoint(store, changed, "gold") == CHECKPOINTS[changed]
    assert await name_checkpoint(store, changed, "silver", 2) == 2
    assert await unname_checkpoint(store, changed, "gold") == CHECKPOINTS[changed]
    assert await store.transact(lambda connection: rows_of(connection, other), write=False) == before
    await prune_runs(store, Retention(keep_last=1))
    assert [row.number for row in await store.checkpoints(other)] == [2, CHECKPOINTS[other]]


async def test_a_file_that_a_prune_took_from_one_is_written_again_though_the_other_has_its_own(
    store_url: str, tmp_path: Path
) -> None:
    blobs = Blobs(locate(store_url), f"file://{tmp_path / 'files'}", 1_000)
    store = Store(locate(store_url), create=True, blobs=blobs)
    try:
        large = random.Random(1).randbytes(2_000)
        for run_id in CHECKPOINTS:
            await store.insert_job(run_id, definition(), HOLDER)
        histories = {run_id: RunHistory(run_id, 1, 1) for run_id in CHECKPOINTS}
        for state in (large, None, large):
            for run_id, history in histories.items():
                if state is not None and history.number:
                    await prune_runs(store, Retention(keep_last=1), ["one"])
                node = NodeSnapshot("a", "running", state=state)
                if run_id == "one" or not history.number:
                    await store.save(history, Snapshot(run_id, 1, "running", (node,), AT), "step")
        for run_id in CHECKPOINTS:
            found = await store.restore(RunHistory(run_id, 1, 1), None)
            assert found is not None and found.nodes[0].state == large
    finally:
        await store.close()


@pytest.mark.parametrize(("changed", "other"), [("one", "two"), ("two", "one")])
async def test_what_is_done_by_hand_with_one_leaves_the_other_as_it_is(store: Store, changed: str, other: str) -> None:
    jobs = JobRepository(store=store)
    managers = {run_id: CheckpointManager(run_id, enabled=True, store=store) for run_id in CHECKPOINTS}
    for run_id, manager in managers.items():
        await manager.save_checkpoint(None, {"a"}, {"b", "c"}, outputs={"a": {"out": run_id}}, context_data={"of": run_id})
        async with StateManager(run_id, store=store) as states:
            await states.update_node_state("b", "failed", last_error=run_id, attempt=CHECKPOINTS[run_id])
    before = await store.transact(lambda connection: rows_of(connection, other), write=False)
    async with managers[changed] as manager:
        await manager.save_checkpoint(GRAPH, {"b"}, outputs={"b": {"out": 2}})
        async with StateManager(changed, store=store) as states:
            await states.update_node_state("c", resume_state={"page": 3})
        await manager.save_checkpoint()  # which sees what others wrote
        data = await manager.restore_checkpoint()
        assert data is not None and data.completed_nodes == {"a", "b"} and data.context_data == {"of": changed}
        assert data.node_states["a"].outputs == {"out": changed} and data.node_states["c"].resume_state == {"page": 3}
        await manager.save_checkpoint(GRAPH, {"c"})
        state = await jobs.node_state(changed, "b")
        assert state is not None and state.attempt == CHECKPOINTS[changed]
        await jobs.save_node_state(state)
    job = await jobs.get(changed)
    job.metadata_json = "seen"
    await jobs.save(job)
    assert await store.transact(lambda connection: rows_of(connection, other), write=False) == before
    data = await managers[other].restore_checkpoint()
    assert data is not None
    assert data.completed_nodes == {"a"} and data.node_states["a"].outputs == {"out": other}
    assert data.node_states["b"].error == other and data.node_states["c"].resume_state is None
    assert {state.node_id: state.last_error for state in await jobs.node_states(other)} == {"a": None, "b": other, "c": None}
    assert await managers[changed].clear_checkpoint()
    assert not await managers[changed].can_resume() and await managers[other].can_resume()
    assert await store.transact(lambda connection: rows_of(connection, other), write=False) == before


@pytest.mark.parametrize(("changed", "other"), [("one", "two"), ("two", "one")])
async def test_an_answer_and_a_plan_are_of_one_alone(store: Store, changed: str, other: str) -> None:
    jobs, service = JobRepository(store=store), RecoveryService(store=store)
    for run_id in CHECKPOINTS:
        manager = CheckpointManager(run_id, enabled=True, store=store)
        await manager.save_checkpoint(GRAPH, {"a"}, {"b", "c"}, outputs={"a": {"out": run_id}})
    state = await jobs.node_state(other, "c")
    assert state is not None
    state.status, state.retryable = "failed", False
    await jobs.save_node_state(state)
    state = await jobs.node_state(changed, "c")
    assert state is not None
    state.status = "failed"
    await jobs.save_node_state(state)
    state = await jobs.node_state(changed, "b")
    assert state is not None
    state.mark_suspended("asks")
    await jobs.save_node_state(state)
    before = await store.transact(lambda connection: rows_of(connection, other), write=False)
    assert set(await service.plan(changed, GRAPH)) == {"b", "c"}
    await service.update_suspended_state(changed, "b", "yes")
    assert await store.transact(lambda connection: rows_of(connection, other), write=False) == before
    assert set(await service.plan(other, GRAPH)) == {"b"}


@pytest.mark.parametrize("status", ["recovering", "suspended", "paused"])
@pytest.mark.parametrize(("changed", "other"), [("one", "two"), ("two", "one")])
async def test_who_recovers_both_and_lets_one_go_still_recovers_the_other(
    store: Store, changed: str, other: str, status: str
) -> None:
    """Whatever has become of them, as at the end of a recovery that was stopped."""
    claims: dict[str, Claim] = {}
    for run_id in CHECKPOINTS:
        await CheckpointManager(run_id, enabled=True, store=store).save_checkpoint(GRAPH, {"a"}, {"b"})
        await store.transact(lambda connection: connection.execute(update(JOB).values(updated_at=AT)))
        claim = await store.transact(lambda connection: claim_run(connection, "w", Search(timedelta()), 5))
        assert claim is not None and claim.run_id == run_id
        claims[run_id] = claim
    await store.transact(lambda connection: connection.execute(update(JOB).values(status=status, heartbeat_at=AT)))
    before = await store.transact(lambda connection: rows_of(connection, other), write=False)
    await store.transact(lambda connection: keep_claim(connection, claims[changed]))
    job = await JobRepository(store=store).get(changed)
    assert (job.heartbeat_at == AT) is (status != "recovering"), "a sign of life of who still has a claim"
    await store.transact(lambda connection: end_claim(connection, claims[changed], counts=False, stopped=True))
    job = await JobRepository(store=store).get(changed)
    left = {"recovering": ("running", None, 0), "suspended": ("suspended", "w", 0), "paused": ("recovering", None, 0)}
    assert (job.status, job.worker_id, job.retry_count) == left[status]
    assert await store.transact(lambda connection: rows_of(connection, other), write=False) == before


async def test_a_save_of_which_nobody_heard_is_found_among_those_of_its_own_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = {run_id: RunHistory(run_id, 1, 1) for run_id in CHECKPOINTS}
    for run_id in CHECKPOINTS:
        await store.insert_job(run_id, definition(), HOLDER)
    await save(store, histories["two"], 1)
    done, lost = store._database.save, list[bool]()

    async def lose(write: Any) -> Any:
        """The first is written, and the connection lost before that was told."""
        found = await done(write)
        if not lost:
            lost.append(found)
            raise StoreUnreachable("the connection was lost")
        return found

    monkeypatch.setattr(store._database, "save", lose)
    for number in (1, 2):
        await save(store, histories["one"], number)
    assert lost == [True]
    assert [row.number for row in await store.checkpoints("one")] == [1, 2]
    found = await store.restore(RunHistory("one", 1, 1), None)
    assert found is not None
    assert sorted(map(plain, found.nodes)) == expected("one", 2)


async def test_with_a_key_a_run_that_is_not_there_is_told_so_whatever_others_are(store_url: str) -> None:
    plain_store = Store(locate(store_url), create=True)
    await plain_store.insert_job("one", definition(), HOLDER)
    await plain_store.close()
    store = Store(locate(store_url), create=False, ring=KeyRing((bytes(range(32)),)))
    with pytest.raises(RunNotFound):
        await store.load_job("two")
    with pytest.raises(KeyMissing, match="is not encrypted"):
        await store.load_job("one")
    await store.close()
