"""What waits for a save, what happens when one fails, and going on from a checkpoint of one's choice."""

from __future__ import annotations

import asyncio
import json
import linecache
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import JOB, NODE_VERSION
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import PluginOptionsInvalid, StoreError
from tests.cli.command import workflow
from workflow_runner import CheckpointSaved, Context, Event, Graph, NodeFailed, Result, SourceChanged, WorkflowRunner, node

ENDED: list[str] = []
BROKEN: list[str] = []


@node
async def count(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@node
async def add(value: int) -> int:
    return value + 1


@node
async def odd_value(value: int) -> object:
    return object() if value == 2 else value


@node
async def told(value: object) -> str:
    return type(value).__name__


@node
async def asks(value: str, context: Context) -> bool:
    answer: bool = await context.suspend(f"is {value} right?")
    return answer


@node
async def asks_with_an_object(value: object, context: Context) -> bool:
    answer: bool = await context.suspend(f"is {value} right?", metadata={"value": object()})
    return answer


@node
async def steps(n: int, context: Context) -> AsyncIterator[int]:
    """Commits each step, and asks for a checkpoint of it."""
    for number in range(context.state or 0, n):
        if number in (int(text) for text in BROKEN):
            raise ValueError(number)
        yield number
        context.commit(number + 1)
        await context.checkpoint(f"step {number}")


def chain(*types: str, n: int = 5) -> dict[str, Any]:
    here = __name__
    nodes = [{"id": "s", "type": f"{here}.{types[0]}", "data": {"n": n}}]
    nodes += [{"id": f"n{place}", "type": f"{here}.{name}", "data": {}} for place, name in enumerate(types[1:])]
    nodes.append({"id": "out", "type": "workflow.Output", "data": {"name": "out"}})
    ids = [str(item["id"]) for item in nodes]
    edges = [{"source": a, "target": b, "targetHandle": "value"} for a, b in pairwise(ids)]
    return {"nodes": nodes, "edges": edges}


def runner() -> WorkflowRunner:
    return WorkflowRunner(nodes=[sys.modules[__name__]])


async def run(url: str, graph: dict[str, Any], **options: Any) -> Result:
    return await runner().run(graph, enable={"checkpoint": {"url": url, **options}}, run_id="r")


async def stored(url: str, what: str) -> Any:
    store = Store(locate(url), create=False)
    try:
        return await getattr(store, what)("r")
    finally:
        await store.close()


async def test_written_behind_every_emission_is_saved_and_nobody_waits(store_url: str) -> None:
    saved_one = asyncio.Event()

    @node
    async def count_until_saved(n: int) -> AsyncIterator[int]:
        for number in range(n):
            if number == n // 2:  # by far sooner done than the first save
                await saved_one.wait()
            yield number

    def hear(event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            saved_one.set()

    graph = Graph()
    end = graph.add(add, value=graph.add(add, value=graph.add(count_until_saved, n=300)))
    graph.output("out", end)
    behind = {"checkpoint": {"url": store_url, "every_firing": True, "durability": "async"}}
    result = await WorkflowRunner(on_event=hear).run(graph, enable=behind, run_id="r")
    assert result.outputs["out"] == [number + 2 for number in range(300)]
    saved = await stored(store_url, "checkpoints")
    assert [row.number for row in saved] == list(range(1, len(saved) + 1))
    assert "every_firing" in {row.reason for row in saved}
    assert len(saved) < 300


async def test_written_behind_nothing_is_ahead_of_the_last_checkpoint(store_url: str) -> None:
    behind: list[tuple[str, int, int]] = []

    def hear(event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            behind.append((event.ref.reason, event.steps_behind, event.bytes_behind))

    made = runner()
    made.subscribe(hear)
    options = {"checkpoint": {"url": store_url, "every_firing": True, "durability": "async"}}
    await made.run(chain("count", "add", n=40), enable=options, run_id="r")
    assert behind[-1] == ("end", 0, 0)


async def test_written_behind_no_more_is_ahead_than_the_bound_allows(store_url: str) -> None:
    """With a bound of one emission, each waits for the one before it."""
    graph = chain("count", "add", n=40)
    await run(store_url, graph, every_firing=True, durability="async", max_lag_steps=1)
    assert len(await stored(store_url, "checkpoints")) >= 20


async def test_at_exit_only_the_end_and_what_a_node_asks_for_is_saved(store_url: str) -> None:
    await run(store_url, chain("count", "add", n=50), durability="exit")
    assert [row.reason for row in await stored(store_url, "checkpoints")] == ["end"]


async def test_a_save_that_fails_ends_the_run_which_can_be_resumed(store_url: str) -> None:
    with pytest.raises(StoreError, match=r"node 'n0', outputs\['output'\] cannot be stored"):
        await run(store_url, chain("count", "odd_value", "told"), every_firing=True)
    assert (await stored(store_url, "job")).status in ("failed", "paused")


@pytest.mark.parametrize("options", [{"best_effort": True}, {"required": False}])
async def test_with_best_effort_the_run_goes_on_and_is_told_to_be_degraded(store_url: str, options: dict[str, Any]) -> None:
    result = await run(store_url, chain("count", "odd_value", "told"), every_firing=True, **options)
    assert result.outputs["out"] == ["int", "int", "object", "int", "int"]
    assert result.degraded is not None
    assert "could not be saved" in result.degraded
    job = await stored(store_url, "job")
    assert job.status == "completed"
    store = Store(locate(store_url), create=False)
    assert "could not be saved" in await store.transact(lambda c: c.execute(select(JOB.c.degraded)).scalar_one(), write=False)
    await store.close()


def test_a_degraded_run_leaves_with_an_exit_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(chain("count", "odd_value", "told")).replace(__name__, Path(__file__).stem))
    enable = json.dumps({"every_firing": True, "best_effort": True})
    done = workflow("run", "graph.json", "--nodes", __file__, "--enable", f"checkpoint={enable}", "--json", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == "completed"
    assert "could not be saved" in report["degraded"]


def test_a_degraded_run_that_waits_leaves_as_one_that_waits(tmp_path: Path) -> None:
    """Code 6 is that of a run that is over: who hears it asks nobody for an answer, and a recovery calls the run completed."""
    graph = chain("count", "odd_value", "told", "asks")
    (tmp_path / "graph.json").write_text(json.dumps(graph).replace(__name__, Path(__file__).stem))
    enable = json.dumps({"every_firing": True, "best_effort": True})
    done = workflow("run", "graph.json", "--nodes", __file__, "--enable", f"checkpoint={enable}", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (3, "suspended"), done.stderr
    assert "could not be saved" in report["degraded"]
    assert "is suspended, but degraded: a checkpoint could not be saved" in done.stderr


async def test_a_run_that_waits_is_not_stored_as_such_where_that_was_not_saved(store_url: str) -> None:
    """Nobody could answer it, and no time that comes would wake it: it is one that was stopped, and a resume asks again."""
    result = await run(store_url, chain("count", "asks_with_an_object", n=1), best_effort=True)
    assert result.status == "suspended"
    assert result.degraded is not None
    assert (await stored(store_url, "job")).status == "paused"


async def test_a_run_that_waits_is_stored_as_such_where_one_of_its_waits_was_saved(store_url: str) -> None:
    """Whoever has the answer to that can give it, and a time that comes wakes it; what was not saved is asked again."""
    graph = chain("count", "told", "asks", "asks_with_an_object", n=1)
    graph["nodes"].append({"id": "other", "type": f"{__name__}.asks", "data": {"value": "other"}})
    assert (await run(store_url, graph, best_effort=True)).degraded is None
    result = await runner().resume("r", url=store_url, updates={"n1": True})
    assert sorted(result.suspensions) == ["n2", "other"]
    assert result.degraded is not None
    assert (await stored(store_url, "job")).status == "suspended"


@pytest.mark.parametrize(
    "options",
    [
        {"required": True, "best_effort": True},
        {"durability": "exit", "every_firing": True},
        {"durability": "exit", "every_seconds": 1},
        {"durability": "later"},
        {"max_lag_steps": 0},
        {"max_lag_bytes": True},
    ],
)
async def test_options_that_contradict_each_other_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(PluginOptionsInvalid):
        await run(f"sqlite:///{tmp_path}/c.db", chain("count"), **options)
    assert list(tmp_path.iterdir()) == []


async def failed_run(url: str) -> None:
    BROKEN[:] = ["4"]
    with pytest.raises(NodeFailed):
        await run(url, chain("steps", n=6), explicit=True)
    BROKEN.clear()


async def test_a_run_goes_on_from_the_checkpoint_that_is_named(store_url: str) -> None:
    await failed_run(store_url)
    saved = await stored(store_url, "checkpoints")
    result = await runner().resume("r", url=store_url, checkpoint=2)
    assert result.outputs["out"] == list(range(6))
    after = await stored(store_url, "checkpoints")
    assert [(row.number, row.reason) for row in after[: len(saved)]] == [(row.number, row.reason) for row in saved]
    assert after[len(saved)].reason == "back to 2"
    again = await runner().resume("r", url=store_url, checkpoint=3)  # a completed run, too
    assert again.outputs["out"] == list(range(6))
    for number in (99, 3_000_000_000, 10**20, -(10**20)):  # the last ones no database could be asked for
        with pytest.raises(StoreError, match=f"no checkpoint {number}") as raised:
            await runner().resume("r", url=store_url, checkpoint=number)
        assert not isinstance(raised.value, StoreDamaged)


def asking(by: int) -> Graph:
    """A graph whose node asks for a checkpoint in the middle of a step; with another `by` its source is another."""
    definition = (
        "@node(type='tests.asks')\n"
        "async def asks(context: Context) -> AsyncIterator[int]:\n"
        f"    yield {by}\n"
        "    await context.checkpoint()\n"
        f"    yield 2 * {by}\n"
    )
    lines = definition.splitlines(keepends=True)
    name = f"<asks by {by}>"
    linecache.cache[name] = (len(definition), None, lines, name)
    namespace: dict[str, Any] = {"node": node, "AsyncIterator": AsyncIterator, "Context": Context}
    exec(compile(definition, name, "exec"), namespace)
    graph = Graph()
    graph.output("out", graph.add(namespace["asks"]))
    return graph


async def test_a_run_has_gone_back_before_anything_goes_on(store_url: str) -> None:
    """Killed right then, it goes on from there, and not from what was given up."""
    newest: list[str] = []

    @node
    async def looks(context: Context) -> AsyncIterator[int]:
        newest.extend(row.reason for row in (await stored(store_url, "checkpoints"))[-1:])
        await context.checkpoint()
        yield 1

    graph = Graph()
    graph.output("out", graph.add(looks))
    plain = WorkflowRunner()
    await plain.run(graph, enable={"checkpoint": {"url": store_url, "explicit": True}}, run_id="r")
    await plain.resume("r", graph=graph, url=store_url, checkpoint=1)
    assert newest == ["back to 1"]


async def test_a_completed_run_that_is_refused_as_it_goes_back_stays_completed(store_url: str) -> None:
    plain = WorkflowRunner()
    enable = {"checkpoint": {"url": store_url, "explicit": True}}
    await plain.run(asking(1), enable=enable, run_id="r")
    with pytest.raises(SourceChanged):
        await plain.resume("r", graph=asking(3), url=store_url, checkpoint=1)
    assert [row.reason for row in await stored(store_url, "checkpoints")] == ["explicit", "end"]
    assert (await stored(store_url, "job")).status == "completed"
    assert (await plain.resume("r", graph=asking(1), url=store_url)).outputs == {"out": [1, 2]}


async def test_damage_is_passed_over_only_when_that_is_asked_for(store_url: str) -> None:
    await failed_run(store_url)
    store = Store(locate(store_url), create=False)
    number = len(await store.checkpoints("r"))

    def damage(connection: Connection) -> None:
        connection.execute(delete(NODE_VERSION).where(NODE_VERSION.c.number == number))

    await store.transact(damage)
    await store.close()
    with pytest.raises(StoreDamaged):
        await runner().resume("r", url=store_url)
    assert (await stored(store_url, "job")).status == "failed"
    result = await runner().resume("r", url=store_url, checkpoint="latest-intact")
    assert result.outputs["out"] == list(range(6))
    assert [row.reason for row in await stored(store_url, "checkpoints")][number] == f"back to {number - 1}"
    before = await stored(store_url, "checkpoints"), await stored(store_url, "job")
    assert (await runner().resume("r", url=store_url, checkpoint="latest-intact")).outputs == result.outputs
    assert (await stored(store_url, "checkpoints"), await stored(store_url, "job")) == before  # completed, and intact


async def test_where_every_checkpoint_is_damaged_nothing_begins_anew(store_url: str) -> None:
    await failed_run(store_url)
    store = Store(locate(store_url), create=False)
    await store.transact(lambda connection: connection.execute(delete(NODE_VERSION)))
    with pytest.raises(StoreDamaged, match="run 'r'"):
        await store.restore_latest_intact(RunHistory("r", 2))
    await store.close()
    before = await stored(store_url, "checkpoints")
    with pytest.raises(StoreDamaged, match="run 'r'"):
        await runner().resume("r", url=store_url, checkpoint="latest-intact")
    assert await stored(store_url, "checkpoints") == before
    assert (await stored(store_url, "job")).status == "failed"
