"""Runs outlive a server that is killed and started again, and one that throws them out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import asyncpg
import pytest

from checkpoint_plugin import CheckpointManager, EventLogger
from checkpoint_plugin.database import postgresql
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreUnreachable
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.proxy import Proxy
from tests.checkpoint_plugin.test_plugin import CALLS, runner
from tests.checkpoint_plugin.test_store import cut, definition
from tests.postgres import Server, execute, start_server
from workflow_runner import Context, Graph, Stream, WorkflowRunner, node

GUARD_SECONDS = 120
ITEMS = 60
EVERY = 3
RESTARTS = 3
BREATH_SECONDS = 0.02
AWAY_SECONDS = 0.3
THROW_OUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class DurableServer(Server):
    """A server whose commits are on the disk when it says so."""

    durable = True


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    try:
        server = await asyncio.to_thread(start_server, DurableServer)
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()


@node
async def tick(n: int) -> AsyncIterator[int]:
    for i in range(n):
        CALLS.append(f"tick {i}")
        await asyncio.sleep(BREATH_SECONDS)
        yield i


@node
async def triple(x: int) -> int:
    CALLS.append(f"triple {x}")
    return 3 * x


@node
async def sums(items: Stream[int], context: Context) -> AsyncIterator[int]:
    seen = context.state or 0
    async for x in items:
        seen += x
        yield seen
        context.commit(seen)


def graph() -> Graph:
    graph = Graph()
    tripled = graph.add(triple, x=graph.add(tick, n=ITEMS))
    graph.output("tripled", tripled)
    graph.output("sums", graph.add(sums, items=tripled))
    return graph


WHOLE = {"tripled": [3 * i for i in range(ITEMS)], "sums": [3 * sum(range(i + 1)) for i in range(ITEMS)]}


async def called(count: int) -> None:
    """Wait until so many bodies have begun."""
    while True:
        if len(CALLS) >= count:
            return
        await asyncio.sleep(BREATH_SECONDS)


async def is_whole(url: str) -> None:
    """Every body ran once, and what is stored is what came out, checkpoint after checkpoint."""
    assert sorted(CALLS) == sorted([*(f"tick {i}" for i in range(ITEMS)), *(f"triple {i}" for i in range(ITEMS))])
    assert (await runner(url).resume("r", graph=graph())).outputs == WHOLE
    store = Store(locate(url), create=False)
    numbers = [row.number for row in await store.checkpoints("r")]
    await store.close()
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > ITEMS


async def test_a_run_outlives_a_server_that_is_killed_and_started_again(server: Server) -> None:
    url = server.dsn()
    async with asyncio.timeout(GUARD_SECONDS):
        run = asyncio.create_task(runner(url).run(graph(), enable={"checkpoint": {"every_firing": True}}, run_id="r"))
        for number in range(1, RESTARTS + 1):
            await called(number * ITEMS // RESTARTS)
            assert not run.done()
            await asyncio.to_thread(server.restart, 0.3)
        assert (await run).outputs == WHOLE
    await is_whole(url)


@pytest.mark.parametrize("events", [False, True])
async def test_a_run_outlives_a_server_that_throws_it_out_again_and_again(postgres_url: str, events: bool) -> None:
    thrown = 0
    connection = await asyncpg.connect(postgres_url)
    async with asyncio.timeout(GUARD_SECONDS):
        options = {"every_firing": True, "events": events}
        run = asyncio.create_task(runner(postgres_url).run(graph(), enable={"checkpoint": options}, run_id="r"))
        for count in range(1, 2 * ITEMS, EVERY):  # each time after some progress, so that the slowest machine gets on
            await called(count)
            thrown += len(await connection.fetch(THROW_OUT))
        assert (await run).outputs == WHOLE
    await connection.close()
    assert thrown >= ITEMS // EVERY
    await is_whole(postgres_url)
    if events:
        log = await EventLogger("r", postgres_url).events()
        assert [event.seq for event in log] == list(range(len(log)))
        noted = [(event.kind, event.node_id, event.payload.get("firing", event.payload.get("number"))) for event in log]
        assert len(noted) == len(set(noted))
        assert noted[0][0] == "created"
        assert noted[-1][:2] == ("completed", None)


async def test_a_lease_is_renewed_when_the_server_is_back(server: Server) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        run = asyncio.create_task(runner(server.dsn()).run(graph(), enable={"checkpoint": {"lease_seconds": 3}}, run_id="r"))
        await called(EVERY)
        await asyncio.to_thread(server.restart, 1.5)
        assert (await run).outputs == WHOLE


async def test_a_server_that_stays_away_ends_the_run_which_can_be_resumed(server: Server) -> None:
    url = f"{server.dsn()}&reconnect_seconds=0.3"
    async with asyncio.timeout(GUARD_SECONDS):
        run = asyncio.create_task(runner(url).run(graph(), enable={"checkpoint": {"every_firing": True}}, run_id="r"))
        await called(ITEMS)
        await asyncio.to_thread(server.restart, 3)
        with pytest.raises(StoreUnreachable):
            await run
        while True:
            try:
                await asyncio.to_thread(server.wait)
                break
            except asyncpg.PostgresError:
                await asyncio.sleep(BREATH_SECONDS)
        assert (await runner(server.dsn()).resume("r", graph=graph(), steal=True)).outputs == WHOLE


async def test_a_server_that_is_lost_at_the_first_statement_was_reached(postgres_url: str) -> None:
    await runner(postgres_url).run(graph(), enable={"checkpoint": True}, run_id="r")
    async with Proxy(postgres_url) as proxy:
        proxy.cut(b"pg_class", reply=False)
        result = await runner(proxy.url).resume("r", url=proxy.url)
    assert proxy.cuts == 1
    assert result.outputs == WHOLE


async def test_who_opens_the_store_for_each_call_waits_for_a_server_that_it_had_reached(server: Server) -> None:
    manager = CheckpointManager("r", enabled=True, url=server.dsn())
    assert await manager.save_checkpoint(None, {"a"}, set(), set(), {"save": 1})
    away = asyncio.create_task(asyncio.to_thread(server.restart, 3 * AWAY_SECONDS))
    await asyncio.sleep(AWAY_SECONDS)
    assert await manager.save_checkpoint(None, {"a"}, set(), set(), {"save": 2})
    await away
    found = await manager.restore_checkpoint(None)
    assert found is not None
    assert found.context_data == {"save": 2}


async def test_a_run_that_is_cancelled_while_it_begins_waits_for_no_server_that_is_away(postgres_url: str) -> None:
    """As by an event loop that ends: it waits for all that it cancels."""
    async with WorkflowRunner() as opened:
        async with Proxy(postgres_url) as proxy:
            enable = {"checkpoint": {"url": proxy.url}}
            await opened.run(graph(), enable=enable, run_id="first")
        others = asyncio.all_tasks()
        run = asyncio.ensure_future(opened.run(graph(), enable=enable, run_id="second"))
        await asyncio.sleep(0.3)
        for task in asyncio.all_tasks() - others:
            task.cancel()
        await asyncio.wait((run,), timeout=5)
        assert run.cancelled()


async def test_a_save_that_no_standby_has_heard_of_is_not_acknowledged(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up waiting for a synchronous standby leaves a commit that this server alone has: to find it says nothing."""
    monkeypatch.setattr(postgresql, "CLIENT_GRACE", 0.1)
    store = Store(locate(f"{server.dsn()}&statement_seconds=0.2&reconnect_seconds=0.5"), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(NodeSnapshot("a", "running", state=1)), "1")

    async def wait_for_standbys(names: str) -> None:
        await execute(server.dsn(), f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await execute(server.dsn(), "SELECT pg_reload_conf()")

    async def commits_at_once() -> bool:
        try:
            await asyncio.wait_for(execute(server.dsn(), "SELECT pg_logical_emit_message(true, 'a', 'b')"), 0.2)
        except TimeoutError:
            return False
        return True

    await wait_for_standbys("away")
    async with asyncio.timeout(GUARD_SECONDS):
        while await commits_at_once():
            pass  # the processes of a server hear of it one after the other
        with pytest.raises(StoreUnreachable):
            await store.save(history, cut(NodeSnapshot("a", "running", state=2)), "2")
        await wait_for_standbys("")
        await store.save(history, cut(NodeSnapshot("a", "running", state=2)), "2")
        found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert found.nodes[0].state == 2
    await store.close()
