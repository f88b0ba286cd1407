"""The command line with the checkpoint plugin: what a user sees of stored runs."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import NODES, start, workflow, write_graph

pytestmark = pytest.mark.plugin

STORE = Path(".workflow/checkpoints.db")


def command(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command with `--json`: its exit code and what it printed."""
    done = workflow(*arguments, "--json", cwd=folder)
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return done.returncode, found


def write_stream(folder: Path) -> str:
    """A graph in which a streaming node waits in the middle; see `total` in the nodes."""
    (folder / "nodes.py").write_text(NODES)
    graph = {
        "nodes": [
            {"id": "numbers", "type": "nodes.count", "data": {"a": 10}},
            {"id": "total", "type": "nodes.total"},
            {"id": "out", "type": "workflow.Output"},
        ],
        "edges": [
            {"source": "numbers", "target": "total", "targetHandle": "items"},
            {"source": "total", "target": "out", "targetHandle": "value"},
        ],
        "enable": {"checkpoint": True},
    }
    (folder / "stream.json").write_text(json.dumps(graph))
    return "stream.json"


def until_it_waits(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not (folder / "waiting").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
    ids=["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"],
)
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, number: signal.Signals, code: int) -> None:
    graph = write_stream(tmp_path)
    process = start("run", graph, "--nodes", "nodes.py", "--run-id", "r", "--json", cwd=tmp_path)
    try:
        until_it_waits(tmp_path, process)
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code
    if number != signal.SIGKILL:
        assert json.loads(out)["status"] == "paused"
        assert "workflow resume r" in json.loads(out)["error"]["message"]

    (tmp_path / "go on").touch()
    code, resumed = command(tmp_path, "resume", "r", "--nodes", "nodes.py")
    assert code == 0, resumed
    assert resumed == {
        "run_id": "r",
        "status": "completed",
        "outputs": {"out": [0, 1, 3, 6, 10, 15, 21, 28, 36, 45]},
        "error": None,
    }
    # The item in the middle of which it waited was not final; all others were measured once.
    journal = (tmp_path / "journal").read_text().split()
    assert journal == [str(number) for number in range(10)]


def test_a_completed_run_prints_its_outputs_again(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "oddities", enable={"checkpoint": True})
    (tmp_path / "nodes.py").write_text(NODES.replace(", Mute(), object()", ""))
    code, first = command(tmp_path, "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r")
    assert code == 0, first
    assert command(tmp_path, "resume", "r", "--nodes", "nodes.py") == (0, first)


def test_an_id_that_exists_is_refused(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "value")
    arguments = ("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--enable", "checkpoint")
    assert command(tmp_path, *arguments)[0] == 0
    code, refused = command(tmp_path, *arguments)
    assert (code, refused["error"]["type"]) == (2, "RunExists")


def test_a_failed_run_tells_how_to_go_on_and_goes_on(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "fails", enable={"checkpoint": True})
    done = workflow("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", cwd=tmp_path)
    assert done.returncode == 1
    assert "workflow resume r" in done.stderr
    (tmp_path / "nodes.py").write_text(NODES.replace('raise ValueError("the reason")', "return 5"))
    code, resumed = command(tmp_path, "resume", "r", "--nodes", "nodes.py")
    assert (code, resumed["outputs"]) == (0, {"out": [5]}), resumed


def test_another_graph_is_refused_with_what_differs(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "fails", enable={"checkpoint": True})
    command(tmp_path, "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r")
    same = command(tmp_path, "resume", "r", "--nodes", "nodes.py", "--graph", graph)
    assert (same[0], same[1]["error"]["type"]) == (1, "ValueError")
    write_graph(tmp_path, "value")
    code, refused = command(tmp_path, "resume", "r", "--nodes", "nodes.py", "--graph", graph)
    assert (code, refused["error"]["type"]) == (2, "GraphChanged")
    assert "nodes.fails" in refused["error"]["message"]


def test_an_unknown_run_and_a_missing_store(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "value", enable={"checkpoint": True})
    code, missing = command(tmp_path, "resume", "r", "--nodes", "nodes.py")
    assert (code, missing["run_id"]) == (5, "r")
    command(tmp_path, "run", graph, "--nodes", "nodes.py", "--input", "a=1")
    code, unknown = command(tmp_path, "resume", "other", "--nodes", "nodes.py")
    assert (code, unknown["error"]["type"]) == (5, "RunNotFound")


def test_nothing_but_a_run_that_starts_makes_the_store(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "value", enable={"checkpoint": True})
    for arguments in (
        ("validate", graph, "--nodes", "nodes.py"),
        ("run", graph, "--nodes", "nodes.py"),
        ("run", graph, "--input", "a=1"),
        ("run", graph, "--nodes", "nodes.py", "--input", "a=1", "-p", "no:checkpoint"),
        ("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--disable", "checkpoint"),
        ("resume", "r", "--nodes", "nodes.py"),
        ("show", "r"),
        ("plugins",),
    ):
        workflow(*arguments, cwd=tmp_path)
        assert not STORE.parent.exists(), arguments
        assert not (tmp_path / STORE.parent).exists(), arguments
    assert command(tmp_path, "runs") == (0, {"runs": []})
    assert not (tmp_path / STORE.parent).exists()
    assert command(tmp_path, "run", graph, "--nodes", "nodes.py", "--input", "a=1")[0] == 0
    assert (tmp_path / STORE).exists()


def test_the_url_of_the_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    graph = write_graph(tmp_path, "value")
    enable = "checkpoint=" + json.dumps({"url": url})
    assert command(tmp_path, "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--enable", enable)[0] == 0
    assert command(tmp_path, "resume", "r", "--nodes", "nodes.py")[0] == 5
    assert command(tmp_path, "resume", "r", "--nodes", "nodes.py", "--url", url)[0] == 0
    assert [run["run_id"] for run in command(tmp_path, "runs", "--url", url)[1]["runs"]] == ["r"]


def test_resuming_with_the_plugin_out_of_the_way(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "fails", enable={"checkpoint": True})
    command(tmp_path, "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r")
    for arguments in (("-p", "no:checkpoint"), ("--disable", "checkpoint")):
        code, refused = command(tmp_path, "resume", "r", "--nodes", "nodes.py", *arguments)
        assert code == 2
        assert "checkpoint" in refused["error"]["message"]


def test_its_commands(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "value", enable={"checkpoint": True})
    command(tmp_path, "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r")
    runs = command(tmp_path, "runs")[1]["runs"]
    assert [(run["run_id"], run["status"]) for run in runs] == [("r", "completed")]
    assert {"created_at", "updated_at"} <= set(runs[0])
    shown = command(tmp_path, "show", "r")[1]
    assert (shown["run_id"], shown["status"]) == ("r", "completed")
    assert [(node["node_id"], node["status"]) for node in shown["nodes"]] == [
        ("in", "completed"),
        ("body", "completed"),
        ("out", "completed"),
    ]
    saved = command(tmp_path, "checkpoints", "r")[1]
    assert saved["run_id"] == "r"
    assert set(saved["checkpoints"][-1]) >= {"number", "reason", "created_at", "nodes", "bytes"}
    assert command(tmp_path, "show", "other")[0] == 5
    assert workflow("runs", "-p", "no:checkpoint", cwd=tmp_path).returncode == 2
