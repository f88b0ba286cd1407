"""A large value that a step was given is encoded and hashed once or twice, however many cuts the step lives through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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


@pytest.fixture
async def store(store_url: str, counted: Counting) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True, codec=counted)
    await store.insert_job("r", definition())
    yield store
    await store.close()


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


def documents() -> list[dict[str, Any]]:
    return [{"number": number, "text": f"{number} " + "word " * 10_000, "marks": [[True], [None]]} for number in range(10)]


async def test_a_list_of_large_parts_is_encoded_twice(store: Store, counted: Counting) -> None:
    """The second time it is known what it is made of; also where cuts between have other nodes alone."""
    history = RunHistory("r", 1, 1)
    for given in (documents(), tuple(documents()), {document["number"]: document for document in documents()}):
        Counting.encoded.clear()
        for number in range(1, 6):
            node = NodeSnapshot("a", "running", firing=1, commits=number, arguments={"x": given}, state=number)
            await store.save(history, cut(node), "step")
            await store.save(history, cut(NodeSnapshot("b", "running", firing=1, commits=number)), "step")
        assert len(Counting.encoded) == 2
        found = await store.restore(RunHistory("r", 1, 1), None)
        assert found is not None
        assert found.nodes[0].arguments == {"x": given}


async def test_a_value_that_came_to_another_node_is_known_there(store: Store, counted: Counting) -> None:
    given, history = documents(), RunHistory("r", 1, 1)
    for number in range(1, 4):
        await store.save(history, cut(NodeSnapshot("a", "running", commits=number, arguments={"x": given})), "step")
    for number in range(1, 4):
        nodes = NodeSnapshot("a", "completed", commits=3), NodeSnapshot("b", "running", commits=number, arguments={"x": given})
        await store.save(history, cut(*nodes), "step")
    assert len(Counting.encoded) == 2
    await store.save(history, cut(NodeSnapshot("b", "completed", commits=3)), "step")
    assert not history.large, "nobody has it any more"


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given.append({}),
        lambda given: given.pop(),
        lambda given: given.reverse(),
        lambda given: given[3].update(text="another"),
        lambda given: given[3].update(number=3.0),
        lambda given: given[3].update(number=float("nan")),
        lambda given: given[1].update(number=True),
        lambda given: given[3].pop("number"),
        lambda given: given[3]["marks"].append(given[3]["marks"].pop(0)),
        lambda given: given[3]["marks"][0].append(given[3]["marks"].pop()),
        lambda given: given[3].update(marks=([True], [None])),
        lambda given: given.insert(4, given[3]),
    ],
)
async def test_what_was_changed_is_encoded_again(store: Store, counted: Counting, change: Callable[[Any], object]) -> None:
    given, history = documents(), RunHistory("r", 1, 1)
    for number in range(1, 8):
        if number == 5:
            change(given)
        await store.save(history, cut(NodeSnapshot("a", "running", commits=number, arguments={"x": given})), "step")
    assert len(Counting.encoded) == 3
    for number, expected in ((4, documents()), (5, given), (7, given)):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        assert found.nodes[0].arguments is not None
        assert repr(found.nodes[0].arguments["x"]) == repr(expected)


async def test_what_is_changed_while_it_is_encoded_is_encoded_again(
    store: Store, counted: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, history = documents(), RunHistory("r", 1, 1)
    encode = Counting.encode

    def changing(codec: Counting, value: Any, place: Callable[[], str]) -> bytes:
        data = encode(codec, value, place)
        if value is given and len(Counting.encoded) == 2:
            given[0]["number"] = "another"
        return data

    monkeypatch.setattr(Counting, "encode", changing)
    for number in range(1, 6):
        await store.save(history, cut(NodeSnapshot("a", "running", commits=number, arguments={"x": given})), "step")
    assert len(Counting.encoded) == 3
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert found.nodes[0].arguments == {"x": given}


@pytest.mark.parametrize("given", [list(range(200_000)), [["x"] * 10] * 20_000, [b"x" * SIZE, {1, 2}]])
async def test_what_is_sooner_encoded_than_looked_at_is_encoded_each_time(store: Store, counted: Counting, given: Any) -> None:
    history = RunHistory("r", 1, 1)
    for number in range(1, 5):
        await store.save(history, cut(NodeSnapshot("a", "running", commits=number, arguments={"x": given})), "step")
    assert len(Counting.encoded) >= 4


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
