from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.command import NODES, start, write_graph

SIGNALS = [pytest.param(signal.SIGTERM, 143, id="SIGTERM"), pytest.param(signal.SIGINT, 130, id="SIGINT")]


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
    slow = NODES + "\nPath('waiting').touch()\ntime.sleep(1)\n"
    with waiting(tmp_path, "waits", slow) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert (json.loads(out)["run_id"], json.loads(out)["status"]) == ("r", "paused")
    assert "as it began" in err


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_the_second_signal_leaves_at_once_even_from_a_busy_loop(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with waiting(tmp_path, "spins") as process:
        process.send_signal(number)
        time.sleep(0.3)  # two signals at once would arrive as one
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == code


@pytest.mark.parametrize(("node", "told"), [("sleeps", "grace"), ("spins", "kept the event loop busy")])
def test_a_body_that_does_not_end_is_left_after_the_grace_period(tmp_path: Path, node: str, told: str) -> None:
    with waiting(tmp_path, node) as process:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert json.loads(out)["status"] == "paused"
    assert told in err
