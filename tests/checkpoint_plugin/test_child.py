"""The process of a run that a recovery goes on with, where it leaves a program behind that outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint_plugin import JobRepository
from checkpoint_plugin.errors import NotResumable
from checkpoint_plugin.recovery.child import ChildEnd, _Told, resume_in_child
from workflow_runner import Graph, RunStopped, WorkflowRunner

NODES = """
import asyncio
import os
import signal
import subprocess
from workflow_runner import node

@node
async def leaves_behind(then: str) -> str:
    left = subprocess.Popen(["sleep", "60"])
    open("left", "w").write(str(left.pid))
    if then == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "fails":
        raise ValueError("the reason")
    if then == "tidies up":
        open("waiting", "w").write(str(os.getpid()))
        try:
            await asyncio.sleep(60)
        finally:
            open("stopping", "w").close()
            while not os.path.exists("told twice"):
                await asyncio.sleep(0.01)
            open("tidy", "w").close()
    if then == "waits":
        open("waiting", "w").close()
        await asyncio.sleep(60)
    return then
"""
PATIENCE_SECONDS = 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current one; the program that is left behind ends with the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nodes.py").write_text(NODES)
    yield tmp_path
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


async def stopped_run(folder: Path, then: str) -> str:
    """The url of a run `r` that was stopped before its node began."""
    url = f"sqlite:///{folder / 'c.db'}"
    runner = WorkflowRunner(nodes=["nodes.py"])
    runner.subscribe(lambda event: runner.stop("cancel"))
    graph = Graph()
    graph.add("nodes.leaves_behind", then=then)
    with pytest.raises(RunStopped):
        await runner.run(graph, enable={"checkpoint": {"url": url}}, run_id="r")
    return url


@pytest.mark.parametrize(
    ("then", "code", "told"), [("ends", 0, None), ("fails", 1, "the reason"), ("is killed", -signal.SIGKILL, None)]
)
async def test_what_a_run_leaves_behind_keeps_no_recovery_waiting(folder: Path, then: str, code: int, told: str | None) -> None:
    url = await stopped_run(folder, then)
    async with asyncio.timeout(PATIENCE_SECONDS):
        end = await resume_in_child("r", url, ["nodes.py"])
    assert end.code == code
    assert told is None or told in (end.told or "")


async def test_what_a_run_leaves_behind_keeps_no_recovery_waiting_that_is_stopped(folder: Path) -> None:
    url = await stopped_run(folder, "waits")
    child: asyncio.Task[ChildEnd] = asyncio.create_task(resume_in_child("r", url, ["nodes.py"]))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not Path("waiting").exists():  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.01)
        child.cancel()
        await asyncio.wait((child,))
    assert child.cancelled()


async def test_a_process_that_is_told_to_stop_by_others_too_saves_all_the_same(folder: Path) -> None:
    """A service manager tells all processes of a service at once: the recovery, which tells its own, and these."""
    url = await stopped_run(folder, "tidies up")
    child: asyncio.Task[ChildEnd] = asyncio.create_task(resume_in_child("r", url, ["nodes.py"]))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (Path("waiting").exists() and Path("waiting").read_text()):  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.01)
        os.kill(int(Path("waiting").read_text()), signal.SIGTERM)
        while not Path("stopping").exists():  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.01)
        child.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        Path("told twice").touch()
        await asyncio.wait((child,))
    assert child.cancelled()
    assert Path("tidy").exists()
    assert (await JobRepository(url).get("r")).status == "paused"


def test_what_is_left_behind_and_goes_on_printing_keeps_nobody_waiting() -> None:
    with _Told() as told:
        os.write(told.end, b"Error: the reason\n")
        with subprocess.Popen(["yes", "Error: of another"], stdout=told.end) as left:
            assert told.last() is not None
            left.kill()


def test_the_last_of_what_is_told_is_kept_however_much_it_is() -> None:
    with _Told() as told:
        os.write(told.end, b"Error: the first\n")
        for _ in range(100):
            os.write(told.end, b"a line\n" * 1_000)
        os.write(told.end, b"Error: the reason\nand more\n")
        assert told.last() == told.last() == "the reason"


@pytest.mark.parametrize(("name", "value"), [("frozen", True), ("executable", "")])
async def test_a_program_that_is_no_interpreter_starts_none(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of PyInstaller would start itself, with arguments that are not its own."""
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(NotResumable, match="give the recovery `execute`"):
        await resume_in_child("r", "sqlite:///none.db", [])


async def test_an_event_loop_that_starts_no_processes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `SelectorEventLoop` on Windows."""

    async def refuse(*arguments: object, **more: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "subprocess_exec", refuse)
    with pytest.raises(NotResumable, match="this event loop starts none"):
        await resume_in_child("r", "sqlite:///none.db", [])
