"""Blocks of completed nodes: a brief restore reads few rows, and finds what a whole one finds."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import COMPLETED_NODES, NODE_VERSION
from checkpoint_plugin.restoring.cut_queries import FEW
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.completed import MOST_OPEN, Tally, is_block, is_over
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeSnapshot, Snapshot
from tests.checkpoint_plugin.heard import hear
from tests.checkpoint_plugin.test_store import definition

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    found = Store(locate(store_url), create=True)
    await found.insert_job("r", definition())
    yield found
    await found.close()


def history(least: int = 4, **more: Any) -> RunHistory:
    return RunHistory("r", 1, 1, tally=Tally(least=least), **more)


def over(node_id: str) -> NodeSnapshot:
    return NodeSnapshot(node_id, "completed", firing=1, commits=1, source="s", started_at=AT, ended_at=AT)


def running(node_id: str, firing: int = 1) -> NodeSnapshot:
    return NodeSnapshot(node_id, "running", firing=firing, arguments={"x": firing})


async def save(store: Store, known: RunHistory, *nodes: NodeSnapshot) -> None:
    await store.save(known, Snapshot("r", 1, "running", nodes, AT), "x")


async def told_briefly(store: Store) -> tuple[RunHistory, Snapshot]:
    known = history()
    found = await store.restore(known, None, brief=True)
    assert found is not None
    return known, found


async def check_brief(store: Store) -> RunHistory:
    """A brief restore tells what a whole one tells."""
    whole = await store.restore(RunHistory("r", 1, 1), None)
    known, brief = await told_briefly(store)
    assert whole is not None
    left = {node.node_id: node for node in brief.nodes}
    assert {node.node_id for node in whole.nodes if is_over(node)} == brief.over
    assert {node.node_id: node for node in whole.nodes if not is_over(node)} == left
    return known


async def count(store: Store, table: Any = COMPLETED_NODES) -> int:
    query = select(func.count()).select_from(table).where(table.c.run_id == "r")
    return int(await store.transact(lambda connection: connection.execute(query).scalar_one(), write=False))


async def test_nodes_that_have_completed_are_told_in_blocks(store: Store) -> None:
    known = history()
    for number in range(10):
        await save(store, known, running(f"n{number}"))
        await save(store, known, over(f"n{number}"), running("busy", number + 1))
    assert await count(store) == 2
    restored = await check_brief(store)
    assert restored.unread == 8 and restored.tally is not None
    assert sorted(restored.tally.loose) == ["n8", "n9"] and list(restored.tally.open) == ["busy"]
    assert set(restored.digests) == {"n8", "n9", "busy"}, "other rows are not read"


async def test_it_goes_on_after_a_restore(store: Store) -> None:
    known = history()
    for number in range(23):
        if number % 5 == 4:
            known, _ = await told_briefly(store)
            assert known.tally is not None
            known.tally.least = 4
        await save(store, known, over(f"n{number}"), running("busy", number + 1))
    assert await count(store) >= 5
    assert (await check_brief(store)).unread >= 20


@pytest.mark.parametrize("many", [FEW, FEW + 1, 3 * FEW])
async def test_nodes_that_have_begun_at_any_number_of_checkpoints_are_read(store: Store, many: int) -> None:
    known = history()
    await save(store, known, *(running(f"b{number}") for number in range(many)))
    for number in range(many):
        await save(store, known, running(f"b{number}", 2), running("busy", number + 1))
    await save(store, known, *(over(f"n{number}") for number in range(4 * many)))
    restored = await check_brief(store)
    assert restored.tally is not None and len(set(restored.tally.open.values())) == many
    assert restored.unread == 4 * many, "a block tells of them"


@pytest.mark.parametrize("seed", range(12))
async def test_any_run(store: Store, seed: int) -> None:
    """Saves, restores, going back and pruning in any order; a whole restore compares every row with the hash of the cut."""
    rng = random.Random(seed)
    known, alive, number = history(), [f"a{each}" for each in range(3)], 0
    for _ in range(60):
        step = rng.random()
        if step < 0.75 or not known.number:
            ended = [alive.pop(rng.randrange(len(alive))) for _ in range(rng.randrange(3)) if len(alive) > 1]
            alive += [f"b{number}.{each}" for each in range(rng.randrange(4))]
            number += 1
            moved = [running(name, number) for name in rng.sample(alive, rng.randint(1, len(alive)))]
            await save(store, known, *map(over, ended), *moved)
        elif step < 0.9:
            known = await check_brief(store)
            assert known.tally is not None
            known.tally.least = rng.choice([1, 4, 10])
        elif step < 0.95:
            await prune_runs(store, Retention(keep_last=2), ["r"])
        else:
            known = history()
            back = rng.choice([each.number for each in await store.checkpoints("r")])
            found = await store.restore(known, back)
            assert found is not None
            await store.rewind(known, found)
            alive = [node.node_id for node in found.nodes if node.status == "running"]
            assert not known.tally or await count(store) <= 1
    await check_brief(store)


async def test_who_names_a_checkpoint_begins_anew(store: Store) -> None:
    known = history()
    for number in range(12):
        await save(store, known, over(f"n{number}"), running("busy", number))
    for back, blocks in ((12, 0), (3, 0)):
        known = history()
        found = await store.restore(known, back)
        assert found is not None
        await store.rewind(known, found)
        assert await count(store) == blocks
        await check_brief(store)


async def test_a_node_that_goes_on_after_its_block_is_read(store: Store) -> None:
    known = history(least=1)
    await save(store, known, over("a"), over("b"))
    await save(store, known, running("a", 2))
    restored = await check_brief(store)
    assert restored.unread == 0
    assert restored.tally is not None and list(restored.tally.open) == ["a"]
    report = await check_store(store)
    assert not [*report.findings, *report.runs[0].findings], "nor is it damage"


async def test_no_block_names_more_nodes_than_a_query_can_ask_for(store: Store) -> None:
    tally = Tally(least=1)
    done, most = dict.fromkeys(map(str, range(2 * MOST_OPEN)), b"d" * 32), [f"o{each}" for each in range(MOST_OPEN)]
    assert tally.block(done, most, 1) is not None
    assert tally.block(done, [*most, "another"], 1) is None
    assert tally.block({"one": b"d" * 32}, ["two", "three"], 1) is None, "nor more than it tells of"
    tally.note({}, [*most, "another"], 1, told=False)
    assert tally.block(done, (), 2) is None
    await save(store, history(least=1), *map(over, done), *map(running, most))
    assert await count(store) == 1
    await check_brief(store)


async def test_a_restore_asks_as_often_for_many_blocks_as_for_few(store: Store) -> None:
    asked: list[str] = []

    known = history()
    await store.transact(lambda connection: hear(connection, asked.append))
    seen: list[int] = []
    for number in range(40):
        await save(store, known, over(f"n{number}"), running("busy", number))
        asked.clear()
        await told_briefly(store)
        seen.append(len([text for text in asked if text.startswith("SELECT")]))
    assert set(seen) == {4}, seen
    assert await count(store) == 10


@pytest.fixture
async def read(store: Store) -> list[str]:
    """The statements that read blocks or rows of nodes."""
    asked: list[str] = []

    def heard(statement: str) -> None:
        if statement.startswith("SELECT") and ("completed_nodes" in statement or "node_version" in statement):
            asked.append(statement)

    await store.transact(lambda connection: hear(connection, heard))
    return asked


async def test_what_was_seen_is_not_read_again_while_it_is_the_newest(store: Store, read: list[str]) -> None:
    known = history()
    for number in range(10):
        await save(store, known, over(f"n{number}"), running("busy", number + 1))
    seen = (await store.load_job("r")).seen
    assert seen is not None and seen.over == {f"n{number}" for number in range(10)}
    anew, again = history(), history()
    whole = await store.restore(anew, None, brief=True)
    read.clear()
    assert await store.restore(again, None, brief=True, seen=seen) == whole
    assert (again.digests, again.tally, again.unread, again.total) == (anew.digests, anew.tally, anew.unread, anew.total)
    assert read == []
    await save(store, again, running("busy", 11))
    read.clear()
    told = await store.restore(history(), None, brief=True, seen=seen)
    assert told is not None and [node.firing for node in told.nodes] == [11]
    assert read, "it is not the newest any more"


async def test_what_was_seen_is_checked(store: Store) -> None:
    known = history()
    for number in range(10):
        await save(store, known, over(f"n{number}"), running("busy", number + 1))
    seen = (await store.load_job("r")).seen
    assert seen is not None
    (node_id, number, body, *more), *others = seen.rows
    bent = [
        replace(seen, rows=[(node_id, number, bytes(body) + b"x", *more), *others]),
        replace(seen, rows=others),
        replace(seen, blocks=replace(seen.blocks, total=seen.blocks.total + 1)),
        replace(seen, blocks=replace(seen.blocks, node_ids=seen.blocks.node_ids[1:])),
    ]
    for other in bent:
        with pytest.raises(StoreDamaged):
            await store.restore(history(), None, brief=True, seen=other)
    assert await store.restore(history(), None, brief=True, seen=seen) is not None


async def test_they_go_with_the_run(store: Store) -> None:
    known = history()
    for number in range(9):
        await save(store, known, over(f"n{number}"))
    await store.end_attempt("r", 1, None)
    assert await count(store) == 2
    await prune_runs(store, Retention(keep_last=1), ["r"])
    assert await count(store) == 2 and await count(store, NODE_VERSION) == 9
    await check_brief(store)


@pytest.mark.parametrize("more", [{"state": 1}, {"collected": (1,)}, {"taken": (("e", 1),)}, {"status": "failed"}])
def test_what_holds_something_is_not_over(more: dict[str, Any]) -> None:
    assert is_over(over("n"))
    assert not is_over(replace(over("n"), **more))


@pytest.mark.parametrize(
    "block",
    [
        None,
        [],
        [[], b"d" * 32],
        [[1], b"d" * 32, {}],
        [["n"], b"d" * 31, {}],
        [["n"], b"d" * 32, {"m": "1"}],
        [["n"], b"d" * 32, []],
    ],
    ids=repr,
)
def test_what_is_no_block(block: Any) -> None:
    assert is_block([["n"], b"d" * 32, {"m": 1}])
    assert not is_block(block)
