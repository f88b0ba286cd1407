"""Values that grow are stored as what is new also by who goes on with a run, and read what they grew out of."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.models import CHECKPOINT, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, PAYLOAD_SEGMENT
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.payloads import BaseCache, PayloadWriter
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import EdgeSnapshot, NodeSnapshot, Suspension
from tests.checkpoint_plugin.test_pruning import cut, definition

AT = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


def stored(connection: Connection) -> int:
    """Bytes of all values, and of the rows that mention them."""
    tables = (PAYLOAD.c.body, PAYLOAD_SEGMENT.c.body, NODE_VERSION.c.body, OUTPUT_SEGMENT.c.body, CHECKPOINT.c.context)
    return sum(connection.execute(select(func.sum(func.length(body)))).scalar_one() or 0 for body in tables)


def as_state(value: Any, number: int) -> NodeSnapshot:
    return NodeSnapshot("a", "running", firing=1, commits=number, state=value)


def as_kept_while_suspended(value: Any, number: int) -> NodeSnapshot:
    return NodeSnapshot("a", "suspended", firing=1, commits=number, suspension=Suspension("next?", AT, state=value))


def as_waiting_item(value: Any, number: int) -> NodeSnapshot:
    return NodeSnapshot("a", "running", firing=number, inbox=(EdgeSnapshot("e", (value,), False),))


@pytest.mark.parametrize("held", [as_state, as_kept_while_suspended, as_waiting_item])
async def test_a_value_goes_on_growing_after_a_resume(store: Store, held: Callable[[Any, int], NodeSnapshot]) -> None:
    """As of a node that is suspended after each step: each attempt wrote the whole value."""
    await store.insert_job("r", definition())
    bits = random.Random(3)
    grown: list[bytes] = []
    for number in range(1, 61):
        grown.append(bits.randbytes(1_000))
        history = RunHistory("r", 1, 1)
        await store.restore(history, None)
        await store.save(history, cut(held(list(grown), number)), "step")
    assert await store.transact(stored, write=False) <= 2.5 * sum(map(len, grown))
    for number in (1, 2, 3, 30, 60):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        (node,) = found.nodes
        expected = held(grown[:number], number)
        assert (node.state, node.suspension, node.inbox) == (expected.state, expected.suspension, expected.inbox)


async def test_an_output_goes_on_growing_after_a_resume(store: Store) -> None:
    await store.insert_job("r", definition())
    bits = random.Random(4)
    grown: list[bytes] = []
    items: list[Any] = []
    for number in range(1, 41):
        grown.append(bits.randbytes(1_000))
        items.append(list(grown))
        history = RunHistory("r", 1, 1)
        await store.restore(history, None)
        await store.save(history, cut(NodeSnapshot("o", "running", firing=number, collected=list(items))), "step")
    assert await store.transact(stored, write=False) <= 2.5 * sum(map(len, grown))
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert list(found.nodes[0].collected) == items


@pytest.mark.parametrize("seed", range(3))
async def test_values_that_grow_out_of_read_ones_are_what_was_saved(store: Store, seed: int) -> None:
    """Through resumes, prunes, and ways back to older checkpoints, of several values that grow out of one."""
    await store.insert_job("r", definition())
    bits = random.Random(seed)
    values = {name: bits.randbytes(3_000) for name in "abc"}
    kept: dict[int, dict[str, bytes]] = {}
    history = RunHistory("r", 1, 1)
    for step in range(50):
        match bits.randrange(8):
            case 0 | 1 | 2:
                history = RunHistory("r", 1, 1)
                await store.restore(history, None)
            case 3:
                await prune_runs(store, Retention(keep_last=bits.randint(1, 6)), ("r",))
            case 4 if kept:
                number = bits.choice([row.number for row in await store.checkpoints("r")])
                history = RunHistory("r", 1, 1)
                found = await store.restore(history, number)
                assert found is not None
                gone_back = await store.rewind(history, found)
                values = dict(kept[number])
                if gone_back is not None:
                    kept[gone_back.number] = dict(values)
            case _:
                pass
        for name in bits.sample("abc", bits.randint(1, 3)):
            base = values[bits.choice("abc" if bits.random() < 0.2 else name)]
            end = len(base) if bits.random() < 0.8 else bits.randint(1_500, len(base))
            values[name] = base[:end] + bits.randbytes(bits.choice((5, 70, 900)))
        ref = await store.save(history, cut(*(as_named(name, value, step) for name, value in values.items())), "step")
        kept[ref.number] = dict(values)
    for row in await store.checkpoints("r"):
        found = await store.restore(RunHistory("r", 1, 1), row.number)
        assert found is not None
        assert {node.node_id: node.state for node in found.nodes} == kept[row.number]
    assert not (await check_store(store, (), None)).all_findings


def as_named(name: str, value: bytes, step: int) -> NodeSnapshot:
    return NodeSnapshot(name, "running", firing=1, commits=step, state=value)


async def test_what_a_value_has_no_more_is_read_for_a_while_only(store: Store) -> None:
    """A large part stays, and another is replaced in each save: all that had ever been there was read, and no prune took it."""
    await store.insert_job("r", definition())
    bits, known = random.Random(6), RunHistory("r", 1, 1)
    stays, new, values = bits.randbytes(20_000), 5_000, list[bytes]()
    for number in range(1, 61):
        values.append(stays + bits.randbytes(new))
        await store.save(known, cut(as_state(values[-1], number)), "step")
    assert await store.transact(stored, write=False) <= 1.5 * len(values) * new, "and little is written again"
    for number in range(1, 61):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        assert found.nodes[0].state == values[number - 1]
    await prune_runs(store, Retention(keep_last=1), ["r"])
    assert await store.transact(stored, write=False) <= 5 * len(values[-1])


def test_a_long_value_is_seldom_written_again_whole() -> None:
    """What is added to its front, or exchanged in it, makes it of ever more parts: a long one may have more of them."""
    bits, cache = random.Random(7), BaseCache()
    value, written = bits.randbytes(1_000_000), 0
    for number in range(1, 201):
        writer = PayloadWriter(cache, number)
        value = bits.randbytes(200) + value
        writer.add(number.to_bytes(32, "big"), value, "place")
        writer.note()
        written += writer.row_bytes
    assert written < 3_000_000, "as it was first, once more as what others grow out of, and what is new"


def test_the_ends_of_any_number_of_series_are_not_remembered_for_ever() -> None:
    """A place whose values grow for a while, and then begin anew."""
    bits, cache = random.Random(7), BaseCache()
    for number in range(1, 101):
        value = b""
        for part in (1, 2):
            writer = PayloadWriter(cache, 2 * number + part)
            value += bits.randbytes(4_000)
            writer.add(bits.randbytes(32), value, "place")
            writer.note()
        assert list(cache.ends)[-1:] == [(2 * number + 2) << 20], "it may grow"
        assert len(cache.ends) < 10
