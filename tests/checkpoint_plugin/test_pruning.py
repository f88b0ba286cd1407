"""Retention: the rules, what a pruned run still restores, and pruning while a run is being saved."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from checkpoint_plugin import Swept, prune
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.limits import Limits
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import FieldInvalid, StoreBusy, StoreMissing
from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, PAYLOAD_SEGMENT
from checkpoint_plugin.retention import CheckpointRow, PruneTurns, Retention, Thinning, read_duration
from checkpoint_plugin.saving.rows import ROOM
from checkpoint_plugin.saving.writing import LARGE_SAVE
from checkpoint_plugin.space import candidates
from checkpoint_plugin.space.candidates import find_candidates
from checkpoint_plugin.space.pruning import prune_runs, stored_bytes
from checkpoint_plugin.space.savepoints import name_checkpoint, unname_checkpoint
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import Definition
from checkpoint_plugin.tables.job import JobEnd
from hookspecs import NodeSnapshot, PluginOptionsInvalid, Prefix, RunNotFound, Snapshot, StoreError
from tests.cli.command import workflow
from workflow_runner import Graph, WorkflowRunner, node
from workflow_runner.cli.main import main

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DAY = 86_400.0


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


def definition() -> Definition:
    return Definition(encode({"graph": {"nodes": [], "edges": []}, "inputs": {}, "enable": {}}, str), "{}", "{}")


def cut(*nodes: NodeSnapshot, status: Any = "running") -> Snapshot:
    return Snapshot("r", 1, status, nodes, datetime.now(UTC))


@dataclass
class Row:
    number: int
    created_at: datetime
    label: str | None = None


def rows(ages: Sequence[float], **labels: str) -> list[Row]:
    """Checkpoints of these ages in days, oldest first."""
    return [Row(n, NOW - timedelta(days=age), labels.get(f"c{n}")) for n, age in enumerate(ages, 1)]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (Retention(), {1, 2, 3, 4, 5, 6}),
        (Retention(keep_last=2), {2, 5, 6}),
        (Retention(keep_for=1.5 * DAY), {2, 4, 5, 6}),
        (Retention(keep_last=1, keep_for=1.5 * DAY), {2, 4, 5, 6}),
        (Retention(thin=(Thinning(2 * DAY, 5 * DAY),)), {2, 3, 6}),
        (Retention(terminal_only=True), {1, 2, 3, 4, 5, 6}),
    ],
)
def test_a_checkpoint_that_any_rule_keeps_stays(rules: Retention, kept: set[int]) -> None:
    assert rules.kept(rows([9, 6.5, 2.1, 1.2, 0.5, 0.1], c2="mine"), "running", NOW) == kept


def test_of_a_finished_run_only_the_end_may_stay() -> None:
    rules = Retention(keep_last=3, terminal_only=True)
    assert rules.kept(rows([3, 2, 1]), "completed", NOW) == {3}
    assert rules.kept(rows([3, 2, 1]), "failed", NOW) == {1, 2, 3}


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed", "running", "paused", "suspended"])
def test_only_what_is_finished_goes_altogether(status: str) -> None:
    rules = Retention(drop_finished=DAY)
    assert rules.drops(status, NOW - timedelta(days=2), NOW) == (status in ("completed", "cancelled"))
    assert not rules.drops(status, NOW - timedelta(hours=2), NOW)
    assert not rules.drops(status, None, NOW)


def test_rules_are_read_from_a_document() -> None:
    options = {"keep_last": 3, "keep_for": "12h", "thin": [{"after": "1d", "every": "90m"}], "drop_finished": 60}
    assert Retention.from_options(options) == Retention(3, 43_200, (Thinning(DAY, 5_400),), False, 60)
    assert Retention.from_options({"terminal_only": True, "keep_for": None}) == Retention(terminal_only=True)


@pytest.mark.parametrize(
    "options",
    [{"keep_last": 0}, {"keep_last": True}, {"keep": 1}, {"keep_for": "soon"}, {"keep_for": -1}, {"thin": [{"after": 1}]},
     {"thin": "1d"}, {"thin": ""}, {"thin": 1}, {"thin": {}}, {"thin": [{"after": 1, "every": "0s"}]},
     {"terminal_only": 1}, [], "all"],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(PluginOptionsInvalid, match="retention"):
        Retention.from_options(options)


@pytest.mark.parametrize(
    "make",
    [
        partial(Retention, keep_last=0),
        partial(Retention, keep_for=-1.0),
        partial(Retention, drop_finished=float("nan")),
        partial(Thinning, 1.0, 0.0),
        partial(Thinning, -1.0, 1.0),
        partial(Retention, keep_last=1.5),  # type: ignore[arg-type]
        partial(Retention, keep_for="7d"),  # type: ignore[arg-type]
        partial(Retention, drop_finished="30d"),  # type: ignore[arg-type]
        partial(Thinning, "1d", 1.0),  # type: ignore[arg-type]
        partial(Thinning, 1.0, "1h"),  # type: ignore[arg-type]
        partial(Retention, thin=({"after": 1.0, "every": 1.0},)),  # type: ignore[arg-type]
        partial(Retention, thin=Thinning(1.0, 1.0)),  # type: ignore[arg-type]
    ],
)
def test_rules_that_make_no_sense_are_refused_in_python_too(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"keep_last|duration|no number of seconds|tuple of Thinning"):
        make()


async def test_pruning_is_one_call(store: Store, store_url: str) -> None:
    await grow(store, 12)
    told = await prune({"keep_last": 2}, url=store_url, dry_run=True)
    assert [run.checkpoints for run in told.runs] == [tuple(range(1, 11))]
    assert len(await store.checkpoints("r")) == 12
    assert await prune({"keep_last": 2}, ["r", "r"], url=store_url, dry_run=True) == told, "a run named twice counts once"
    heard: list[tuple[int, int]] = []
    done = await prune(Retention(keep_last=2), ["r"], store=store, tell=lambda *counted: heard.append(counted))
    assert done == told
    assert heard == [(1, 1)]
    assert done.freed == done.runs[0].freed > 10_000
    assert (done.damaged, done.orphans) == ([], Swept())
    assert [row.number for row in await store.checkpoints("r")] == [11, 12]
    with pytest.raises(RunNotFound):
        await prune({"keep_last": 2}, ["other"], store=store)


@pytest.mark.parametrize(
    ("rules", "runs", "error"),
    [
        ({}, None, ValueError),
        (Retention(), None, ValueError),
        ({"keep": 1}, None, PluginOptionsInvalid),
        ({"keep_last": 1}, "r", TypeError),
    ],
)
async def test_what_cannot_be_meant_prunes_nothing(rules: Any, runs: Any, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        await prune(rules, runs, url=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(StoreMissing):
        await prune({"keep_last": 1}, url=f"sqlite:///{tmp_path}/none.db")


async def grow(store: Store, steps: int, run_id: str = "r") -> list[dict[str, Any]]:
    """A run with a value that grows, one that comes and goes, and collected outputs; what each checkpoint holds."""
    await store.insert_job(run_id, definition())
    history = RunHistory(run_id, 1, 1)
    bits = random.Random(5)
    state: list[bytes] = []
    collected: list[Any] = []
    held = []
    for number in range(1, steps + 1):
        state.append(bits.randbytes(700))
        collected.append("out" * 200 + str(number % 3))
        coming = bits.randbytes(900) if number % 2 else b"again" * 200
        await store.save(
            history,
            cut(
                NodeSnapshot("grows", "running", firing=1, commits=number, state=list(state)),
                NodeSnapshot("comes", "running", firing=1, commits=number, state=coming),
                NodeSnapshot("out", "running", firing=1, collected=Prefix(collected)),
            ),
            "step",
        )
        held.append({"grows": list(state), "comes": coming, "out": list(collected)})
    return held


async def restored(store: Store, number: int) -> dict[str, Any]:
    found = await store.restore(RunHistory("r", 1, 1), number)
    assert found is not None
    nodes = {node.node_id: node for node in found.nodes}
    return {
        "grows": nodes["grows"].state,
        "comes": nodes["comes"].state,
        "out": list(nodes["out"].collected),
    }


async def test_what_is_kept_restores_and_the_rest_is_gone(store: Store) -> None:
    held = await grow(store, 30)
    await name_checkpoint(store, "r", "mine", 7)
    (told,) = await prune_runs(store, Retention(keep_last=3), dry_run=True)
    assert len(await store.checkpoints("r")) == 30
    size = partial(store.transact, lambda connection: stored_bytes(connection, "r"), write=False)
    before = await size()
    (pruned,) = await prune_runs(store, Retention(keep_last=3))
    assert pruned == told
    assert pruned.freed == before - await size() > 10_000
    assert [row.number for row in await store.checkpoints("r")] == [7, 28, 29, 30]
    for number in (7, 28, 29, 30):
        assert await restored(store, number) == held[number - 1]
    with pytest.raises(StoreError, match="no checkpoint 8"):
        await store.restore(RunHistory("r", 1, 1), 8)

    def count(connection: Connection) -> list[int]:
        tables = (NODE_VERSION, PAYLOAD, PAYLOAD_SEGMENT)
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]

    versions, payloads, segments = await store.transact(count, write=False)
    assert versions == 4 * 3
    assert payloads <= 4 + 4 + 3  # values that grew, values that came, different outputs
    assert segments <= 30
    assert await prune_runs(store, Retention(keep_last=3)) == []


async def test_items_that_no_kept_checkpoint_reads_go(store: Store) -> None:
    """Those that came after a checkpoint that a run went back to, and of which no other tells."""
    held = await grow(store, 6)
    history = RunHistory("r", 1, 1)
    found = await store.restore(history, 3)
    assert found is not None
    await store.rewind(history, found)
    query = select(OUTPUT_SEGMENT.c.log, OUTPUT_SEGMENT.c.number).order_by(OUTPUT_SEGMENT.c.number)

    async def segments() -> list[tuple[int, ...]]:
        return await store.transact(lambda connection: [tuple(row) for row in connection.execute(query)], write=False)

    log = history.log
    assert await segments() == [*((0, number) for number in range(1, 7)), (log, 7)]
    await name_checkpoint(store, "r", "mine", 2)
    for left in ([(0, 1), (0, 2), (log, 7)], [(log, 7)]):
        await prune_runs(store, Retention(keep_last=1))
        assert await segments() == left
        assert await restored(store, 7) == held[2]
        if len(left) > 1:
            assert await restored(store, 2) == held[1]
            await unname_checkpoint(store, "r", "mine")


async def test_sqlite_gives_all_the_freed_space_back(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    store = Store(locate(f"sqlite:///{path}"), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    bits = random.Random(3)
    for number in range(1, 41):
        await store.save(history, cut(NodeSnapshot("n", "running", commits=number, state=bits.randbytes(200_000))), "step")
    await store.give_back()  # what the log holds is in the file
    before = path.stat().st_size
    (pruned,) = await prune_runs(store, Retention(keep_last=1))
    await store.close()
    assert pruned.freed > 39 * 200_000
    assert before - path.stat().st_size > 0.98 * pruned.freed
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA freelist_count").fetchone() == (0,)


async def test_a_prune_does_not_wait_for_readers(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    store = Store(locate(f"sqlite:///{path}?busy_seconds=600"), create=True)
    await grow(store, 5)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM checkpoint").fetchone() == (5,)
        pruning = asyncio.ensure_future(prune_runs(store, Retention(keep_last=1)))
        done, _ = await asyncio.wait((pruning,), timeout=20)
        assert reader.execute("SELECT count(*) FROM checkpoint").fetchone() == (5,), "it sees what it saw"
    (pruned,) = await pruning
    assert len(pruned.checkpoints) == 4
    assert done, "and with it everybody who writes, and who holds a run"
    found = await store.transact(lambda c: c.core.exec_driver_sql("PRAGMA busy_timeout").scalar_one())
    assert found == 600_000, "who writes next waits as before"
    await store.close()


async def counted(store: Store, rules: Retention) -> tuple[int, Sequence[int]]:
    """Hundreds of instructions of SQLite that a prune takes, and which checkpoints are gone."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    def watch(connection: Connection) -> None:
        raw = connection.driver
        assert isinstance(raw, sqlite3.Connection)
        raw.set_progress_handler(tick, 100)

    await store.transact(watch)
    (pruned,) = await prune_runs(store, rules)
    return count, pruned.checkpoints


async def test_a_prune_costs_what_is_stored_of_many_values_that_grow(tmp_path: Path) -> None:
    async def steps(nodes: int) -> int:
        store = Store(locate(f"sqlite:///{tmp_path}/{nodes}.db"), create=True)
        await store.insert_job("r", definition())
        history, bits = RunHistory("r", 1, 1), random.Random(5)
        states = [bits.randbytes(3_000) for _ in range(nodes)]
        for _ in range(3):
            states = [state + bits.randbytes(100) for state in states]
            await store.save(history, cut(*(NodeSnapshot(f"n{n}", "running", state=s) for n, s in enumerate(states))), "step")
        count, gone = await counted(store, Retention(keep_last=1))
        assert gone == (1, 2)
        await store.close()
        return count

    assert await steps(400) < 6 * await steps(100)


async def test_a_prune_costs_what_is_stored_of_many_checkpoints(tmp_path: Path) -> None:
    async def steps(checkpoints: int) -> int:
        store = Store(locate(f"sqlite:///{tmp_path}/{checkpoints}.db"), create=True)
        await store.insert_job("r", definition())
        history, collected = RunHistory("r", 1, 1), list[int]()
        for number in range(checkpoints):
            collected.append(number)
            out = NodeSnapshot("out", "running", firing=1, collected=Prefix(list(collected)))
            await store.save(history, cut(NodeSnapshot("n", "running", commits=number), out), "step")
        count, gone = await counted(store, Retention(keep_last=checkpoints // 2))
        assert len(gone) == checkpoints // 2
        await store.close()
        return count

    assert await steps(800) < 6 * await steps(200)


@pytest.mark.parametrize("window", [None, 40])
async def test_a_value_that_grows_is_not_written_anew_after_each_prune(window: int | None, tmp_path: Path) -> None:
    store = Store(locate(f"sqlite:///{tmp_path}/c.db"), create=True)
    await store.insert_job("r", definition())
    history, bits = RunHistory("r", 1, 1), random.Random(5)
    parts = [bits.randbytes(500) for _ in range(window or 10)]
    written = 0
    for number in range(1, 301):
        parts = [*(parts if window is None else parts[1:]), bits.randbytes(500)]
        ref = await store.save(history, cut(NodeSnapshot("n", "running", commits=number, state=list(parts))), "step")
        written += ref.details["bytes"]
        if number % 10 == 0:
            await prune_runs(store, Retention(keep_last=2))
    stored = func.sum(func.length(PAYLOAD_SEGMENT.c.body))
    found = await store.transact(lambda c: c.execute(select(stored)).scalar_one(), write=False)
    snapshot = await store.restore(RunHistory("r", 1, 1), None)
    await store.close()
    assert snapshot is not None and snapshot.nodes[0].state == parts
    assert written < 300 * 500 * 3
    assert found < len(parts) * 500 * 3, "what is not used any more goes some time"


@pytest.mark.parametrize("text", ["900000d", "99999999999d", 10**20, pytest.param(10**5_000, id="long"), 1e300])
def test_a_duration_beyond_all_time_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="is longer than 365000d, the longest duration"):
        read_duration(text)
    with pytest.raises(PluginOptionsInvalid, match="longest duration"):
        Retention.from_options({"keep_for": text})
    assert read_duration("365000d") == 365_000 * DAY
    assert Retention(keep_for=365_000 * DAY).kept(rows([1.0]), "running", NOW) == {1}


async def test_a_named_checkpoint_is_found_and_can_be_let_go(store: Store) -> None:
    await grow(store, 4)
    assert await name_checkpoint(store, "r", "mine") == 4
    assert await name_checkpoint(store, "r", "mine", 4) == 4
    with pytest.raises(StoreError, match="named 'mine' already"):
        await name_checkpoint(store, "r", "mine", 2)
    for number in (9, 3_000_000_000, 10**20):
        with pytest.raises(StoreError, match=f"no checkpoint {number}"):
            await name_checkpoint(store, "r", "other", number)
    with pytest.raises(RunNotFound):
        await name_checkpoint(store, "unknown", "mine")
    for name in ("", "x" * 201, "a\0b"):
        with pytest.raises(FieldInvalid, match="1 to 200 characters"):
            await name_checkpoint(store, "r", name)
    assert await unname_checkpoint(store, "r", "mine") == 4
    with pytest.raises(StoreError, match="no savepoint"):
        await unname_checkpoint(store, "r", "mine")


async def test_a_checkpoint_keeps_its_name_until_that_is_removed(store: Store) -> None:
    await grow(store, 3)
    await name_checkpoint(store, "r", "the old")
    words = (
        "checkpoint 3 of run 'r' is the savepoint 'the old' already.* first remove that name: "
        "workflow savepoint r 'the old' --remove$"
    )
    for number in (None, 3):
        with pytest.raises(StoreError, match=words):
            await name_checkpoint(store, "r", "new", number)
    assert await name_checkpoint(store, "r", "the old", 3) == 3
    assert await name_checkpoint(store, "r", "new", 2) == 2
    assert [row.label for row in await store.checkpoints("r")] == [None, "new", "the old"]
    await unname_checkpoint(store, "r", "the old")
    assert await name_checkpoint(store, "r", "newest") == 3


async def test_a_finished_run_goes_altogether_but_not_with_a_savepoint(store: Store) -> None:
    await grow(store, 3)
    await store.end_attempt("r", 1, JobEnd("completed", None, datetime.now(UTC) - timedelta(days=2)))
    await name_checkpoint(store, "r", "mine", 2)
    assert await prune_runs(store, Retention(drop_finished=DAY)) == []
    await unname_checkpoint(store, "r", "mine")
    (pruned,) = await prune_runs(store, Retention(drop_finished=DAY))
    assert pruned.dropped
    with pytest.raises(RunNotFound):
        await store.job("r")
    assert await store.transact(lambda c: c.execute(select(func.count()).select_from(JOB)).scalar_one(), write=False) == 0


class Looking(Retention):
    """Calls something when a prune has looked at the checkpoints of a run, and before it deletes any."""

    look: Callable[[], object]

    def __init__(self, look: Callable[[], object], **rules: Any) -> None:
        super().__init__(**rules)
        object.__setattr__(self, "look", look)

    def kept(self, rows: Sequence[CheckpointRow], status: str, now: datetime) -> set[int]:
        self.look()
        return super().kept(rows, status, now)

    def drops(self, status: str, ended_at: datetime | None, now: datetime) -> bool:
        self.look()
        return super().drops(status, ended_at, now)


class Waiting(Store):
    """Calls something when a transaction has done all but commit."""

    inside: Callable[[], object]

    async def transact(self, work, *, write=True, before=None):  # type: ignore[no-untyped-def]
        def longer(connection: Connection) -> Any:
            found = work(connection)
            if write:
                self.inside()
            return found

        return await super().transact(longer, write=write, before=before)


def elsewhere(store_url: str, work: Callable[[Store], Coroutine[Any, Any, object]]) -> object:
    """What a second worker gives that does not wait for long, or the error that it gets."""

    async def alone() -> object:
        limits = Limits(lock_seconds=0.2, busy_seconds=0.2, reconnect_seconds=0.2)
        store = Store(replace(locate(store_url), limits=limits), create=False)
        try:
            return await work(store)
        except StoreError as error:
            return error
        finally:
            await store.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(alone())).result()


@pytest.mark.parametrize("naming", [True, False])
async def test_a_savepoint_is_named_before_a_prune_looks_or_after_it_is_over(store: Store, store_url: str, naming: bool) -> None:
    await grow(store, 3)
    await name_checkpoint(store, "r", "old", 2)
    met: list[object] = []

    def look() -> None:
        change = partial(name_checkpoint, number=1) if naming else unname_checkpoint
        met.append(elsewhere(store_url, lambda other: change(other, "r", "mine" if naming else "old")))

    (pruned,) = await prune_runs(store, Looking(look, keep_last=1), ["r"])
    assert {type(found) for found in met} == {StoreBusy}
    assert pruned.checkpoints == (1,)
    assert [row.number for row in await store.checkpoints("r")] == [2, 3]
    with pytest.raises(StoreError, match="no checkpoint 1"):
        await name_checkpoint(store, "r", "mine", 1)


async def test_a_finished_run_is_not_named_while_it_is_dropped(store: Store, store_url: str) -> None:
    await grow(store, 2)
    await store.end_attempt("r", 1, JobEnd("completed", None, datetime.now(UTC) - timedelta(days=2)))
    met: list[object] = []
    rules = Looking(
        lambda: met.append(elsewhere(store_url, lambda other: name_checkpoint(other, "r", "mine", 1))), drop_finished=DAY
    )
    (pruned,) = await prune_runs(store, rules, ["r"])
    assert pruned.dropped
    assert [type(found) for found in met] == [StoreBusy]
    with pytest.raises(RunNotFound):
        await name_checkpoint(store, "r", "mine", 1)


async def test_a_prune_comes_after_a_naming_that_has_begun_and_keeps_the_savepoint(store: Store, store_url: str) -> None:
    await grow(store, 3)
    naming = Waiting(locate(store_url), create=False)
    met: list[object] = []
    naming.inside = lambda: met.append(elsewhere(store_url, lambda other: prune_runs(other, Retention(keep_last=1), ["r"])))
    await name_checkpoint(naming, "r", "mine", 1)
    await naming.close()
    assert [type(found) for found in met] == [StoreBusy]
    await prune_runs(store, Retention(keep_last=1))
    assert [(row.number, row.label) for row in await store.checkpoints("r")] == [(1, "mine"), (3, None)]


async def test_pruning_while_a_run_is_saved_leaves_nothing_dangling(store: Store, store_url: str) -> None:
    """Values go with their last checkpoint and come again at once: the writer believes they are stored."""
    seed = int.from_bytes(os.urandom(4), "big")
    bits = random.Random(seed)
    values = [bits.randbytes(ROOM + 300) for _ in range(6)]  # none has room in a row
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    rounds, pruned = 60, 0
    held: dict[int, Any] = {}
    over = asyncio.Event()

    async def save() -> None:
        state: list[bytes] = []
        number = 0
        while number < rounds or (pruned < 3 and number < 100 * rounds):  # a busy machine may prune late
            number += 1
            state = [*state[-rounds:], bits.choice(values)]
            held[number] = list(state), bits.choice(values)
            grown, chosen = held[number]
            nodes = (
                NodeSnapshot("grows", "running", firing=1, commits=number, state=grown),
                NodeSnapshot("chooses", "running", firing=1, commits=number, state=chosen),
            )
            assert (await store.save(history, cut(*nodes), "step")).number == number
        over.set()

    async def prune() -> None:
        nonlocal pruned
        other = Store(locate(store_url), create=False)
        try:
            while not over.is_set():
                pruned += len(await prune_runs(other, Retention(keep_last=bits.choice((1, 2, 3))), ("r",)))
                await asyncio.sleep(0)
        finally:
            await other.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(prune())
        group.create_task(save())
    assert pruned >= 3, f"seed {seed}"
    for row in await store.checkpoints("r"):
        found = await store.restore(RunHistory("r", 1, 1), row.number)
        assert found is not None
        nodes = {node.node_id: node.state for node in found.nodes}
        assert (nodes["grows"], nodes["chooses"]) == held[row.number], f"seed {seed}"


async def test_a_large_save_that_comes_after_a_prune_leaves_nothing_of_its_first_try(store: Store) -> None:
    """What the first try made of the value counts no more, and is made anew: of the first nothing may be taken for the second."""
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    value = random.Random(5).randbytes(LARGE_SAVE + 4_096)
    for state in (None, value):
        await store.save(history, cut(NodeSnapshot("a", "running", firing=1, state=state)), "step")
    assert await prune_runs(store, Retention(keep_last=1), ("r",))
    grown = value + random.Random(6).randbytes(500)
    await store.save(history, cut(NodeSnapshot("a", "running", firing=1, state=grown)), "step")
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert found.nodes[0].state == grown


def test_the_commands(tmp_path: Path) -> None:
    (tmp_path / "nodes.py").write_text(
        "from workflow_runner import Context, node\n"
        "@node\n"
        "async def steps(context: Context):\n"
        "    for number in range(context.state or 0, 8):\n"
        "        yield 'x' * 500 + str(number)\n"
        "        context.commit(number + 1)\n"
        "        await context.checkpoint(f'step {number}')\n"
    )
    nodes = [{"id": "s", "type": "nodes.steps", "data": {}}, {"id": "o", "type": "workflow.Output", "data": {}}]
    graph = {"nodes": nodes, "edges": [{"source": "s", "target": "o", "targetHandle": "value"}]}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    run = ("run", "graph.json", "--nodes", "nodes.py", "--run-id", "r", "--enable")
    assert workflow(*run, 'checkpoint={"explicit":true}', cwd=tmp_path).returncode == 0

    def told(*arguments: str) -> Any:
        done = workflow(*arguments, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    before = told("checkpoints", "r")["checkpoints"]
    assert told("savepoint", "r", "mine", "--checkpoint", "3") == {"run_id": "r", "name": "mine", "number": 3}
    refused = workflow("savepoint", "r", "other", "--checkpoint", "3", cwd=tmp_path)
    assert refused.returncode == 5
    assert workflow("savepoint", "r", "", cwd=tmp_path).returncode == 2
    assert "savepoint 'mine' already" in refused.stderr and "workflow savepoint r mine --remove" in refused.stderr
    dry = told("prune", "--keep-last", "2", "--dry-run")
    assert dry["dry_run"]
    assert told("checkpoints", "r")["checkpoints"][2]["name"] == "mine"
    done = told("prune", "--keep-last", "2")
    assert (
        done["runs"] == dry["runs"] == [{"run_id": "r", "checkpoints": len(before) - 3, "dropped": False, "bytes": done["bytes"]}]
    )
    assert [row["number"] for row in told("checkpoints", "r")["checkpoints"]] == [3, len(before) - 1, len(before)]
    assert workflow("savepoint", "r", "mine", "--remove", "--checkpoint", "2", cwd=tmp_path).returncode == 2
    unnamed = workflow("savepoint", "r", "mine", "--remove", cwd=tmp_path)
    assert unnamed.stdout.split() == ["run_id", "number", "name", "r", "3"]
    for wrong in (("prune",), ("prune", "--keep-last", "0"), ("prune", "--keep-for", "soon"), ("prune", "--thin", "1d")):
        assert workflow(*wrong, cwd=tmp_path).returncode == 2
    assert "'1d' is not AGE:TIME. For example: --thin 1d:1h" in workflow("prune", "--thin", "1d", cwd=tmp_path).stderr
    assert workflow("prune", "unknown", "--keep-last", "1", cwd=tmp_path).returncode == 5
    resumed = told("resume", "r", "--nodes", "nodes.py", "--checkpoint", "3")
    assert len(resumed["outputs"]["o"]) == 8


@pytest.mark.parametrize("together", [1, 3, 500])
async def test_runs_of_which_nothing_goes_are_not_locked(store: Store, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "TOGETHER", together)
    for number in range(10):
        await grow(store, 3 if number in (2, 7) else 1, run_id=f"run {number}")
    transact, writes = store.transact, []

    async def counted(work: Any, *, write: bool = True, **more: Any) -> Any:
        writes.append(write)
        return await transact(work, write=write, **more)

    monkeypatch.setattr(store, "transact", counted)
    found = await prune_runs(store, Retention(keep_last=1))
    assert sorted((run.run_id, run.checkpoints) for run in found) == [("run 2", (1, 2)), ("run 7", (1, 2))]
    assert sum(writes) == 2
    query = select(LEASE.c.run_id, LEASE.c.generation)  # another one lets who executes the run write again what it mentions
    told = await transact(lambda connection: [tuple(row) for row in connection.execute(query)], write=False)
    assert sorted(told) == [(f"run {number}", int(number in (2, 7))) for number in range(10)]
    writes.clear()
    assert await prune_runs(store, Retention(keep_last=1)) == []
    assert sum(writes) == 0


async def test_of_many_runs_the_checkpoints_of_one_at_a_time_are_held(store: Store) -> None:
    """A store that was never pruned may hold days of each of its runs."""
    for number in range(20):
        await grow(store, 1, run_id=f"run {number}")
    columns = ", ".join(column.name for column in CHECKPOINT.columns if column.name != "number")
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < 500)"
    more = f"INSERT INTO checkpoint (number, {columns}) {numbers} SELECT n, {columns} FROM numbers, checkpoint"
    await store.transact(lambda connection: connection.execute(text(more)))
    jobs = (await store.readable_jobs())[0]
    tracemalloc.start()
    try:
        found = await find_candidates(store, Retention(keep_last=499), jobs, datetime.now(UTC))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == {f"run {number}" for number in range(20)}
    assert peak < 1_500_000, peak


@pytest.mark.parametrize(("command", "word"), [("prune --keep-last 1", "pruned"), ("db check", "checked")])
def test_a_command_that_takes_long_tells_how_far_it_is(
    tmp_path: Path, command: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    graph = Graph()
    graph.output("out", graph.add(nothing))
    for run_id in "ab":
        asyncio.run(WorkflowRunner().run(graph, enable={"checkpoint": {"url": url}}, run_id=run_id))
    monkeypatch.setattr("checkpoint_plugin.cli.progress.SILENT_SECONDS", 0.0)
    assert main([*command.split(), "--url", url]) == 0
    assert capsys.readouterr().err.splitlines() == [f"1 of 2 runs are {word}", f"2 of 2 runs are {word}"]
    assert main([*command.split(), "--url", url, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@node
async def nothing() -> None:
    return None


async def test_a_run_prunes_itself(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.checkpoint_plugin.test_durability import chain, run

    monkeypatch.setattr("checkpoint_plugin.retention.PRUNE_EVERY", 10)
    result = await run(store_url, chain("count", "add", n=60), every_firing=True, retention={"keep_last": 5})
    assert result.outputs["out"] == list(range(1, 61))
    store = Store(locate(store_url), create=False)
    assert len(await store.checkpoints("r")) <= 5
    await store.close()


def turns(saves: int, *, first: int = 1, size: int = 1_000, nodes: int = 5) -> list[int]:
    """After which checkpoints a run prunes itself."""
    found = PruneTurns()
    return [number for number in range(first, first + saves) if found.is_due(number, size, nodes)]


def test_a_run_prunes_itself_the_more_seldom_the_more_nodes_it_has() -> None:
    assert turns(350) == [100, 200, 300]
    assert turns(350, nodes=1_000) == [100, 200, 300]
    assert turns(2_500, nodes=10_000) == [1_000, 2_000]
    assert turns(350, nodes=10_000, size=1 << 20) == [100, 200, 300], "or when much was written"
    assert turns(350, first=450) == [450, 550, 650, 750], "one that was killed again and again, with its first"


SPOILED: list[Path] = []


@node
async def spoil(x: int) -> int:
    """Damage the row of the first checkpoint, as a disk may."""
    with closing(sqlite3.connect(SPOILED[0])) as database:
        database.execute("UPDATE checkpoint SET created_at = 'never' WHERE number = 1")
        database.commit()
    return x


@pytest.mark.parametrize("options", [{}, {"best_effort": True}], ids=["required", "best effort"])
async def test_a_run_that_is_saved_is_not_failed_by_what_cannot_be_pruned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    SPOILED[:] = [tmp_path / "c.db"]
    graph = Graph()
    graph.output("out", graph.add(spoil, node_id="second", x=graph.add(spoil, node_id="first", x=1)))
    enable = {"url": f"sqlite:///{SPOILED[0]}", "every_firing": True, "retention": {"keep_last": 1}, **options}
    result = await WorkflowRunner().run(graph, enable={"checkpoint": enable}, run_id="r")
    assert (result.status, result.outputs, result.degraded) == ("completed", {"out": [1]}, None)
    assert "run r: what is not kept is left for `workflow prune`: run 'r' is damaged" in caplog.text
