"""`workflow recover` as a user meets it: runs that were killed, in processes of their own, on both databases."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from checkpoint_plugin import Job, JobRepository
from checkpoint_plugin.recovery.child import resume_in_child
from tests.cli.command import environment, start, workflow
from tests.distribution import install_distribution
from tests.postgres import Server, start_server

NODES = """
import asyncio
from pathlib import Path
from typing import Any
from workflow_runner import node

@node
async def first(a: Any) -> Any:
    journal(f"first {a}")
    return a

@node
async def second(a: Any) -> Any:
    journal(f"begun {a}")
    while not Path("go on").exists():
        await asyncio.sleep(0.01)
    journal(f"ended {a}")
    return a

def journal(line: str) -> None:
    with Path("journal").open("a") as file:
        file.write(line + "\\n")
"""
FLOW: dict[str, Any] = {
    "nodes": [
        {"id": "in", "type": "workflow.Input", "data": {"name": "a"}},
        {"id": "first", "type": "nodes.first", "data": {}},
        {"id": "second", "type": "nodes.second", "data": {}},
        {"id": "out", "type": "workflow.Output"},
    ],
    "edges": [
        {"source": "in", "target": "first", "targetHandle": "a"},
        {"source": "first", "target": "second", "targetHandle": "a"},
        {"source": "second", "target": "out", "targetHandle": "value"},
    ],
    "enable": {"checkpoint": {"every_firing": True}},
}
PATIENCE_SECONDS = 40


class Folder:
    """A folder with a workflow, and the runs that are started there."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.env = environment(WORKFLOW_CHECKPOINT_URL=url)
        self.jobs = JobRepository(url)
        (path / "nodes.py").write_text(NODES)
        (path / "flow.json").write_text(json.dumps(FLOW))

    def kill_runs(self, *names: str, with_signal: int = signal.SIGKILL) -> None:
        """Start runs and kill each in the middle of its second node."""
        started = {}
        for name in names:
            arguments = (
                "run",
                "flow.json",
                "--nodes",
                "nodes.py",
                "--run-id",
                name,
                "--input",
                f"a={json.dumps(name)}",
                "--quiet",
            )
            started[name] = start(*arguments, cwd=self.path, env=self.env)
        for name, process in started.items():
            self.wait(lambda name=name: f"begun {name}" in self.journal())  # type: ignore[misc]
            process.send_signal(with_signal)
            process.communicate()

    def wait(self, wanted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted():
            assert time.monotonic() < deadline, self.journal()
            time.sleep(0.02)

    def journal(self) -> list[str]:
        path = self.path / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def go_on(self) -> None:
        (self.path / "go on").touch()

    def watch(self) -> subprocess.Popen[str]:
        return start("recover", "--nodes", "nodes.py", "--watch", "--interval", "0.1", "--json", cwd=self.path, env=self.env)

    def job(self, run_id: str) -> Job:
        return asyncio.run(self.jobs.get(run_id))


@pytest.fixture
def folder(tmp_path: Path, store_url: str) -> Folder:
    return Folder(tmp_path, store_url)


def test_every_killed_run_is_resumed(folder: Folder) -> None:
    folder.kill_runs("one", "two")
    folder.go_on()
    done = workflow("recover", "--nodes", "nodes.py", "--json", cwd=folder.path, env=folder.env)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert {(run["run_id"], run["status"], run["error"]) for run in json.loads(line)["runs"]} == {
        ("one", "completed", None),
        ("two", "completed", None),
    }
    counted = Counter(folder.journal())
    for name in ("one", "two"):
        assert (counted[f"first {name}"], counted[f"begun {name}"], counted[f"ended {name}"]) == (1, 2, 1)
    again = workflow("recover", "--nodes", "nodes.py", "--json", cwd=folder.path, env=folder.env)
    assert (again.returncode, json.loads(again.stdout)) == (0, {"runs": []})


def test_a_run_that_cannot_be_resumed_is_told(folder: Folder) -> None:
    folder.kill_runs("one")
    done = workflow("recover", cwd=folder.path, env=folder.env)
    assert done.returncode == 1
    assert done.stdout.startswith("run one: refused: ") and "nodes" in done.stdout
    job = folder.job("one")
    assert (job.status, job.retry_count) == ("running", 0)


def test_another_plugin_with_a_store_is_not_in_the_way(folder: Folder) -> None:
    modules = {"archive": "def make(options): raise SystemExit('made')\ndef open_loader(url): raise SystemExit('asked')"}
    entries = {"workflow_runner": {"archive": "archive:make"}, "workflow_runner.stores": {"archive": "archive:open_loader"}}
    packages = install_distribution(folder.path / "packages", "sample-archive", entries=entries, modules=modules)
    folder.env = environment(packages, WORKFLOW_CHECKPOINT_URL=folder.env["WORKFLOW_CHECKPOINT_URL"])
    folder.kill_runs("one", "two")
    folder.go_on()
    unnamed = workflow("resume", "two", "--nodes", "nodes.py", "--json", cwd=folder.path, env=folder.env)
    assert unnamed.returncode == 2 and "archive, checkpoint" in json.loads(unnamed.stdout)["error"]["message"]
    arguments = ("resume", "two", "--nodes", "nodes.py", "--enable", "checkpoint", "--json")
    named = workflow(*arguments, cwd=folder.path, env=folder.env)
    assert named.returncode == 0, named.stderr
    done = workflow("recover", "--nodes", "nodes.py", "--json", cwd=folder.path, env=folder.env)
    assert json.loads(done.stdout) == {"runs": [{"run_id": "one", "status": "completed", "error": None}]}


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_blocked_plugin_is_blocked_where_the_run_is_executed(folder: Folder, way: str) -> None:
    modules = {"traced": "from pathlib import Path\nPath('imported').touch()\ndef make(options): return object()"}
    entries = {"workflow_runner": {"sample": "traced:make"}}
    packages = install_distribution(folder.path / "packages", "sample-plugin", entries=entries, modules=modules)
    flow = {**FLOW, "enable": {**FLOW["enable"], "sample": True}}
    (folder.path / "flow.json").write_text(json.dumps(flow))
    folder.env = environment(packages, WORKFLOW_CHECKPOINT_URL=folder.env["WORKFLOW_CHECKPOINT_URL"])
    folder.kill_runs("one")
    (folder.path / "imported").unlink()
    folder.go_on()
    blocked = folder.env | {"WORKFLOW_DISABLE_PLUGINS": "other" if way == "option" else "sample"}
    options = ["-p", "no:sample" if way == "option" else "no:other"]
    done = workflow("recover", "--nodes", "nodes.py", *options, cwd=folder.path, env=blocked)
    assert done.returncode == 1
    assert done.stdout.startswith("run one: refused: ") and "'sample'" in done.stdout and "blocked" in done.stdout
    assert not (folder.path / "imported").exists()


DIES_ONCE = """
import os
from pathlib import Path
from workflow_runner import node

@node
async def once(a: int) -> int:
    if not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), 9)
    return a
"""


def test_a_file_of_nodes_may_be_named_like_a_module_of_python(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(DIES_ONCE)
    nodes = [{"id": "once", "type": "json.once", "data": {"a": 1}}]
    (tmp_path / "flow.json").write_text(json.dumps({"nodes": nodes, "enable": {"checkpoint": True}}))
    command = [sys.executable, "-P", "-m", "workflow_runner.cli"]  # without the current folder, as the script that is installed

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        given = [*command, *arguments, "--nodes", "json.py"]
        return subprocess.run(given, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=60)

    assert call("run", "flow.json", "--run-id", "one").returncode == -signal.SIGKILL
    done = call("recover")
    assert (done.returncode, done.stdout) == (0, "run one: completed\n")


async def test_the_folder_of_a_recovery_may_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a version of the program that a newer one has taken the place of."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    gone.rmdir()
    found = await resume_in_child("r", f"sqlite:///{tmp_path / 'none.db'}", ())
    monkeypatch.chdir(tmp_path)
    assert found.code == 5
    assert "there is no store at" in (found.told or "")


def test_without_a_store_there_is_nothing_to_do(tmp_path: Path) -> None:
    done = workflow("recover", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"runs": []})
    assert done.stderr.count("nothing is recovered: there is no store") == 1
    assert not list(tmp_path.iterdir())


def test_several_recoveries_at_once_resume_each_run_once(folder: Folder) -> None:
    names = [f"r{place}" for place in range(4)]
    folder.kill_runs(*names)
    folder.go_on()
    started = [start("recover", "--nodes", "nodes.py", "--json", cwd=folder.path, env=folder.env) for _ in range(3)]
    told = [json.loads(process.communicate(timeout=PATIENCE_SECONDS)[0])["runs"] for process in started]
    assert sorted((run["run_id"], run["status"]) for runs in told for run in runs) == [(name, "completed") for name in names]
    assert Counter(folder.journal()) == Counter(
        [f"{what} {name}" for name in names for what in ("first", "begun", "begun", "ended")]
    )
    assert {folder.job(name).attempt for name in names} == {2}


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_watch_finds_what_is_killed_later_and_saves_when_it_is_stopped(
    folder: Folder, number: signal.Signals, code: int
) -> None:
    watch = folder.watch()
    folder.kill_runs("one")
    folder.wait(lambda: folder.journal().count("begun one") == 2)
    watch.send_signal(number)
    out, err = watch.communicate(timeout=PATIENCE_SECONDS)
    assert (watch.returncode, out) == (code, ""), err
    job = folder.job("one")
    assert (job.status, job.attempt, job.retry_count) == ("recovering", 2, 0), "saved, and left for the next recovery"
    folder.go_on()
    assert workflow("recover", "--nodes", "nodes.py", cwd=folder.path, env=folder.env).stdout == "run one: completed\n"


def test_a_recovery_that_is_interrupted_tells_of_the_runs_that_are_over(folder: Folder) -> None:
    folder.kill_runs("one")
    folder.kill_runs("two")
    (folder.path / "nodes.py").write_text(NODES.replace("while not", 'while a == "two" and not'))
    recovery = start("recover", "--nodes", "nodes.py", "--at-once", "1", "--json", cwd=folder.path, env=folder.env)
    folder.wait(lambda: folder.journal().count("begun two") == 2)  # when the other one is over: that began first
    recovery.send_signal(signal.SIGINT)
    out, err = recovery.communicate(timeout=PATIENCE_SECONDS)
    assert (recovery.returncode, err) == (130, "")
    assert json.loads(out) == {"runs": [{"run_id": "one", "status": "completed", "error": None}]}
    assert (folder.job("two").status, folder.job("two").retry_count) == ("recovering", 0), "saved, and left for the next recovery"


WAITS = """
    while not Path("go on").exists():
        await asyncio.sleep(0.01)
"""
TIDIES_UP = """
    try:
        while not Path("go on").exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        journal(f"stopping {a}")
        while not Path("told twice").exists():
            await asyncio.sleep(0.01)
        raise
"""


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_watch_that_is_told_twice_to_stop_leaves_what_it_stops_for_the_next_one(folder: Folder, again: signal.Signals) -> None:
    """As by a service manager that sends both, or by two: a run that it had left alone while that stops would be `paused`."""
    (folder.path / "nodes.py").write_text(NODES.replace(WAITS, TIDIES_UP))
    folder.kill_runs("one")
    watch = folder.watch()
    folder.wait(lambda: folder.journal().count("begun one") == 2)
    watch.send_signal(signal.SIGTERM)
    folder.wait(lambda: "stopping one" in folder.journal())
    watch.send_signal(again)
    with suppress(subprocess.TimeoutExpired):
        watch.wait(timeout=0.5)  # which it must not
    (folder.path / "told twice").touch()
    assert watch.communicate(timeout=PATIENCE_SECONDS)[1] == ""
    assert (watch.returncode, folder.job("one").status) == (143, "recovering")


def test_what_a_signal_stopped_is_resumed_when_that_is_asked_for(folder: Folder) -> None:
    folder.kill_runs("one", with_signal=signal.SIGTERM)
    assert folder.job("one").status == "paused"
    folder.go_on()
    assert workflow("recover", "--nodes", "nodes.py", cwd=folder.path, env=folder.env).stdout == ""
    done = workflow("recover", "--nodes", "nodes.py", "--paused", cwd=folder.path, env=folder.env)
    assert done.stdout == "run one: completed\n"


def test_a_recovery_that_is_killed_leaves_its_child_alone(folder: Folder) -> None:
    folder.kill_runs("one")
    watch = folder.watch()
    folder.wait(lambda: folder.journal().count("begun one") == 2)
    watch.kill()
    watch.communicate()
    again = folder.watch()
    time.sleep(0.5)  # some looks
    folder.go_on()
    folder.wait(lambda: folder.job("one").status == "completed")
    again.send_signal(signal.SIGTERM)
    assert again.communicate(timeout=PATIENCE_SECONDS)[0] == "", "the run was held all the time"
    assert folder.journal().count("begun one") == 2


class Restartable(Server):
    """A server that can be killed and started again on the same data."""

    def kill(self) -> None:
        self._process.send_signal(signal.SIGQUIT)  # at once, as in a crash; its children, too
        self._process.wait(10)

    def start_again(self) -> None:
        self._process = self._start()
        self.wait()


@pytest.fixture
def server(postgres_server: str) -> Iterator[Restartable]:
    """Of its own: others use the server of the session. Where that could not be started, the test is skipped with it."""
    server = start_server(Restartable)
    yield server
    server.stop()


def test_the_database_restarts_while_recovery_runs(server: Restartable, tmp_path: Path) -> None:
    folder = Folder(tmp_path, server.dsn())
    folder.kill_runs("one", "two")
    watch = folder.watch()
    folder.wait(lambda: {"begun one", "begun two"} <= {line for line, count in Counter(folder.journal()).items() if count == 2})
    server.kill()
    folder.go_on()
    time.sleep(1)
    server.start_again()
    folder.wait(lambda: {folder.job(name).status for name in ("one", "two")} == {"completed"})
    (tmp_path / "go on").unlink()
    folder.kill_runs("three")
    folder.go_on()
    folder.wait(lambda: folder.job("three").status == "completed")
    watch.send_signal(signal.SIGTERM)
    out, err = watch.communicate(timeout=PATIENCE_SECONDS)
    assert watch.returncode == 143, err
    last = {run["run_id"]: run["status"] for run in map(json.loads, out.splitlines())}
    assert (last["one"], last["two"]) == ("completed", "completed")
    counted = Counter(folder.journal())
    assert all(counted[f"first {name}"] == 1 for name in ("one", "two", "three")), "what was durable was not done again"
