"""What comes from a graph, a value or an error is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import environment, read_terminal, workflow
from workflow_runner.cli.report import RunReport, one_line, printable

TRICK = "\x1b]0;taken\x07\x1b[2J\x9b31m\u202e"
NODES = f"""
from typing import Any

from workflow_runner import Context, node

@node
async def value(a: Any) -> Any:
    return {TRICK!r}

@node
async def thing(a: Any) -> Any:
    return type("Thing", (), {{"__repr__": lambda self: {TRICK!r}}})()

@node
async def fails(a: Any) -> Any:
    raise ValueError({TRICK!r})

@node
async def asks(a: Any, context: Context) -> Any:
    return await context.suspend({TRICK!r} + chr(10) + "Error: forged")
"""


def write(folder: Path, node: str) -> None:
    (folder / "nodes.py").write_text(NODES)
    nodes: list[Any] = [
        {"id": TRICK, "type": f"nodes.{node}", "data": {"a": 1}},
        {"id": "o", "type": "workflow.Output", "data": {"name": TRICK}},
    ]
    edges = [{"source": TRICK, "target": "o", "targetHandle": "value"}]
    (folder / "flow.json").write_text(json.dumps({"nodes": nodes, "edges": edges}))


@pytest.mark.parametrize("node", ["value", "thing", "fails", "asks"])
def test_a_run_tells_nothing_that_a_terminal_obeys(tmp_path: Path, node: str) -> None:
    write(tmp_path, node)
    done = workflow("run", "flow.json", "--nodes", "nodes.py", cwd=tmp_path, env=environment(WORKFLOW_DEBUG="1"))
    told = done.stdout + done.stderr
    assert r"\x1b]0;taken\x07" in told
    assert not set(told) & set(TRICK) - set(printable(TRICK))
    assert not any(line.startswith("Error: forged") for line in told.splitlines())


def test_nor_does_the_live_view(tmp_path: Path) -> None:
    write(tmp_path, "value")
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "workflow_runner.cli", "run", "flow.json", "--nodes", "nodes.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(TERM="xterm"), stdout=subprocess.DEVNULL, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = read_terminal(reader)
    assert process.returncode == 0
    assert b"taken" in shown
    assert b"\x1b]0;" not in shown and "\u202e".encode() not in shown


def test_what_is_escaped_and_what_is_not() -> None:
    assert printable("a\tb\nä 日本 👩\u200d🔬\u00a0") == "a\tb\nä 日本 👩\u200d🔬\u00a0"
    assert printable("\r\0\x7f\x85\u2028\u2066") == r"\r\x00\x7f\x85\u2028\u2066"
    assert one_line("a\nb") == r"a\nb"
    assert next(RunReport("r", "completed", {"x\ny": [1, 2]}).lines()) == r"x\ny: 2 items"
