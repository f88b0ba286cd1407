from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.command import NODES, environment, start, write_graph
from workflow_runner import Result, WorkflowRunner
from workflow_runner.cli.execution import Stopper

LEAVING_SIGNALS = [pytest.param(signal.SIGTERM, 143, id="SIGTERM"), pytest.param(signal.SIGINT, 130, id="SIGINT")]
SIGNALS = [*LEAVING_SIGNALS, pytest.param(signal.SIGHUP, 129, id="SIGHUP")]


@contextmanager
def waiting(folder: Path, node: str, nodes: str = NODES) -> Iterator[subprocess.Popen[str]]:
    """A process whose node, or node module, has begun to wait."""
    graph = write_graph(folder, node)
    (folder / "nodes.py").write_text(nodes)
    process = start("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--json", cwd=folder)
    try:
        deadline = time.monotonic() + 30
        while not (folder / "waiting").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("node", ["waits", "offloads"])
def test_the_first_signal_stops_the_run(tmp_path: Path, node: str, number: signal.Signals, code: int) -> None:
    with waiting(tmp_path, node) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    found = json.loads(out)
    assert (found["run_id"], found["status"], found["outputs"]) == ("r", "paused", {})
    assert found["error"]["type"] == "RunStopped"
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_the_run_begins_stops_it_too(tmp_path: Path, number: signal.Signals, code: int) -> None:
    slow = NODES + "\nPath('waiting').touch()\nwhile not Path('sent').exists():\n    time.sleep(0.01)\n"
    with waiting(tmp_path, "waits", slow) as process:
        process.send_signal(number)
        (tmp_path / "sent").touch()
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert (json.loads(out)["run_id"], json.loads(out)["status"]) == ("r", "paused")
    assert "as it began" in err


def test_a_signal_before_the_run_begins_keeps_it_from_starting() -> None:
    begun: list[bool] = []

    async def start() -> Result:
        begun.append(True)
        raise AssertionError

    with asyncio.Runner() as loops:
        stopper = Stopper(WorkflowRunner(), loops, give_up=lambda: None)
        stopper.stop()
        with pytest.raises(asyncio.CancelledError):
            loops.run(stopper.guard(start, hears_all=False))
    assert begun == []


@pytest.mark.parametrize(("number", "code"), LEAVING_SIGNALS)
def test_the_second_signal_leaves_at_once_even_from_a_busy_loop(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with waiting(tmp_path, "spins") as process:
        process.send_signal(number)
        time.sleep(0.3)  # two signals at once would arrive as one
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "", "who leaves later, because the loop is deaf, has the same exit code, and tells of the run"


CLEANING = (
    NODES
    + """
@node
async def cleans_up(a: Any) -> Any:
    try:
        Path("waiting").touch()
        await asyncio.sleep(600)
    finally:
        Path("cleaning").touch()
        while not Path("sent").exists():
            await asyncio.sleep(0.01)
"""
)


def test_a_terminal_that_is_told_twice_to_be_gone_lets_the_run_save(tmp_path: Path) -> None:
    with waiting(tmp_path, "cleans_up", CLEANING) as process:
        process.send_signal(signal.SIGHUP)
        while not (tmp_path / "cleaning").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        (tmp_path / "sent").touch()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 129
    assert json.loads(out)["status"] == "paused"


def test_a_command_under_nohup_goes_on_without_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with waiting(tmp_path, "waits") as process:
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 143


@pytest.mark.parametrize(("node", "told"), [("sleeps", "grace"), ("refuses", "grace"), ("spins", "kept the event loop busy")])
def test_a_body_that_does_not_end_is_left_after_the_grace_period(tmp_path: Path, node: str, told: str) -> None:
    with waiting(tmp_path, node) as process:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert json.loads(out)["status"] == "paused"
    assert told in err


LEAVING = (
    NODES
    + """
import sys

@node
async def leaves_in_a_callback(a: Any) -> Any:
    asyncio.get_running_loop().call_soon(sys.exit, 5)
    await asyncio.sleep(600)

@node
async def leaves_in_a_task(a: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(sys.exit, 5))
    return a

@node
async def leaves_in_several_tasks(a: Any) -> Any:
    async def leave(seconds):
        await asyncio.sleep(seconds)
        sys.exit(5)
    tasks = [asyncio.create_task(leave(seconds)) for seconds in (0.1, 0.1, 0.1, 0.2)]
    await asyncio.sleep(600)

@node
async def leaves_late(a: Any) -> Any:
    asyncio.get_running_loop().call_later(0.2, sys.exit, 5)
    return a

class Silent(SystemExit):
    def __str__(self):
        raise RuntimeError("no text")

def leave_silently():
    raise Silent

@node
async def leaves_silently(a: Any) -> Any:
    asyncio.get_running_loop().call_soon(leave_silently)
    await asyncio.sleep(600)

@node
async def interrupts(a: Any) -> Any:
    raise KeyboardInterrupt

@node
def interrupts_in_a_thread(a: Any) -> Any:
    raise KeyboardInterrupt

@node
async def stops_its_event_loop(a: Any) -> Any:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(60)

@node
async def cancels_all_tasks(a: Any) -> Any:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(60)

@node
async def leaves_a_thread(a: Any) -> Any:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 20)
    return a
"""
)


@pytest.mark.parametrize(
    ("node", "code", "status", "told"),
    [
        ("leaves_in_a_callback", 1, "paused", "left by SystemExit: 5, raised in a task or a callback"),
        ("leaves_in_a_task", 1, "paused", "SystemExit: 5"),
        ("leaves_in_several_tasks", 1, "paused", "left by SystemExit: 5, raised in a task or a callback"),
        ("leaves_silently", 1, "paused", "left by Silent: (its text cannot be had: RuntimeError)"),
        ("stops_its_event_loop", 1, "paused", "left by RuntimeError: Event loop stopped"),
        ("cancels_all_tasks", 1, "paused", "run 'r' was cancelled by a node or a hook"),
        ("interrupts", 130, "failed", "left by KeyboardInterrupt, raised by a node or a hook"),
        ("interrupts_in_a_thread", 130, "failed", "left by KeyboardInterrupt, raised by a node or a hook"),
    ],
)
def test_a_run_that_something_leaves_is_stopped_and_saves(tmp_path: Path, node: str, code: int, status: str, told: str) -> None:
    graph = write_graph(tmp_path, node)
    (tmp_path / "nodes.py").write_text(LEAVING)
    (tmp_path / "hears.py").write_text(HEARS)
    command = [sys.executable, "hears.py", "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    found = json.loads(done.stdout)
    assert (done.returncode, found["run_id"], found["status"]) == (code, "r", status)
    assert told in done.stderr
    assert "a fault of this program" not in done.stderr
    assert (tmp_path / "ended").exists()


def test_a_run_that_something_leaves_at_its_end_is_told_as_it_ended(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "leaves_late")
    (tmp_path / "nodes.py").write_text(LEAVING)
    (tmp_path / "hears.py").write_text(HEARS.replace("Path(", "await asyncio.sleep(0.5); Path("))
    command = [sys.executable, "hears.py", "run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "completed")
    assert "left by" not in done.stderr


HEARS = """
import asyncio, sys
from pathlib import Path
from hookspecs import PluginHost, hookimpl
from workflow_runner.cli import main as module

class Plugin:
    @hookimpl
    async def after_run(self, run, outcome):
        Path("ended").touch()

module.PluginHost = lambda blocked: PluginHost(blocked).register(Plugin(), "hears")
sys.exit(module.main())
"""


def test_who_does_not_wait_for_a_thread_that_is_left_is_told_nothing_else(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "leaves_a_thread")
    (tmp_path / "nodes.py").write_text(LEAVING)
    process = start("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--json", cwd=tmp_path)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["status"] == "completed"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
