"""The commands about stored runs, on both databases; they read, and make nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click
import pytest
from click.testing import CliRunner, Result

from checkpoint_plugin import CheckpointManager, EventLogger, JobRepository
from checkpoint_plugin.cli.events import events
from checkpoint_plugin.cli.recover import recover
from checkpoint_plugin.cli.runs import checkpoints, runs, show
from checkpoint_plugin.cli.suspended import suspended
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreMissing, StoreUnreadable, StoreUrlInvalid
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import Definition
from hookspecs import NodeSnapshot, RunNotFound, Snapshot
from tests.cli.command import workflow, write_graph

ODD = "b\n\x1b[31mred"
NODES = [{"id": name, "type": "m.f", "data": {}} for name in ("a", ODD, "never")]
BODY = encode({"graph": {"nodes": NODES, "edges": []}, "inputs": {}, "enable": {}}, str)


def call(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def document(command: click.Command, *arguments: str) -> Any:
    """The one JSON object that standard output holds, as its last line."""
    done = call(command, *arguments, "--json")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def fill(url: str, work: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store(locate(url), create=True)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(main())


@pytest.fixture
def filled(store_url: str) -> str:
    """A store with a failed run `r` of two checkpoints, and a run `s` that has only begun."""

    async def work(store: Store) -> None:
        for run_id in ("r", "s"):
            await store.insert_job(run_id, Definition(BODY, "{}", "{}"))
        history = RunHistory("r", 1, 1)
        first = (NodeSnapshot("a", "completed", attempt=2), NodeSnapshot(ODD, "running"))
        await store.save(history, Snapshot("r", 1, "running", first, datetime.now(UTC)), "interval")
        failed = (NodeSnapshot(ODD, "failed", error="E: no\nmore"),)
        await store.save(history, Snapshot("r", 1, "failed", failed, datetime.now(UTC), "E: no\nmore", ODD), "error")

    fill(store_url, work)
    return store_url


def test_runs_are_listed_newest_first(filled: str) -> None:
    listed = document(runs, "--url", filled)["runs"]
    assert [(run["run_id"], run["status"], run["attempt"]) for run in listed] == [("s", "running", 1), ("r", "failed", 1)]
    for run in listed:
        for name in ("created_at", "updated_at"):
            assert datetime.fromisoformat(run[name]).tzinfo is not None


def test_runs_are_chosen_by_status_and_number(filled: str) -> None:
    assert [run["run_id"] for run in document(runs, "--url", filled, "--status", "failed")["runs"]] == ["r"]
    assert [run["run_id"] for run in document(runs, "--url", filled, "--limit", "1")["runs"]] == ["s"]
    assert call(runs, "--url", filled, "--status", "lost").exit_code == 2


@pytest.mark.parametrize(
    ("command", "arguments", "limit"),
    [
        (runs, ["--limit", "99999999999999999999"], "1<=x<=9223372036854775807"),
        (events, ["r", "--after", "99999999999999999999"], "x<=9223372036854775807"),
        (recover, ["--max-age", "1e12"], "0<=x<=31536000000.0"),
        (recover, ["--max-age", "inf"], "0<=x<=31536000000.0"),
        (recover, ["--max-age", "nan"], "'nan' is no number of seconds"),
        (recover, ["--interval", "nan"], "'nan' is no number of seconds"),
    ],
)
def test_a_number_that_no_store_could_be_asked_for(filled: str, command: click.Command, arguments: list[str], limit: str) -> None:
    done = call(command, *arguments, "--url", filled)
    assert done.exit_code == 2
    assert arguments[-2] in done.stderr and limit in done.stderr


def test_the_store_lists_as_many_runs_as_there_are(filled: str) -> None:
    async def work(store: Store) -> None:
        assert len(await store.jobs(limit=10**20)) == 2

    fill(filled, work)


def test_show_names_every_node_also_those_that_never_started(filled: str) -> None:
    found = document(show, "r", "--url", filled)
    assert (found["run_id"], found["status"], found["error"], found["checkpoints"]) == ("r", "failed", "E: no\nmore", 2)
    told = [(node["node_id"], node["type"], node["status"], node["attempt"]) for node in found["nodes"]]
    assert told == [("a", "m.f", "completed", 2), (ODD, "m.f", "failed", 1), ("never", "m.f", "idle", 1)]
    assert [node["status"] for node in document(show, "s", "--url", filled)["nodes"]] == ["idle"] * 3


def test_show_tells_the_same_of_every_node(filled: str) -> None:
    nodes = document(show, "r", "--url", filled)["nodes"] + document(show, "s", "--url", filled)["nodes"]
    fields = {"node_id", "type", "status", "attempt", "started_at", "completed_at", "error"}
    assert [set(node) for node in nodes] == [fields] * 6
    assert [node["error"] for node in nodes] == [None, "E: no\nmore", *[None] * 4]


def test_show_names_the_nodes_of_a_run_that_has_no_graph(store_url: str) -> None:
    async def save() -> None:
        manager = CheckpointManager("by hand", enabled=True, url=store_url)
        await manager.save_checkpoint(completed_nodes={"b", "a"}, pending_nodes={"c"}, outputs={"a": {"x": 1}})

    asyncio.run(save())
    found = document(show, "by hand", "--url", store_url)
    told = [(node["node_id"], node["type"], node["status"]) for node in found["nodes"]]
    assert told == [("a", None, "completed"), ("b", None, "completed"), ("c", None, "scheduled")]
    assert found["completed_nodes"] == 2
    assert "completed" in call(show, "by hand", "--url", store_url).stdout


def test_show_tells_what_the_saves_cost_and_how_old_the_newest_is(filled: str) -> None:
    found, saved = document(show, "r", "--url", filled), document(checkpoints, "r", "--url", filled)["checkpoints"]
    assert (found["completed_nodes"], found["degraded"]) == (1, None)
    assert found["bytes"] == sum(row["bytes"] for row in saved)
    assert found["save_seconds"] == saved[-1]["seconds"] >= 0
    assert found["lag_seconds"] is None  # it has ended
    assert document(show, "s", "--url", filled)["save_seconds"] is None

    async def go_on(store: Store) -> None:
        await store.insert_job("live", Definition(BODY, "{}", "{}"))
        node = NodeSnapshot("a", "running")
        await store.save(RunHistory("live", 1, 1), Snapshot("live", 1, "running", (node,), datetime.now(UTC)), "interval")

    fill(filled, go_on)
    assert document(show, "live", "--url", filled)["lag_seconds"] >= 0


def test_checkpoints_are_listed_oldest_first(filled: str) -> None:
    found = document(checkpoints, "r", "--url", filled)
    assert found["run_id"] == "r"
    assert [(row["number"], row["reason"], row["nodes"]) for row in found["checkpoints"]] == [(1, "interval", 2), (2, "error", 1)]
    assert all(row["bytes"] > 0 and datetime.fromisoformat(row["created_at"]).tzinfo for row in found["checkpoints"])
    assert document(checkpoints, "s", "--url", filled)["checkpoints"] == []


def test_tables_keep_their_lines_whatever_the_values_hold(filled: str) -> None:
    done = call(show, "r", "--url", filled)
    assert done.exit_code == 0
    (row,) = [line for line in done.stdout.splitlines() if "red" in line]
    assert row.split() == [r"b\n\x1b[31mred", "m.f", "failed", "1"]
    assert "\x1b" not in done.stdout
    assert len(call(runs, "--url", filled).stdout.splitlines()) == 3
    assert len(call(checkpoints, "r", "--url", filled).stdout.splitlines()) == 3


@pytest.mark.parametrize("arguments", [(runs,), (show, "r"), (checkpoints, "r")], ids=["runs", "show", "checkpoints"])
def test_quiet_prints_nothing_but_json_where_it_is_asked_for(filled: str, arguments: tuple[Any, ...]) -> None:
    assert call(*arguments, "--url", filled, "--quiet").output == ""
    assert document(*arguments, "--url", filled, "--quiet")


@pytest.mark.parametrize("command", [show, checkpoints], ids=["show", "checkpoints"])
@pytest.mark.parametrize("run_id", ["unknown", "r%", "R", "\udcff"])
def test_an_unknown_run_is_an_error_of_the_store(filled: str, command: click.Command, run_id: str) -> None:
    error = call(command, run_id, "--url", filled).exception
    assert isinstance(error, RunNotFound)
    assert error.exit_code == 5


@pytest.mark.parametrize("command", [show, checkpoints], ids=["show", "checkpoints"])
def test_a_missing_store_is_an_error_and_is_not_made(tmp_path: Path, command: click.Command) -> None:
    error = call(command, "r", "--url", f"sqlite:///{tmp_path}/folder/c.db").exception
    assert isinstance(error, StoreMissing)
    assert error.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_no_store_has_no_runs_and_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_URL", raising=False)
    assert document(runs) == {"runs": []}
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_URL", f"sqlite:///{tmp_path}/other/c.db")
    assert document(runs) == {"runs": []}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [runs, suspended], ids=["runs", "suspended"])
def test_a_folder_in_the_place_of_a_store_is_an_error(tmp_path: Path, command: click.Command) -> None:
    error = call(command, "--url", f"sqlite:///{tmp_path}").exception
    assert isinstance(error, StoreUnreadable)
    assert (error.exit_code, "is a folder" in str(error)) == (5, True)


def test_an_empty_database_has_no_runs(postgres_url: str) -> None:
    assert document(runs, "--url", postgres_url) == {"runs": []}


def test_a_url_of_another_kind_is_wrong_usage() -> None:
    error = call(runs, "--url", "mysql://me:geheim@h/d").exception
    assert isinstance(error, StoreUrlInvalid)
    assert error.exit_code == 2
    assert "geheim" not in str(error)


@pytest.fixture
def logged(filled: str) -> str:
    """The same with an event log of `r`, and one of `alone`, which has no row."""

    async def work(store: Store) -> None:
        for run_id in ("r", "alone"):
            async with EventLogger(run_id, store=store) as log:
                await log.log("created", payload={"attempt": 1})
                await log.log("started", ODD)
                await log.log("failed", "a", {"error": ("no", 1)})

    fill(filled, work)
    return filled


def test_events_are_listed_by_question(logged: str) -> None:
    found = document(events, "r", "--url", logged)
    assert found["run_id"] == "r"
    assert [(e["seq"], e["kind"], e["node_id"]) for e in found["events"]] == [
        (0, "created", None),
        (1, "started", ODD),
        (2, "failed", "a"),
    ]
    assert found["events"][2]["payload"] == {"error": {"$type": "tuple", "value": ["no", 1]}}
    assert all(datetime.fromisoformat(e["time"]).tzinfo is not None for e in found["events"])
    asked = document(events, "r", "--kind", "failed", "--kind", "created", "--after", "0", "--url", logged)
    assert [e["seq"] for e in asked["events"]] == [2]
    assert [e["seq"] for e in document(events, "alone", "--node", "a", "--url", logged)["events"]] == [2]
    assert document(events, "s", "--url", logged)["events"] == []
    assert "It has a log if it is started with the option" in call(events, "s", "--url", logged).stderr
    for asked_for in (("--kind", "failed"), ("--node", ""), ("--after", "0"), ("--json",), ("--quiet",)):
        assert call(events, "s", *asked_for, "--url", logged).stderr == ""
    assert call(events, "r", "--url", logged).stderr == ""
    assert document(events, "alone", "--kind", "nothing", "--url", logged)["events"] == []
    text = call(events, "r", "--url", logged).stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4


def test_following_ends_with_the_run(logged: str) -> None:
    done = call(events, "r", "--follow", "--json", "--url", logged)
    assert done.exit_code == 0
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [0, 1, 2]
    assert len(call(events, "r", "--follow", "--after", "0", "--url", logged).stdout.splitlines()) == 2
    assert isinstance(call(events, "other", "--follow", "--url", logged).exception, RunNotFound)
    assert isinstance(call(events, "other", "--url", logged).exception, RunNotFound)


def follow_created(url: str) -> tuple[subprocess.Popen[str], IO[str]]:
    """A process that follows run `s` and has shown its first event, and what it prints."""
    code = "from checkpoint_plugin.cli.events import events; events()"
    command = [sys.executable, "-c", code, "s", "--follow", "--json", "--url", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None

    async def first(store: Store) -> None:
        async with EventLogger("s", store=store) as log:
            await log.log("created")

    fill(url, first)
    assert json.loads(process.stdout.readline())["kind"] == "created"
    return process, process.stdout


def test_following_shows_what_comes(logged: str) -> None:
    process, printed = follow_created(logged)

    async def last(store: Store) -> None:
        async with EventLogger("s", store=store) as log:
            await log.log("completed")
        await JobRepository(store=store).change("s", lambda job: job.mark_completed())

    fill(logged, last)
    assert json.loads(printed.readline())["kind"] == "completed"
    assert process.wait(30) == 0
    printed.close()


def test_following_ends_when_nobody_reads(logged: str) -> None:
    process, printed = follow_created(logged)
    printed.close()
    try:
        assert process.wait(30) == 0, "the run goes on, and tells nothing more"
    finally:
        process.kill()


def test_a_run_that_was_set_aside_says_why(filled: str) -> None:
    async def work(store: Store) -> None:
        await JobRepository(store=store).change("r", lambda job: setattr(job, "set_aside", "it was resumed 5 times"))

    fill(filled, work)
    assert document(show, "r", "--url", filled)["set_aside"] == "it was resumed 5 times"
    assert "it was resumed 5 times" in call(show, "r", "--url", filled).stdout
    assert [run["set_aside"] for run in document(runs, "--url", filled)["runs"]] == [None, "it was resumed 5 times"]


def test_a_question_that_is_called_as_a_timer_is_told_as_one_that_waits_for_an_answer(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "asks_for_sleep")
    done = workflow(
        "run", graph, "--nodes", "nodes.py", "--input", "a=3", "--enable", "checkpoint", "--run-id", "r", cwd=tmp_path
    )
    assert "  body waits: sleep. Answer: workflow resume r --nodes nodes.py --set 'body=JSON'" in done.stderr


@pytest.mark.parametrize("node_id", ["a\n'b\\\x85 c", "'b'", "b"])
def test_the_hint_of_how_to_answer_is_one_line_that_a_shell_takes(tmp_path: Path, node_id: str) -> None:
    graph = tmp_path / write_graph(tmp_path, "asks")
    graph.write_text(graph.read_text().replace('"body"', json.dumps(node_id)))
    start = ("run", "flow.json", "--nodes", "nodes.py", "--input", "a=3", "--enable", "checkpoint", "--run-id", "r")
    hint = workflow(*start, cwd=tmp_path).stderr.splitlines()[-1]
    words = hint.partition("Answer: workflow ")[2].replace("JSON", '"yes"')
    told = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True, encoding="utf-8"
    )
    done = workflow(*told.stdout.split("\0")[:-1], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, 'out: "yes"\n')


def test_a_suspended_run_says_what_it_waits_for_unless_it_is_quiet(tmp_path: Path) -> None:
    start = ("run", write_graph(tmp_path, "asks"), "--nodes", "nodes.py", "--input", "a=3", "--enable", "checkpoint")
    done = workflow(*start, "--run-id", "r", cwd=tmp_path)
    assert done.returncode == 3
    assert (
        "Run 'r' is suspended:\n  body waits: may it go on?. Answer: workflow resume r --nodes nodes.py --set 'body=JSON'"
        in done.stderr
    )
    quiet = workflow(*start, "--quiet", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (3, "", "")
