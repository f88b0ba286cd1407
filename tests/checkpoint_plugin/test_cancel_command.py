"""`workflow cancel RUN`, on both databases."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from checkpoint_plugin import EventLogger, NotResumable
from checkpoint_plugin.cli.cancel import cancel
from checkpoint_plugin.cli.suspended import suspended
from hookspecs import LeaseLost, RunNotFound, WorkflowError
from tests.cli.command import start, write_graph
from workflow_runner import Context, Event, Graph, RunEnded, WorkflowRunner, node


@node
async def ask(context: Context) -> Any:
    return await context.suspend("go on?")


@node
async def work() -> int:
    await asyncio.Event().wait()
    return 1


def one(definition: Any) -> Graph:
    graph = Graph()
    graph.output("out", graph.add(definition, node_id="n"))
    return graph


def enabled(url: str) -> dict[str, Any]:
    return {"checkpoint": {"url": url, "lease_seconds": 1}}


async def call(url: str, run_id: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cancel, [run_id, "--url", url, "--json"])


async def test_a_run_that_waits_is_cancelled_and_nobody_goes_on_with_it(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await WorkflowRunner().run(one(ask), enable=enabled(store_url), run_id="r")
    for _ in range(2):
        done = await call(store_url, "r")
        assert (done.exit_code, json.loads(done.stdout)) == (0, {"run_id": "r", "status": "cancelled"})
    with pytest.raises(NotResumable, match="it is cancelled"):
        await WorkflowRunner().resume("r", graph=one(ask), updates={"n": 1}, url=store_url)
    listed = await asyncio.to_thread(CliRunner().invoke, suspended, ["--url", store_url, "--json"])
    assert json.loads(listed.stdout) == {"suspended": []}


async def test_a_run_that_is_executed_stops_when_it_is_cancelled(store_url: str) -> None:
    begun = asyncio.Event()
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        begun.set()

    options = {**enabled(store_url)["checkpoint"], "events": True}
    running = asyncio.create_task(WorkflowRunner(on_event=hear).run(one(work), enable={"checkpoint": options}, run_id="r"))
    await begun.wait()
    assert (await call(store_url, "r")).exit_code == 0
    with pytest.raises(LeaseLost, match="it was cancelled") as lost:
        await running
    assert lost.value.cancelled
    assert heard[-1] == RunEnded("r", "cancelled", lost.value)
    logged = (await EventLogger("r", store_url).events())[-1]
    assert (logged.kind, logged.payload) == ("cancelled", {"reason": "it was cancelled in the store", "attempt": 1})


def test_the_command_that_executes_it_says_that_it_was_cancelled(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "waits", enable={"checkpoint": {"lease_seconds": 2}})
    running = start("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--json", cwd=tmp_path)
    try:
        while not (tmp_path / "waiting").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        done = CliRunner().invoke(cancel, ["r", "--url", f"sqlite:///{tmp_path}/.workflow/checkpoints.db"])
        assert done.exit_code == 0
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 4
    assert json.loads(out)["status"] == "cancelled"
    assert "run r: cancelled\n" in err


async def test_what_cannot_be_cancelled_is_told(store_url: str) -> None:
    await WorkflowRunner().run(Graph(), enable=enabled(store_url), run_id="r")
    for run_id, code, kind in (("r", 2, WorkflowError), ("s", 5, RunNotFound)):
        done = await call(store_url, run_id)
        assert isinstance(done.exception, kind)
        assert done.exception.exit_code == code
