"""A large text that a step was given is encoded and hashed once, however many cuts the step lives through."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, ClassVar

import pytest

from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.test_pruning import cut, definition

SIZE = 300_000


class Counting(Codec):
    """Counts the large values that it encodes."""

    encoded: ClassVar[list[int]] = []

    def encode(self, value: Any, place: Callable[[], str]) -> bytes:
        data = super().encode(value, place)
        if len(data) > SIZE:
            self.encoded.append(len(data))
        return data


@pytest.fixture
def counted() -> Counting:
    Counting.encoded.clear()
    return Counting()


async def test_the_argument_of_a_long_step_is_encoded_once(store_url: str, counted: Counting) -> None:
    store = Store(locate(store_url), create=True, codec=counted)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    text, data = "word " * SIZE, bytes(SIZE)
    for number in range(1, 6):
        node = NodeSnapshot("a", "running", firing=1, commits=number, arguments={"text": text, "data": data}, state=number)
        await store.save(history, cut(node), "step")
    assert len(Counting.encoded) == 2
    other = "verb " * SIZE  # as long, and not the same
    node = NodeSnapshot("a", "running", firing=2, arguments={"text": other, "data": data})
    await store.save(history, cut(node), "step")
    assert len(Counting.encoded) == 3
    for number, expected in ((1, text), (5, text), (6, other)):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        assert found.nodes[0].arguments == {"text": expected, "data": data}
    await store.close()


async def test_what_was_pruned_is_encoded_again(store_url: str, counted: Counting) -> None:
    store = Store(locate(store_url), create=True, codec=counted)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    text = "word " * SIZE
    await store.save(history, cut(NodeSnapshot("a", "running", firing=1, state=text)), "1")
    await store.save(history, cut(NodeSnapshot("a", "running", firing=2, state=None)), "2")
    await prune_runs(store, Retention(keep_last=1), ["r"])
    await store.save(history, cut(NodeSnapshot("a", "running", firing=3, state=text)), "3")
    found = await store.restore(RunHistory("r", 1, 1), 3)
    assert found is not None
    assert found.nodes[0].state == text
    await store.save(history, cut(NodeSnapshot("a", "running", firing=3, commits=1, state=text)), "4")
    await prune_runs(store, Retention(keep_last=1), ["r"])
    await store.save(history, cut(NodeSnapshot("a", "running", firing=3, commits=2, state=text)), "5")
    found = await store.restore(RunHistory("r", 1, 1), 5)
    assert found is not None
    assert found.nodes[0].state == text
    await store.close()


async def test_of_values_that_grew_only_the_last_are_remembered_and_where_their_series_end(store_url: str) -> None:
    store = Store(locate(store_url), create=True)
    await store.insert_job("r", definition())
    history, random = RunHistory("r", 1, 1), Random(1)
    values: list[bytes] = []
    for number in range(120):  # every second one is unlike the one before; what grows out of it begins a series
        values.append(random.randbytes(3_000) if number % 2 == 0 else values[-1] + b"more")
        node = NodeSnapshot("a", "running", firing=1, commits=number, state=values[-1])
        await store.save(history, cut(node), "step")
    assert len(history.bases.ends) < 10, "a run may go on for any time"
    found = await store.restore(RunHistory("r", 1, 1), 119)
    assert found is not None and found.nodes[0].state == values[118]
    await store.save(history, cut(NodeSnapshot("a", "running", firing=1, commits=120, state=values[-1] + b"more")), "step")
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None and found.nodes[0].state == values[-1] + b"more"
    await store.close()
