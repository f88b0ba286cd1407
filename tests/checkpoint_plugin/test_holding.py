"""Nodes that hold much: a row tells what changed, and whatever is read is what was saved."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ormsgpack
import pytest
from sqlalchemy import delete, func, select, text, update

from checkpoint_plugin import fork_run
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged, ValueNotStorable
from checkpoint_plugin.models import LEASE, NODE_VERSION, PAYLOAD
from checkpoint_plugin.restoring.cut_queries import fetch_continued, fetch_nodes
from checkpoint_plugin.restoring.joined import Joined
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.completed import NO_BLOCKS, Tally
from checkpoint_plugin.saving.holding import MANY, Holding, find_changes, held_by, pack_link
from checkpoint_plugin.saving.rows import FIELDS
from checkpoint_plugin.saving.writing import MANY_ROWS, CutWriter
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.digests import row_digest
from checkpoint_plugin.stored_bytes.sealing import PLAIN
from hookspecs import EdgeSnapshot, NodeSnapshot, Prefix, Snapshot, Suspension
from tests.checkpoint_plugin.heard import hear
from tests.checkpoint_plugin.test_store import definition
from tests.postgres import execute
from workflow_runner import Context, Graph, Stream, WorkflowRunner, node

AT = datetime(2026, 1, 2, tzinfo=UTC)
ONE = "the same object, again and again, " * 20


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    found = Store(locate(store_url), create=True)
    await found.insert_job("r", definition())
    yield found
    await found.close()


def history() -> RunHistory:
    return RunHistory("r", 1, 1, tally=Tally(least=4))


def plain(found: NodeSnapshot) -> tuple[Any, ...]:
    """All of a node, in one form."""
    values = {item.name: getattr(found, item.name) for item in fields(NodeSnapshot)}
    values["taken"] = list(values["taken"])
    values["collected"] = list(values["collected"])
    return tuple(values.values())


async def save(store: Store, known: RunHistory, *nodes: NodeSnapshot) -> int:
    return (await store.save(known, Snapshot("r", 1, "running", nodes, AT), "x")).number


async def nodes_of(store: Store, number: int | None = None, **more: Any) -> Mapping[str, NodeSnapshot]:
    found = await store.restore(RunHistory("r", 1, 1), number, **more)
    assert found is not None
    return {each.node_id: each for each in found.nodes}


async def rows_of(store: Store, node_id: str) -> Sequence[Any]:
    columns = (NODE_VERSION.c.number, NODE_VERSION.c.continues, func.length(NODE_VERSION.c.body).label("size"))
    query = (
        select(*columns).where(NODE_VERSION.c.run_id == "r", NODE_VERSION.c.node_id == node_id).order_by(NODE_VERSION.c.number)
    )
    return await store.transact(lambda connection: connection.execute(query).all(), write=False)


async def check_whole(store: Store) -> None:
    report = await check_store(store)
    assert not report.findings
    assert not [finding for run in report.runs for finding in run.findings]


def waiting(items: Sequence[Any], **more: Any) -> NodeSnapshot:
    """A node with one edge, on which items wait."""
    return NodeSnapshot("n", "running", inbox=(EdgeSnapshot("e", tuple(items), False),), **more)


# What the rows are.


async def test_a_row_tells_what_changed(store: Store) -> None:
    known, items = history(), [f"item {number} " * 30 for number in range(200)]
    for first in range(100):
        number = await save(store, known, waiting(items[first : first + 100], firing=first))
        assert (await nodes_of(store))["n"].inbox[0].items == tuple(items[first : first + 100]), number
    rows = await rows_of(store, "n")
    whole = [row.number for row in rows if row.continues is None]
    assert whole == [1, 68], "an edge and an item for each: more than what it holds by then"
    assert all(row.continues in (None, row.number - 1) for row in rows)
    assert max(row.size for row in rows if row.continues) < min(row.size for row in rows if not row.continues) / 10
    assert {first: (await nodes_of(store, first + 1))["n"].firing for first in range(0, 100, 7)} == {
        f: f for f in range(0, 100, 7)
    }
    await check_whole(store)


async def test_a_node_that_holds_little_is_told_whole(store: Store) -> None:
    known = history()
    for many in (MANY - 2, MANY - 1, MANY, MANY + 1, MANY - 2, MANY - 1, 0, MANY):
        await save(store, known, waiting(range(many)))
        assert (await nodes_of(store))["n"].inbox[0].items == tuple(range(many))
    assert [row.continues for row in await rows_of(store, "n")] == [None, None, 2, 3, None, None, None, None]


async def test_of_what_does_not_change_not_all_rows_are_read(store: Store) -> None:
    known, items = history(), list(range(60))
    for firing in range(300):
        await save(store, known, waiting(items, firing=firing))
    whole = [row.number for row in await rows_of(store, "n") if row.continues is None]
    assert len(whole) == 4, "each is read after as many rows as it has items, or a few more"


async def test_lists_that_somebody_changes_later_are_no_matter(store: Store) -> None:
    known, taken, latest = history(), [("e", number) for number in range(50)], {"e": 0}
    for number in range(50, 60):
        await save(store, known, waiting((), taken=taken, latest=latest))
        assert plain((await nodes_of(store))["n"]) == plain(waiting((), taken=taken, latest=latest))
        taken.append(("e", number))
        latest["e"] = number


@pytest.mark.parametrize("constants", [(False, True), ("one", "two", "three", None), (1, 1.0, True)])
async def test_where_a_few_constants_wait_a_row_tells_what_changed(store: Store, constants: Sequence[Any]) -> None:
    """The same objects are everywhere in the queue: where the newer one begins must be found all the same."""
    known, rng = history(), random.Random(1)
    items = rng.choices(constants, weights=[98, *[1] * (len(constants) - 1)], k=1_000)
    for _ in range(30):
        items = [*items[20:], *rng.choices(constants, k=20)]
        await save(store, known, waiting(items))
    found = (await nodes_of(store))["n"].inbox[0].items
    assert list(map(repr, found)) == list(map(repr, items))
    assert [row.number for row in await rows_of(store, "n") if row.continues is None] == [1]
    assert all(row.size < 400 for row in await rows_of(store, "n") if row.continues)


async def test_what_is_restored_is_continued(store: Store) -> None:
    known, items = history(), list(range(100))
    await save(store, known, waiting(items))
    await save(store, known, waiting([*items, 100]))
    known = history()
    found = await store.restore(known, None)
    assert found is not None
    (held,) = found.nodes
    await save(store, known, replace(held, firing=1))
    await save(store, known, replace(held, firing=2))
    assert [row.continues for row in await rows_of(store, "n")] == [None, 1, 2, 3]
    assert plain((await nodes_of(store))["n"]) == plain(replace(held, firing=2))
    await check_whole(store)


@pytest.mark.parametrize("item", ["plain", "x" * 100, "x" * 1_000, {"a": ["dict"]}, {"a": "x" * 5_000}, None])
async def test_many_attempts_of_a_save_each_write_what_changed(store: Store, item: Any) -> None:
    known, items = history(), [(item, number) if number % 2 else item for number in range(40)]
    await save(store, known, waiting(items, latest={"a": item}))
    for number in range(200):
        known = history()
        found = await store.restore(known, None, brief=number % 3 == 0)
        assert found is not None
        (held,) = found.nodes
        taken = [*held.taken, ("e", held.inbox[0].items[0])]
        latest = {"a": held.inbox[0].items[0]} if number % 7 == 0 else held.latest
        items = [*items[1:], (item, number)]
        edge = EdgeSnapshot("e", (*held.inbox[0].items[1:], (item, number)), False)
        await save(store, known, replace(held, taken=taken, inbox=(edge,), latest=latest, firing=number))
    rows = await rows_of(store, "n")
    whole = [row.number for row in rows if row.continues is None]
    assert 2 < len(whole) < 10
    found_now = (await nodes_of(store))["n"]
    assert (len(found_now.taken), found_now.inbox[0].items) == (200, tuple(items))
    await check_whole(store)


async def test_states_of_earlier_attempts_are_not_kept_by_the_rows_of_later_ones(store: Store) -> None:
    """A row of an earlier attempt that is continued stays, and so does its state, of whatever size."""
    known, rng = history(), random.Random(1)
    await save(store, known, waiting(range(1_000), state=rng.randbytes(5_000)))
    for number in range(30):
        known = history()
        found = await store.restore(known, None)
        assert found is not None
        await save(store, known, replace(found.nodes[0], firing=number, state=rng.randbytes(5_000)))
    await prune_runs(store, Retention(keep_last=1), ["r"])
    count = select(func.count()).select_from(PAYLOAD)
    assert await store.transact(lambda connection: connection.execute(count).scalar_one(), write=False) <= 3
    await check_whole(store)


async def test_another_order_of_the_last_that_came_is_told_by_itself(store: Store) -> None:
    """What is held while a save is under way may go on in another order than that of the edges, among thousands of others."""
    known, rng = history(), random.Random(1)
    many, order = Counter[int](), list[int]()
    for number in range(200):
        came = rng.sample(range(50), 3)
        many.update(came)
        order[max(0, len(order) - 3) :] = rng.sample(order[-3:], len(order[-3:]))
        order += came
        inbox = tuple([EdgeSnapshot(f"e{place}", tuple(range(many[place])), False) for place in range(50)])
        held = NodeSnapshot("n", "running", inbox=inbox, order=tuple([f"e{place}" for place in order]))
        await save(store, known, held)
        if number % 20 == 0:
            assert plain((await nodes_of(store))["n"]) == plain(held)
    rows = await rows_of(store, "n")
    assert sum(row.continues is None for row in rows) < 10
    await check_whole(store)


async def test_what_rows_of_earlier_attempts_tell_beside_items_is_weighed(store: Store) -> None:
    """A state that stands in the row itself is in every one of them."""
    known = history()
    await save(store, known, waiting(range(40), state="s" * 1_400))
    for number in range(30):
        known = history()
        found = await store.restore(known, None)
        assert found is not None
        await save(store, known, replace(found.nodes[0], firing=number))
    rows = await rows_of(store, "n")
    assert 10 <= sum(row.continues is None for row in rows) < 30


async def test_who_goes_back_tells_all_again(store: Store) -> None:
    known, items = history(), list(range(100))
    for firing in range(3):
        await save(store, known, waiting(items, firing=firing))
    found = await store.restore(known, 2)
    assert found is not None
    await store.rewind(known, found)
    await save(store, known, waiting(items, firing=5))
    assert [row.continues for row in await rows_of(store, "n")] == [None, 1, 2, None, 4]
    assert (await nodes_of(store))["n"].firing == 5
    await check_whole(store)


async def test_what_was_pruned_since_it_was_restored_is_not_continued(store: Store) -> None:
    known, items = history(), list(range(100))
    for firing in range(3):
        await save(store, known, waiting(items, firing=firing))
    known = history()
    found = await store.restore(known, None)
    assert found is not None
    await prune_runs(store, Retention(keep_last=1), ["r"])
    await save(store, known, replace(found.nodes[0], firing=5))
    assert (await rows_of(store, "n"))[-1].continues is None
    assert (await nodes_of(store))["n"].firing == 5
    await check_whole(store)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is encoded."""
    encode, found = Codec.encode, list[Any]()

    def counted(self: Codec, value: Any, place: Any) -> bytes:
        found.append(value)
        return encode(self, value, place)

    monkeypatch.setattr(Codec, "encode", counted)
    return found


async def test_a_text_is_encoded_once(store: Store, encoded: list[Any]) -> None:
    known, items = history(), [f"a text of some length {number}" * 2 for number in range(300)]
    for last in range(100, 300):
        await save(store, known, waiting(items[last - 100 : last]))
    assert len(encoded) == 299
    assert (await nodes_of(store))["n"].inbox[0].items == tuple(items[199:299])


def wide(edges: Sequence[EdgeSnapshot], **more: Any) -> NodeSnapshot:
    """A node with many edges."""
    return NodeSnapshot("n", "idle", inbox=tuple(edges), order=tuple(edge.edge_id for edge in edges for _ in edge.items), **more)


async def test_an_object_that_is_given_again_with_another_content_is_another_item(store: Store) -> None:
    """Its consumer has taken it, and the one that makes it has filled it anew: the same object waits on the same edge."""
    known, buffers = history(), [{"n": number} for number in range(40)]
    edges = [EdgeSnapshot(f"e{number}", (buffer,), False) for number, buffer in enumerate(buffers)]
    latest = {f"e{number}": buffer for number, buffer in enumerate(buffers)}
    await save(store, known, wide(edges, latest=latest))
    for number in (5, 39, 5):
        buffers[number]["n"] += 100
        edges[number] = replace(edges[number])
        expected = plain(wide(edges, latest=latest))
        await save(store, known, wide(edges, latest=latest))
        assert plain((await nodes_of(store))["n"]) == expected
    assert [row.continues for row in await rows_of(store, "n")] == [None, 1, 2, 3]
    first = (await nodes_of(store, 1))["n"]
    assert [edge.items for edge in first.inbox] == [({"n": number},) for number in range(40)]


async def test_of_an_edge_that_is_as_it_was_no_item_is_looked_at(store: Store, encoded: list[Any]) -> None:
    known = history()
    edges = [EdgeSnapshot(f"e{number}", ({"n": number},), False) for number in range(40)]
    await save(store, known, wide(edges))
    encoded.clear()
    edges[7] = EdgeSnapshot("e7", (*edges[7].items, {"n": -1}), False)
    await save(store, known, wide(edges))
    assert encoded == [{"n": 7}, {"n": -1}]


async def test_an_item_that_cannot_be_stored_is_told_where_it_stands(store: Store) -> None:
    known, items = history(), [*range(50)]
    await save(store, known, waiting(items))
    with pytest.raises(ValueNotStorable, match=r"node 'n', inbox of edge 'e'\[50\]"):
        await save(store, known, waiting([*items, object()]))
    await save(store, known, waiting([*items, 50]))
    assert (await nodes_of(store))["n"].inbox[0].items == tuple(range(51))
    assert [row.continues for row in await rows_of(store, "n")] == [None, 1]


async def test_a_save_that_failed_is_not_continued(store: Store) -> None:
    known, items = history(), [*range(50)]
    await save(store, known, waiting(items))
    await store.transact(lambda connection: connection.execute(update(LEASE).values(generation=1)))
    await save(store, known, waiting([*items, 50]))
    assert [row.continues for row in await rows_of(store, "n")] == [None, None], "rows may have been pruned: all is told again"
    assert (await nodes_of(store))["n"].inbox[0].items == tuple(range(51))


async def test_what_has_gone_is_soon_mentioned_no_more(store: Store) -> None:
    """Items come and go, and a prune keeps the newest checkpoint alone: of values not many more are left than wait."""
    known, items = history(), list[str]()
    for number in range(300):
        items = [*items, f"item {number} " * 200][-60:]
        await save(store, known, waiting(items))
    await prune_runs(store, Retention(keep_last=1), ["r"])
    assert (await nodes_of(store))["n"].inbox[0].items == tuple(items)
    count = select(func.count()).select_from(PAYLOAD)
    assert await store.transact(lambda connection: connection.execute(count).scalar_one(), write=False) <= 2 * 60 + MANY
    await check_whole(store)


async def test_rows_that_only_tell_of_something_else_are_not_continued_for_ever(store: Store) -> None:
    known, inbox = history(), tuple([EdgeSnapshot(f"e{number}", (), True) for number in range(40)])
    for firing in range(200):
        await save(store, known, NodeSnapshot("n", "running", firing=firing, inbox=inbox))
    whole = [row.number for row in await rows_of(store, "n") if row.continues is None]
    assert whole == [1, 74, 147], "as many rows as edges that it has"
    assert (await nodes_of(store))["n"].firing == 199


async def test_states_that_no_checkpoint_has_any_more_are_pruned_with_them(store: Store) -> None:
    """Also where the rows that told them are still continued."""
    known, rng = history(), random.Random(1)
    for _ in range(30):
        await save(store, known, waiting(range(40), state=rng.randbytes(5_000)))
    await prune_runs(store, Retention(keep_last=1), ["r"])
    count = select(func.count()).select_from(PAYLOAD)
    assert await store.transact(lambda connection: connection.execute(count).scalar_one(), write=False) <= 2
    await check_whole(store)


async def test_rows_that_tell_the_same_state_again_are_soon_continued_no_more(store: Store) -> None:
    """A state that stands in the row itself is in every one of them, and a restore would read it as often."""
    known, taken = history(), [("e", number) for number in range(40)]
    for number in range(200):
        taken = [*taken, ("e", number)]
        await save(store, known, NodeSnapshot("n", "running", state="s" * 1_400, taken=taken))
    rows = await rows_of(store, "n")
    newest = max(row.number for row in rows if row.continues is None)
    assert 4 <= sum(row.continues is None for row in rows) < 80
    assert sum(row.size for row in rows if row.number >= newest) < 20_000
    assert (await nodes_of(store))["n"].taken == taken


@pytest.mark.parametrize(
    "beside",
    [
        {"arguments": {f"a{number}": "x" * 60 for number in range(40)}},
        {"suspension": Suspension("why?", AT, state="s" * 1_400)},
        {"suspension": Suspension("r" * 2_000, AT)},
        {"error": "e" * 2_000},
    ],
    ids=["arguments", "suspension", "reason", "error"],
)
async def test_a_restore_reads_not_much_more_than_there_is_whatever_rows_tell(store: Store, beside: dict[str, Any]) -> None:
    """Each row tells again what is neither an item nor an edge, in few large values or in many small ones."""
    known, items, read = history(), [*range(200)], 0
    for number in range(100):
        items = [*items, number]
        await save(store, known, waiting(items, **beside))
    for row in await rows_of(store, "n"):
        read = row.size + (0 if row.continues is None else read)
    held = [row.size for row in await rows_of(store, "n") if row.continues is None]
    assert len(held) > 1
    assert read < 10 * max(held)
    assert plain((await nodes_of(store))["n"]) == plain(waiting(items, **beside))


async def test_a_restore_asks_once_for_all_that_is_continued(store: Store) -> None:
    asked: list[str] = []
    known, items = history(), list(range(500))
    await store.transact(lambda connection: hear(connection, asked.append))
    seen = []
    for last in range(100, 140):
        held = [replace(waiting(items[:last]), node_id=f"n{each}") for each in range(last - 98)]
        await save(store, known, *held)
        asked.clear()
        await nodes_of(store)
        seen.append(len([text for text in asked if text.startswith(("SELECT", "WITH"))]))
    assert set(seen[1:]) == {4}, seen
    assert seen[0] == 3


async def test_many_rows_of_changes_are_sent_in_parts(store: Store) -> None:
    """A message that holds them all would keep the event loop."""
    known, many = history(), MANY_ROWS // 2 + 1
    held = [replace(waiting(range(MANY)), node_id=f"n{number}") for number in range(2 * many)]
    await save(store, known, *held[:many])
    await save(store, known, *held[many:])
    cut = [replace(node, firing=1) for node in held]
    writer = CutWriter(known, Snapshot("r", 1, "running", tuple(cut), AT), "x")
    writer.encode()
    assert not writer.rows.nodes
    assert writer.is_large
    await save(store, known, *cut)
    assert {node.firing for node in (await nodes_of(store)).values()} == {1}
    await check_whole(store)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_restore_reads_a_row_that_is_continued_once(postgres_url: str, analyzed: bool) -> None:
    """PostgreSQL, which knows nothing of how many there are, went through all rows of the run for each that is continued."""
    store = Store(locate(postgres_url), create=True)
    await store.insert_job("r", definition())
    known, items = history(), list(range(300))
    for last in range(100, 300):
        await save(store, known, *(replace(waiting(items[:last]), node_id=f"n{each}") for each in range(10)))
    if analyzed:
        await execute(postgres_url, "ANALYZE")

    def read(connection: Connection) -> tuple[int, int]:
        nodes = fetch_nodes(connection, "r", SimpleNamespace(number=200), NO_BLOCKS)
        many = text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'node_version'")
        before = connection.execute(many).scalar_one()
        found = fetch_continued(connection, "r", nodes)
        return sum(map(len, found.values())), connection.execute(many).scalar_one() - before

    rows, looked_at = await store.transact(read, write=False)
    await store.close()
    assert rows > 1_000
    assert looked_at <= 4 * rows


# Any run.


@dataclass
class Model:
    """A node at random: what comes to it, and goes."""

    node_id: str
    rng: random.Random
    edges: list[list[Any]] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    taken: list[tuple[str, Any]] = field(default_factory=list)
    latest: dict[str, Any] | None = None
    firing: int = 0

    def __post_init__(self) -> None:
        many = self.rng.choice([1, 1, 2, 5, 60])
        self.edges = [[] for _ in range(many)]
        self.ended = [False] * many

    def value(self) -> Any:
        rng = self.rng
        return rng.choice([None, True, rng.random(), 7, "short", ONE, "v" * rng.randrange(2_500), [rng.random()] * 9, b"x" * 300])

    def step(self) -> None:
        rng = self.rng
        self.firing += 1
        for _ in range(rng.choice([0, 1, 1, 2, 40])):
            place = rng.randrange(len(self.edges))
            if not self.ended[place]:
                self.edges[place].append(self.value())
                self.order.append(place)
        for _ in range(rng.choice([0, 1, 1, 3, 30])):
            if not self.order:
                break
            place = self.order[0] if rng.random() < 0.7 else rng.choice(self.order)
            self.order.remove(place)
            item = self.edges[place].pop(0)
            if rng.random() < 0.7:
                self.taken.append((f"e{place}", item))
            if self.latest is not None or rng.random() < 0.01:
                self.latest = {**(self.latest or {}), f"e{place}": item}
        if rng.random() < 0.05:
            self.taken = self.taken[rng.randrange(len(self.taken) + 1) :]  # a new list, as cuts hold the old one
        if rng.random() < 0.02 and self.taken:  # other code reads in another order: all is given back
            for edge, item in reversed(self.taken):
                place = int(edge[1:])
                self.edges[place].insert(0, item)
                self.order.insert(0, place)
            self.taken = []
        if rng.random() < 0.2:  # what was held comes in another order than that of the edges
            tail = self.order[-5:]
            rng.shuffle(tail)
            self.order[-5:] = tail
        if rng.random() < 0.1:
            self.ended[rng.randrange(len(self.ended))] = True

    def snapshot(self) -> NodeSnapshot:
        inbox = tuple(EdgeSnapshot(f"e{n}", tuple(items), self.ended[n]) for n, items in enumerate(self.edges))
        return NodeSnapshot(
            self.node_id, "running", firing=self.firing, taken=Prefix(self.taken) if self.taken else (),
            latest=None if self.latest is None else dict(self.latest), inbox=inbox,
            order=tuple(f"e{place}" for place in self.order) if len(self.edges) > 1 else (),
        )  # fmt: skip

    def take_back(self, found: NodeSnapshot) -> None:
        self.edges = [list(edge.items) for edge in found.inbox]
        self.ended = [edge.ended for edge in found.inbox]
        self.order = [int(edge[1:]) for edge in found.order] or [0] * len(self.edges[0])
        self.taken = list(found.taken)
        self.latest = None if found.latest is None else dict(found.latest)
        self.firing = found.firing


@pytest.mark.parametrize("seed", range(12))
async def test_any_run(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    models = [Model(f"n{each}", rng) for each in range(4)]
    saved: dict[int, dict[str, tuple[Any, ...]]] = {}
    now: dict[str, tuple[Any, ...]] = {}
    known, continued = history(), 0
    for step in range(150):
        moved = rng.sample(models, rng.randint(1, 2))
        for model in moved:
            model.step()
        cut = [model.snapshot() for model in moved]
        if rng.random() < 0.1:
            cut.append(NodeSnapshot(f"over{step}", "completed", firing=1))
        expected = {each.node_id: plain(each) for each in cut}
        number = await save(store, known, *cut)
        now = {**now, **expected}
        saved[number] = now
        continued += len(known.held)
        what = rng.random()
        if what < 0.1:
            known = history()
            found = await store.restore(known, None, brief=rng.random() < 0.5)
            assert found is not None
            assert {n.node_id: plain(n) for n in found.nodes} == {n: v for n, v in now.items() if n not in found.over}
            for model in models:
                for each in found.nodes:
                    if each.node_id == model.node_id and rng.random() < 0.8:  # else it goes on with equal items that are others
                        model.take_back(each)
        elif what < 0.13:
            await prune_runs(store, Retention(keep_last=rng.randint(1, 9)), ["r"])
        elif what < 0.16:
            known = history()
            back = rng.choice([each.number for each in await store.checkpoints("r")])
            found = await store.restore(known, back)
            assert found is not None
            nodes = {each.node_id: each for each in found.nodes}
            assert {name: plain(each) for name, each in nodes.items()} == saved[back]
            if (ref := await store.rewind(known, found)) is not None:
                saved[ref.number] = now = saved[back]
            models = [model for model in models if model.node_id in nodes] or models
            for model in models:
                if model.node_id in nodes:
                    model.take_back(nodes[model.node_id])
    assert continued > 50, "rows that continue others are what this is about"
    for row in await store.checkpoints("r"):
        assert {name: plain(each) for name, each in (await nodes_of(store, row.number)).items()} == saved[row.number]
    await check_whole(store)


@pytest.mark.parametrize("seed", range(40))
def test_changes_make_of_what_was_what_is(seed: int) -> None:
    """Without a store: the changes between any two moments, whatever they have to do with one another."""
    rng = random.Random(seed)
    model = Model("n", rng)
    one = model.snapshot()
    for _ in range(60):
        for _ in range(rng.choice([1, 1, 5])):
            model.step()
        two = model.snapshot()
        refs = [edge.items for edge in one.inbox]
        before = Holding(one.taken, one.latest, one.inbox, one.order, [], one.latest or {}, refs)
        changes = find_changes(before, two, lambda value, ref: value is ref)
        if changes is not None:
            joined = Joined(fields_of(one))
            joined.add(told(two, changes))
            assert joined.row() == fields_of(two)
            assert changes.size <= held_by(two) + len(two.inbox) + 2
        one = two


def test_however_few_constants_follow_one_another_no_more_is_gone_than_must_be() -> None:
    """Of two queues of the same two objects the older ends with what the newer begins with, as much of it as can be."""
    queues, rng = [items for many in range(5) for items in product("ab", repeat=many)], random.Random(1)
    pairs = list(product(queues, repeat=2))
    for _ in range(1_000):
        older = tuple(rng.choices("aaab", k=12))
        pairs.append((older, (*older[rng.randint(1, 12) :], *rng.choices("aaab", k=9))))
    for were, items in pairs:
        one, two = waiting(were), waiting(items)
        before = Holding(one.taken, one.latest, one.inbox, one.order, [], {}, [were])
        changes = find_changes(before, two, lambda value, ref: value is ref)
        assert changes is not None
        ((_, gone, came),) = changes.edges or [(0, 0, 0)]
        least = next(many for many in range(len(were) + 1) if were[many:] == items[: len(were) - many])
        assert (gone, came) == (least, len(items) - len(were) + least), (were, items)
        joined = Joined(fields_of(one))
        joined.add(told(two, changes))
        assert joined.row() == fields_of(two)


def fields_of(held: NodeSnapshot) -> list[Any]:
    """A row, with the items themselves as their references."""
    row: list[Any] = [None] * len(FIELDS)
    row[FIELDS.index("firing")] = held.firing
    row[FIELDS.index("taken")] = [list(pair) for pair in held.taken]
    row[FIELDS.index("latest")] = None if held.latest is None else [list(pair) for pair in held.latest.items()]
    row[FIELDS.index("inbox")] = [[edge.edge_id, list(edge.items), edge.ended] for edge in held.inbox]
    row[FIELDS.index("order")] = list(held.order)
    return row


def told(held: NodeSnapshot, changes: Any) -> list[Any]:
    row = fields_of(held)
    took = len(held.taken) - changes.took
    row[FIELDS.index("taken")] = [changes.taken_gone, [list(pair) for pair in held.taken[took:]]]
    if held.latest is not None:
        row[FIELDS.index("latest")] = [[edge, held.latest[edge]] for edge in changes.latest]
    came = [(place, gone, held.inbox[place].items, many, held.inbox[place].ended) for place, gone, many in changes.edges]
    row[FIELDS.index("inbox")] = [
        [place, gone, list(items[len(items) - many :]), ended] for place, gone, items, many, ended in came
    ]
    row[FIELDS.index("order")] = [changes.again, changes.arrived]
    return row


@pytest.mark.parametrize(
    ("place", "bad"),
    [
        ("taken", [3, []]),
        ("taken", [-1, []]),
        ("inbox", [[0, 41, [], False]]),
        ("inbox", [[0, -1, [], False]]),
        ("inbox", [[2, 0, [], False]]),
        ("inbox", [[-1, 0, [], False]]),
        ("order", [0, [2]]),
        ("order", [0, [-1]]),
        ("order", [-1, []]),
        ("order", [42, []]),
        ("latest", None),
    ],
)
def test_changes_of_something_else_are_refused(place: str, bad: Any) -> None:
    inbox = (EdgeSnapshot("a", tuple(range(40)), False), EdgeSnapshot("b", (1,), True))
    order = ("a",) * 40 + ("b",)
    held = NodeSnapshot("n", "running", taken=[("a", 1), ("b", 2)], latest={"a": 1}, inbox=inbox, order=order)
    row = fields_of(held)
    nothing: dict[str, Any] = {"taken": [0, []], "inbox": [], "order": [0, []], "latest": []}
    for name, empty in nothing.items():
        row[FIELDS.index(name)] = empty
    good = Joined(fields_of(held))
    good.add(row)
    assert good.row() == fields_of(held)
    row[FIELDS.index(place)] = bad
    with pytest.raises(MalformedValue):
        Joined(fields_of(held)).add(row)


async def test_an_order_without_what_has_gone_is_refused_by_all(store: Store) -> None:
    held = NodeSnapshot(
        "n", "running", inbox=(EdgeSnapshot("a", tuple(range(40)), False), EdgeSnapshot("b", (), False)), order=("b",)
    )
    row = fields_of(held)
    row[FIELDS.index("taken")], row[FIELDS.index("order")] = [0, []], [0, []]
    row[FIELDS.index("inbox")] = [[0, 1, [], False]]
    with pytest.raises(MalformedValue, match="order"):
        Joined(fields_of(held)).add(row)


# What becomes of them.


async def grown(store: Store, known: RunHistory, steps: int = 12) -> list[NodeSnapshot]:
    items, cuts = [f"item {number} " * 30 for number in range(100)], []
    for step in range(steps):
        cuts.append(waiting(items[step : step + 50], firing=step))
        await save(store, known, cuts[-1], NodeSnapshot("other", "running", firing=step))
    return cuts


async def test_a_prune_leaves_what_is_continued(store: Store) -> None:
    cuts = await grown(store, history())
    await prune_runs(store, Retention(keep_last=2), ["r"])
    assert [row.number for row in await rows_of(store, "n")] == list(range(1, 13)), "the first, and all since"
    assert [row.number for row in await rows_of(store, "other")] == [11, 12]
    for number in (11, 12):
        assert plain((await nodes_of(store, number))["n"]) == plain(cuts[number - 1])
    await check_whole(store)
    known = history()
    found = await store.restore(known, None)
    assert found is not None
    (held,) = [each for each in found.nodes if each.node_id == "n"]
    await save(store, known, held)
    await prune_runs(store, Retention(keep_last=1), ["r"])
    assert [(row.number, row.continues) for row in await rows_of(store, "n")] == [(13, None)]
    await check_whole(store)


async def test_a_fork_is_whole(store: Store) -> None:
    cuts = await grown(store, history())
    await store.transact(lambda connection: None)
    await fork_run("r", "s", 8, store=store)
    await prune_runs(store, Retention(keep_last=1), ["r"])
    found = await store.restore(RunHistory("s", 1, 1), None)
    assert found is not None
    assert [plain(each) for each in found.nodes if each.node_id == "n"] == [plain(cuts[7])]
    await check_whole(store)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_row_that_is_missing_or_another_is_damage(
    store_url: str, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encrypted:
        monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", "1" * 64)
    store = Store(locate(store_url), create=True)
    await store.insert_job("r", definition())
    await grown(store, history(), 6)
    of_row = (NODE_VERSION.c.run_id == "r", NODE_VERSION.c.node_id == "n")

    def bend(at: int, **values: Any) -> Callable[[Connection], Any]:
        return lambda c: c.execute(update(NODE_VERSION).where(*of_row, NODE_VERSION.c.number == at).values(**values))

    def body(number: int) -> Callable[[Connection], Any]:
        query = select(NODE_VERSION.c.body, NODE_VERSION.c.digest).where(*of_row, NODE_VERSION.c.number == number)
        return lambda c: tuple(c.execute(query).one())

    three, four = await store.transact(body(3), write=False), await store.transact(body(4), write=False)
    changes: list[tuple[Callable[[Connection], Any], Callable[[Connection], Any]]] = [
        (bend(3, number=9), bend(9, number=3)),
        (bend(1, number=9), bend(9, number=1)),
        (bend(3, body=three[0] + b"x"), bend(3, body=three[0])),
        (bend(3, body=four[0], digest=four[1]), bend(3, body=three[0], digest=three[1])),
        (bend(5, continues=None), bend(5, continues=4)),
        (bend(5, continues=3), bend(5, continues=4)),
        (bend(5, continues=5), bend(5, continues=4)),
        (bend(5, continues=6), bend(5, continues=4)),
        (bend(1, continues=1), bend(1, continues=None)),
        (bend(3, continues=None), bend(3, continues=2)),
        (bend(3, continues=1), bend(3, continues=2)),
    ]
    for spoil, mend in changes:
        await store.transact(spoil)
        with pytest.raises(StoreDamaged):
            await nodes_of(store, 5)
        with pytest.raises(StoreDamaged):
            await nodes_of(store, 5, brief=True)
        report = await check_store(store)
        assert 5 in report.runs[0].damaged, report.runs[0].findings
        await store.transact(mend)
        assert await nodes_of(store, 5)
        await check_whole(store)
    await store.close()


async def test_a_row_that_others_continue_is_missed_without_the_key(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", "1" * 64)
    store = Store(locate(store_url), create=True)
    await store.insert_job("r", definition())
    await grown(store, history(), 6)
    await prune_runs(store, Retention(keep_last=1), ["r"])
    await check_whole(store)
    third = (NODE_VERSION.c.node_id == "n", NODE_VERSION.c.number == 3)
    await store.transact(lambda connection: connection.execute(delete(NODE_VERSION).where(*third)))
    await store.close()
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_KEY")
    store = Store(locate(store_url), create=False)
    (run,) = (await check_store(store)).runs
    assert any("the row that it continues is missing" in finding.what for finding in run.findings), run.findings
    assert 6 in run.damaged
    await store.close()


async def test_a_value_that_is_missing_is_missed_by_every_checkpoint_that_needs_it(store: Store) -> None:
    """The row that told it is not the only one: those that continue it do as long as it waits."""
    known, items = history(), [f"item {number} " * 300 for number in range(60)]
    for first in range(6):
        await save(store, known, waiting(items[first : first + 50]))
    lost = PLAIN.address(store.codec.encode(items[3], str))
    gone = delete(PAYLOAD).where(PAYLOAD.c.digest == lost)
    assert await store.transact(lambda connection: connection.execute(gone).rowcount) == 1
    refused = set()
    for number in range(1, 7):
        try:
            await nodes_of(store, number)
        except StoreDamaged:
            refused.add(number)
    assert refused == {1, 2, 3, 4}
    (run,) = (await check_store(store)).runs
    assert set(run.damaged) == refused
    assert {finding.number for finding in run.findings} == {1}, "which told it"


async def test_a_row_is_continued_only_by_what_was_written_after_it(store: Store) -> None:
    """Another row of the same node and number, whole in itself, as an old copy of the file may have it."""
    await grown(store, history(), 6)
    of_row = (NODE_VERSION.c.run_id == "r", NODE_VERSION.c.node_id == "n", NODE_VERSION.c.number == 3)

    def exchange(connection: Connection) -> None:
        link, digest, row = ormsgpack.unpackb(connection.execute(select(NODE_VERSION.c.body).where(*of_row)).scalar_one())
        row[FIELDS.index("inbox")][0][2][0] = Codec().encode("another", str)
        body = pack_link(link, digest) + ormsgpack.packb(row)
        values = {"body": body, "digest": row_digest("r", "n", 3, body)}
        assert connection.execute(update(NODE_VERSION).where(*of_row).values(values)).rowcount == 1

    await store.transact(exchange)
    for brief in (False, True):
        with pytest.raises(StoreDamaged, match="does not continue"):
            await nodes_of(store, 5, brief=brief)
    assert {4, 5, 6} <= set((await check_store(store)).runs[0].damaged)


# From the runner.


@node
async def plus_one(v: int) -> int:
    return v + 1


@node
async def total(vs: list[int]) -> int:
    return sum(vs)


@node
async def hoard(items: Stream[str]) -> AsyncIterator[int]:
    """Never commits, and keeps all."""
    many = 0
    async for item in items:
        many += len(item)
        yield many


@node
async def count_up(n: int, context: Context) -> AsyncIterator[str]:
    for number in range(context.state or 0, n):
        yield f"{number} " * 40
        context.commit(number + 1)


async def bytes_of_a_collector(path: Path, n: int) -> int:
    graph = Graph()
    value: Any = 0
    values = []
    for _ in range(n):
        value = graph.add(plus_one, v=value)
        values.append(value)
    graph.output("sum", graph.add(total, vs=values))
    enable = {"checkpoint": {"url": f"sqlite:///{path}", "every_nodes": 1}}
    result = await WorkflowRunner().run(graph, enable=enable, run_id="r")
    assert result.outputs == {"sum": [n * (n + 1) // 2]}
    return os.path.getsize(path)


async def bytes_of_a_hoard(path: Path, n: int) -> int:
    graph = Graph()
    graph.output("sizes", graph.add(hoard, items=graph.add(count_up, n=n)))
    enable = {"checkpoint": {"url": f"sqlite:///{path}", "every_firing": True}}
    await WorkflowRunner().run(graph, enable=enable, run_id="r")
    return os.path.getsize(path)


@pytest.mark.parametrize("measure", [bytes_of_a_collector, bytes_of_a_hoard])
async def test_bytes_follow_what_changed(measure: Any, tmp_path: Path) -> None:
    sizes = [await measure(tmp_path / f"{n}.db", n) for n in (200, 400, 800)]
    assert sizes[2] - sizes[1] < 2.5 * (sizes[1] - sizes[0]), sizes
