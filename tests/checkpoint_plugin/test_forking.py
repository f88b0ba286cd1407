"""Forks: another run that begins where a run stood in a checkpoint, on both databases."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, event, select

from checkpoint_plugin import (
    CheckpointManager,
    FieldInvalid,
    NotForkable,
    StoreDamaged,
    ValueNotStorable,
    fork_run,
    update_suspended_state,
)
from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.cli.fork import fork
from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.models import Base, Job
from checkpoint_plugin.opening.witness import Witness
from checkpoint_plugin.recovery.claims import Search, claim_run, end_claim, fetch_waiting
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.saving.writing import LARGE_SAVE, CutWriter
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from hookspecs import RunExists, RunNotFound, StoreError
from tests.checkpoint_plugin.proxy import Proxy
from tests.checkpoint_plugin.test_encryption import OLD, text
from tests.checkpoint_plugin.test_plugin import checkpoints, runner, status
from tests.cli.command import environment, workflow, write_graph
from workflow_runner import Context, Graph, NodeFailed, Stream, node

BROKEN: list[int] = []
KEYS: list[str] = []
EVERY = {"every_firing": True}
LARGE = "a text of many words, again and again. " * 500


@pytest.fixture(autouse=True)
def _fresh() -> None:
    BROKEN.clear()
    KEYS.clear()


@node
async def numbers(n: int, context: Context) -> AsyncIterator[int]:
    for number in range(context.state or 0, n):
        if number in BROKEN:
            raise RuntimeError(f"no {number}")
        KEYS.append(context.idempotency_key)
        yield number
        context.commit(number + 1)


@node
async def sums(items: Stream[int], text: str, context: Context) -> AsyncIterator[str]:
    total = context.state or 0
    async for item in items:
        total += item
        yield f"{total} {text}"
        context.commit(total)


@node
async def ask(question: str, context: Context) -> str:
    return f"{question}: {await context.suspend('a person')}"


def stream(text: str = "so far") -> Graph:
    graph = Graph()
    graph.output("sums", graph.add(sums, items=graph.add(numbers, n=6), text=text))
    return graph


def expected(text: str = "so far") -> list[str]:
    return [f"{total} {text}" for total in (0, 1, 3, 6, 10, 15)]


@asynccontextmanager
async def opened(url: str, **more: Any) -> AsyncIterator[Store]:
    store = Store(locate(url), create=False, **more)
    try:
        yield store
    finally:
        await store.close()


async def rows_of(store: Store, run_id: str) -> dict[str, Any]:
    """Every row of a run."""
    tables = [table for table in Base.metadata.sorted_tables if table.name == "job" or "run_id" in table.c]

    def read(connection: Any) -> dict[str, Any]:
        of_run = ((table, table.c["id" if table.name == "job" else "run_id"]) for table in tables)
        return {t.name: sorted(map(repr, connection.execute(select(t).where(column == run_id)))) for t, column in of_run}

    return await store.transact(read, write=False)


async def broken(url: str, **options: Any) -> None:
    """A run that fails in the middle of its stream."""
    BROKEN.append(4)
    with pytest.raises(NodeFailed):
        await runner(url).run(stream(), enable={"checkpoint": {**EVERY, **options}}, run_id="r")
    BROKEN.clear()


async def test_a_fork_of_each_checkpoint_ends_as_the_run_would_and_leaves_it_alone(store_url: str) -> None:
    await broken(store_url)
    async with opened(store_url) as store:
        before = await rows_of(store, "r")
        told = [row.number for row in await store.checkpoints("r")]
        assert len(told) > 4 and len(before["node_version"]) > 4
        for number in told:
            assert await fork_run("r", f"from {number}", number, store=store) == number
        assert await fork_run("r", "from the newest", store=store) == told[-1]
        assert await rows_of(store, "r") == before
    new_ids = {f"from {number}": number for number in told} | {"from the newest": told[-1]}
    assert {await status(store_url, run_id) for run_id in new_ids} == {"paused"}
    for run_id, number in new_ids.items():
        assert (await runner(store_url).resume(run_id, graph=stream())).outputs == {"sums": expected()}
        assert (await checkpoints(store_url, run_id))[0] == f"fork of r, {number}"
    async with opened(store_url) as store:
        assert await rows_of(store, "r") == before
        assert not (await check_store(store)).findings
    assert (await runner(store_url).resume("r", graph=stream())).outputs == {"sums": expected()}


async def test_what_was_done_before_is_not_done_again(store_url: str) -> None:
    await broken(store_url)
    done = len(KEYS)
    await fork_run("r", "s", url=store_url)
    await runner(store_url).resume("s", graph=stream())
    assert len(KEYS) - done == 6 - 4, "two numbers were left"
    await runner(store_url).resume("r", graph=stream())
    assert set(KEYS[done : done + 2]).isdisjoint(KEYS[done + 2 :]), "another run, with keys of its own"


async def test_a_run_is_forked_while_it_is_executed_and_both_go_on(store_url: str) -> None:
    at_four, go_on = asyncio.Event(), asyncio.Event()

    @node
    async def counts(n: int, context: Context) -> AsyncIterator[int]:
        for number in range(context.state or 0, n):
            if number == 4:
                at_four.set()
                await go_on.wait()
            yield number
            context.commit(number + 1)

    graph = Graph()
    graph.output("numbers", graph.add(counts, n=6))
    executed = asyncio.create_task(runner(store_url).run(graph, enable={"checkpoint": EVERY}, run_id="r"))
    await at_four.wait()
    await fork_run("r", "s", url=store_url)
    go_on.set()
    assert (await executed).outputs == {"numbers": list(range(6))}
    assert (await runner(store_url).resume("s", graph=graph)).outputs == {"numbers": list(range(6))}


async def test_a_fork_of_a_fork_that_is_executed_under_options_of_the_run(store_url: str) -> None:
    await broken(store_url)
    await fork_run("r", "s", url=store_url)
    await fork_run("s", "t", url=store_url)
    assert (await runner(store_url).resume("t", graph=stream())).outputs == {"sums": expected()}
    assert len(await checkpoints(store_url, "t")) > 3, "every_firing is an option of the run"


async def test_a_completed_run_is_forked_before_its_end(store_url: str) -> None:
    await runner(store_url).run(stream(), enable={"checkpoint": EVERY}, run_id="r")
    with pytest.raises(NotForkable, match="is its end, and leaves nothing to do"):
        await fork_run("r", "s", url=store_url)
    assert await fork_run("r", "s", 2, url=store_url) == 2
    assert (await runner(store_url).resume("s", graph=stream())).outputs == {"sums": expected()}


async def test_what_cannot_be_forked_is_refused_and_nothing_written(store_url: str) -> None:
    await broken(store_url)
    await runner(store_url).run(stream(), enable={"checkpoint": True}, run_id="other")
    async with CheckpointManager("by hand", enabled=True, url=store_url) as manager:
        await manager.save_checkpoint(completed_nodes=["a"])
    async with opened(store_url) as store:
        before = await rows_of(store, "other")
        for arguments, error, match in [
            (("r", "other"), RunExists, "other"),
            (("nobody", "s"), RunNotFound, "nobody"),
            (("\udc80", "s"), RunNotFound, "is not in"),
            (("r", "s", 999), StoreError, "no checkpoint 999"),
            (("r", "s", 2**40), StoreError, "no checkpoint"),
            (("by hand", "s"), NotForkable, "saved by hand"),
            (("r", "a/b"), FieldInvalid, "no '/'"),
            (("r", ""), FieldInvalid, "1 to 200 characters"),
        ]:
            with pytest.raises(error, match=match):
                await fork_run(*arguments, store=store)  # type: ignore[arg-type]
        assert await rows_of(store, "other") == before
        assert not any((await rows_of(store, "s")).values())


async def test_a_run_that_has_no_checkpoint_yet_is_refused(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN.append(0)
    monkeypatch.setattr(CutWriter, "write_sqlite", fail)
    monkeypatch.setattr(CutWriter, "statement", fail)
    with pytest.raises(Exception, match="not now"):
        await runner(store_url).run(stream(), enable={"checkpoint": True}, run_id="r")
    monkeypatch.undo()
    with pytest.raises(NotForkable, match="no checkpoint yet"):
        await fork_run("r", "s", url=store_url)


def fail(*arguments: Any, **more: Any) -> Any:
    raise RuntimeError("not now")


async def test_there_is_no_run_without_its_checkpoint(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await broken(store_url)
    async with opened(store_url) as store:
        monkeypatch.setattr(CutWriter, "write", fail)
        with pytest.raises(RuntimeError, match="not now"):
            await fork_run("r", "s", store=store)
        monkeypatch.undo()
        assert not any((await rows_of(store, "s")).values())
        await fork_run("r", "s", store=store)


@pytest.mark.parametrize("reply", [True, False])
async def test_a_fork_whose_commit_was_not_heard_of_is_made_once_and_told(postgres_url: str, tmp_path: Path, reply: bool) -> None:
    graph = stream(LARGE)
    place = f"file://{tmp_path}"
    kept = {"blobs": place, "blob_bytes": 10_000}
    await runner(postgres_url).run(graph, enable={"checkpoint": {**EVERY, **kept}}, run_id="r")
    async with Proxy(postgres_url) as proxy, opened(proxy.url, blobs=Blobs(locate(proxy.url), place, 10_000)) as store:
        await store.job("r")
        proxy.cut(reply=reply, after=b"INSERT INTO job")
        assert await fork_run("r", "s", 2, store=store) == 2
        assert proxy.cuts == 1
        with pytest.raises(RunExists):
            await fork_run("r", "s", 2, store=store)
    again = await runner(postgres_url).resume("s", graph=graph, enable={"checkpoint": kept})
    assert again.outputs == {"sums": expected(LARGE)}


async def test_an_answer_reaches_one_of_the_two(store_url: str) -> None:
    graph = Graph()
    graph.output("answer", graph.add(ask, question="may we"))
    assert (await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")).status == "suspended"
    await fork_run("r", "s", url=store_url)
    assert await status(store_url, "s") == "suspended"
    await update_suspended_state("s", "ask", "no", store_url)
    assert (await runner(store_url).resume("s", graph=graph)).outputs == {"answer": ["may we: no"]}
    assert await status(store_url, "r") == "suspended"
    await update_suspended_state("r", "ask", "yes", store_url)
    await fork_run("r", "t", url=store_url)
    assert (await runner(store_url).resume("t", graph=graph)).outputs == {"answer": ["may we: yes"]}, "as it was answered"


async def test_a_fork_of_a_run_that_was_answered_while_a_recovery_had_claimed_it_waits_as_the_run(store_url: str) -> None:
    graph = Graph()
    for name in ("one", "two"):
        graph.output(f"answer {name}", graph.add(ask, node_id=name, question=name))
    await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")
    await update_suspended_state("r", "one", 1, store_url)
    async with opened(store_url) as store:
        claim = await store.transact(lambda connection: claim_run(connection, "w", Search(timedelta()), 5))
        assert claim is not None
        await update_suspended_state("r", "two", 2, store=store)
        await fork_run("r", "s", store=store)
        await store.transact(lambda connection: end_claim(connection, claim, counts=False))
        waiting = await store.transact(lambda connection: fetch_waiting(connection, Search(timedelta())), write=False)
        assert {row.id for row in waiting} == {"r", "s"}, "a recovery goes on with both"
    assert (await status(store_url, "r"), await status(store_url, "s")) == ("suspended", "suspended")
    outputs = (await runner(store_url).resume("s", graph=graph)).outputs
    assert outputs == {"answer one": ["one: 1"], "answer two": ["two: 2"]}


async def test_a_fork_of_an_encrypted_run_has_a_key_of_its_own(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", text(OLD))
    await broken(store_url)
    async with opened(store_url, ring=KeyRing((OLD,))) as store:
        await fork_run("r", "s", store=store)
        theirs, ours = [(await rows_of(store, run_id))["run_key"] for run_id in "rs"]
        assert len(theirs) == len(ours) == 1 and theirs[0].replace("'r'", "'s'") != ours[0]
        rows = await rows_of(store, "s")
        assert "so far" not in repr(rows) and "numbers" not in repr(rows["job"])
    assert (await runner(store_url).resume("s", graph=stream())).outputs == {"sums": expected()}


@pytest.mark.parametrize("ring", [None, KeyRing((OLD,))], ids=["plain", "encrypted"])
async def test_a_fork_is_found_as_the_run_is(store_url: str, ring: KeyRing | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if ring is not None:
        monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", text(OLD))
    await broken(store_url)
    async with opened(store_url, ring=ring) as store:
        jobs = JobRepository(store=store)

        def told(job: Job) -> None:
            job.user_id, job.workflow_id, job.metadata_json, job.max_retries = "u", "w", '{"of": "u"}', 7

        await jobs.change("r", told)
        await fork_run("r", "s", store=store)
        assert {job.id for job in (await jobs.find(user_id="u", workflow_id="w")).items} == {"r", "s"}
        found = await jobs.get("s")
        assert (found.metadata_json, found.max_retries) == ('{"of": "u"}', 7)
        assert ('{"of": "u"}' in repr((await rows_of(store, "s"))["job"])) == (ring is None)


@node
async def noise(seed: int) -> bytes:
    return Random(seed).randbytes(LARGE_SAVE // 2)


@node
async def compare(data: bytes, seed: int, context: Context) -> bool:
    await context.suspend("a person")
    return data == Random(seed).randbytes(LARGE_SAVE // 2)


def noises(many: int) -> Graph:
    graph = Graph()
    for seed in range(many):
        graph.output(f"same {seed}", graph.add(compare, node_id=f"c{seed}", data=graph.add(noise, seed=seed), seed=seed))
    return graph


@node
async def growing_noise(seed: int) -> AsyncIterator[bytes]:
    for more in range(3):
        yield Random(seed).randbytes(LARGE_SAVE // 2) + bytes(more)


def growing_noises(many: int) -> Graph:
    """As `noises`; behind the value that a node asks about two more wait, of which one grew out of the other."""
    graph = Graph()
    for seed in range(many):
        graph.output(f"same {seed}", graph.add(compare, node_id=f"c{seed}", data=graph.add(growing_noise, seed=seed), seed=seed))
    return graph


@pytest.mark.parametrize("make", [noises, growing_noises])
async def test_a_large_fork_is_sent_in_parts(postgres_url: str, make: Callable[[int], Graph]) -> None:
    """A server takes no message above a gigabyte, and a fork holds at once what a run has saved bit by bit."""
    graph, sent = make(5), []

    def weigh(connection: Any, cursor: Any, statement: str, parameters: Any, *others: Any) -> None:
        sent.append(sum(len(part) for each in parameters if isinstance(each, tuple) for part in each if type(part) is bytes))

    assert (await runner(postgres_url).run(graph, enable={"checkpoint": True}, run_id="r")).status == "suspended"
    event.listen(Engine, "before_cursor_execute", weigh)
    try:
        await fork_run("r", "s", url=postgres_url)
    finally:
        event.remove(Engine, "before_cursor_execute", weigh)
    assert sum(sent) > 2 * LARGE_SAVE > max(sent)
    store = Store(locate(postgres_url), create=False)
    assert not (await check_store(store, ("s",), None)).all_findings
    await store.close()
    for seed in range(5):
        await update_suspended_state("s", f"c{seed}", None, postgres_url)
    resumed = await runner(postgres_url).resume("s", graph=graph)
    assert {name: items[0] for name, items in resumed.outputs.items()} == {f"same {seed}": True for seed in range(5)}


async def test_what_a_run_could_store_its_fork_and_an_answer_to_it_can(store_url: str) -> None:
    """A run may allow larger values than is usual (`max_value_bytes`); whoever has only the store does not know of it."""
    graph = Graph()
    graph.output("answer", graph.add(ask, question=graph.input("question")))
    options = {"checkpoint": {"max_value_bytes": 50_000}}
    await runner(store_url).run(graph, {"question": LARGE}, enable=options, run_id="r")
    async with opened(store_url, codec=Codec(max_value_bytes=10_000)) as store:
        await fork_run("r", "s", store=store)
        with pytest.raises(ValueNotStorable, match=r"run 's', node 'ask', answer .* the limit is 10,000"):
            await update_suspended_state("s", "ask", LARGE, store=store)
        await update_suspended_state("s", "ask", "yes", store=store)
    assert (await runner(store_url).resume("s", graph=graph)).outputs == {"answer": [f"{LARGE}: yes"]}


async def test_a_fork_has_files_of_its_own(store_url: str, tmp_path: Path) -> None:
    graph, place = stream(LARGE), f"file://{tmp_path}/kept"
    kept = {"blobs": place, "blob_bytes": 10_000}
    BROKEN.append(4)
    with pytest.raises(NodeFailed):
        await runner(store_url).run(graph, enable={"checkpoint": {**EVERY, **kept}}, run_id="r")
    BROKEN.clear()
    blobs = Blobs(locate(store_url), place, 10_000)
    async with opened(store_url, blobs=blobs) as store:
        before = set(Path(tmp_path / "kept").rglob("*"))
        with pytest.raises(RunExists):
            await fork_run("r", "r", store=store)
        assert set(Path(tmp_path / "kept").rglob("*")) == before
        await fork_run("r", "s", store=store)
        assert set(Path(tmp_path / "kept").rglob("*")) > before
        await runner(store_url).resume("r", graph=graph, enable={"checkpoint": kept})
        await prune_runs(store, Retention(drop_finished=0.001), ["r"])
        with pytest.raises(RunNotFound):
            await store.job("r")
    again = await runner(store_url).resume("s", graph=graph, enable={"checkpoint": kept})
    assert again.outputs == {"sums": expected(LARGE)}


async def test_what_a_witness_knows_of_an_earlier_run_is_forgotten(store_url: str, tmp_path: Path) -> None:
    Witness(tmp_path).note("s", 99, b"of a run that was deleted")
    await broken(store_url, witness=str(tmp_path))
    await fork_run("r", "s", url=store_url)
    assert (await runner(store_url).resume("s", graph=stream())).outputs == {"sums": expected()}


OWN_TYPES = """
from dataclasses import dataclass
from checkpoint_plugin import register
from workflow_runner import Context, node

@register
@dataclass
class Page:
    number: int

@node
async def ask(a: int, context: Context) -> str:
    context.commit(Page(a))
    return f"{context.state} {await context.suspend('which page')}"
"""


def test_a_run_with_types_of_its_own_is_forked_where_they_are_imported(store_url: str, tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "ask")
    (tmp_path / "nodes.py").write_text(OWN_TYPES, encoding="utf-8")
    env = environment(WORKFLOW_CHECKPOINT_URL=store_url)
    begun = workflow(
        "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--enable", "checkpoint", cwd=tmp_path, env=env
    )
    assert begun.returncode == 3, begun.stderr
    told = workflow("fork", "r", "s", cwd=tmp_path, env=env)
    assert told.returncode == 2 and "call checkpoint_plugin.fork_run" in told.stderr and "body" in told.stderr
    program = "import asyncio, nodes; from checkpoint_plugin import fork_run; print(asyncio.run(fork_run('r', 's')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    again = workflow("resume", "s", "--nodes", "nodes.py", "--set", "body=2", "--json", cwd=tmp_path, env=env)
    assert json.loads(again.stdout.splitlines()[-1])["outputs"] == {"out": ["Page(number=1) 2"]}


async def test_a_run_that_lacks_what_its_witness_knows_is_forked_from_a_named_checkpoint_only(
    store_url: str, tmp_path: Path
) -> None:
    await broken(store_url, witness=str(tmp_path))
    await fork_run("r", "s", url=store_url)
    Witness(tmp_path).note("r", 99, b"of a commit that the disk has lost")
    with pytest.raises(StoreDamaged, match="checkpoint 99 was durable"):
        await fork_run("r", "t", url=store_url)
    async with opened(store_url) as store:
        assert not any((await rows_of(store, "t")).values())
    assert await fork_run("r", "t", 2, url=store_url) == 2


async def test_the_command_says_how_to_go_on(store_url: str) -> None:
    await broken(store_url)

    async def command(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, fork, [*arguments, "--url", store_url])

    done = await command("r", "once more", "--checkpoint", "2")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("go on with it: workflow resume 'once more'\n")
    told = await command("r", "s", "--json")
    assert json.loads(told.output) == {"run_id": "s", "of": "r", "checkpoint": len(await checkpoints(store_url))}
    assert (await command("r", "t", "--quiet")).output == ""
    assert isinstance((await command("r", "s")).exception, RunExists)
    assert isinstance((await command("r", "a/b")).exception, FieldInvalid)
