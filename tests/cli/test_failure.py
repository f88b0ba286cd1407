"""What the flags about failures do, in processes that really die."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import workflow

pytestmark = pytest.mark.plugin

NODES = """
import os
from pathlib import Path

from workflow_runner import node


def note(text):
    with open("log", "a") as log:
        print(text, file=log)


@node(replayable=False)
async def charge(x: int) -> int:
    note("charge")
    if Path("dies").exists():
        os._exit(9)
    return x

@node
async def fails(x: int) -> int:
    raise RuntimeError("no")

@node
async def slow(x: int) -> int:
    for _ in range(20):
        await __import__("asyncio").sleep(0.001)
    note("slow")
    return x
"""


def write(folder: Path, types: list[str], **keys: Any) -> None:
    (folder / "nodes.py").write_text(NODES)
    nodes: list[dict[str, Any]] = [{"id": name, "type": f"nodes.{name}", "data": {"x": 3}} for name in types]
    nodes += [{"id": f"out_{name}", "type": "workflow.Output", "data": {"name": name}} for name in types]
    edges = [{"source": name, "target": f"out_{name}", "targetHandle": "value"} for name in types]
    (folder / "flow.json").write_text(json.dumps({"nodes": nodes, "edges": edges, "enable": {"checkpoint": True}, **keys}))


def told(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = workflow(*arguments, "--nodes", "nodes.py", "--json", cwd=folder)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_a_run_that_failed_says_how_it_goes_on_where_it_is_stored(tmp_path: Path) -> None:
    write(tmp_path, ["fails"])
    command = ("run", "flow.json", "--nodes", "nodes.py", "--run-id", "a b")
    stored, not_stored = (workflow(*command, *more, cwd=tmp_path) for more in ((), ("--disable", "checkpoint")))
    assert stored.returncode == not_stored.returncode == 1
    assert "checkpoints are stored. Mend the cause, then: workflow resume 'a b' --nodes nodes.py\n" in stored.stderr
    assert "resume" not in not_stored.stderr


def test_a_process_that_dies_in_a_node_that_must_not_be_repeated(tmp_path: Path) -> None:
    write(tmp_path, ["charge"])
    (tmp_path / "dies").touch()
    died = workflow("run", "flow.json", "--nodes", "nodes.py", "--run-id", "r", cwd=tmp_path)
    assert died.returncode == 9
    (tmp_path / "dies").unlink()
    code, report = told(tmp_path, "resume", "r")
    assert (code, report["status"], report["error"]["type"], report["error"]["node_id"]) == (
        1,
        "failed",
        "OutcomeUnknown",
        "charge",
    )
    code, report = told(tmp_path, "resume", "r", "--set", "charge=text")
    assert (code, report["error"]["type"]) == (2, "InputInvalid")
    assert "--set" in report["error"]["message"]
    code, report = told(tmp_path, "resume", "r", "--replay", "other")
    assert (code, report["error"]["type"]) == (2, "NodeNotWaiting")
    code, report = told(tmp_path, "resume", "r", "--set", "charge=30")
    assert (code, report["outputs"]) == (0, {"charge": [30]})
    assert (tmp_path / "log").read_text().split() == ["charge"]


def test_replay(tmp_path: Path) -> None:
    write(tmp_path, ["charge"])
    (tmp_path / "dies").touch()
    workflow("run", "flow.json", "--nodes", "nodes.py", "--run-id", "r", cwd=tmp_path)
    (tmp_path / "dies").unlink()
    assert told(tmp_path, "resume", "r", "--replay", "charge") == (0, {**told(tmp_path, "resume", "r")[1], "status": "completed"})
    assert (tmp_path / "log").read_text().split() == ["charge", "charge"]


def test_on_failure(tmp_path: Path) -> None:
    write(tmp_path, ["fails", "slow"])
    assert told(tmp_path, "run", "flow.json")[0] == 1
    assert not (tmp_path / "log").exists()
    code, report = told(tmp_path, "run", "flow.json", "--on-failure", "finish_independent", "--run-id", "r")
    assert (code, report["error"]["node_id"]) == (1, "fails")
    assert (tmp_path / "log").read_text().split() == ["slow"]
    assert told(tmp_path, "resume", "r")[0] == 1
    assert (tmp_path / "log").read_text().split() == ["slow"]
    write(tmp_path, ["fails", "slow"], on_failure="finish_independent")
    assert told(tmp_path, "run", "flow.json", "--on-failure", "fail_fast")[0] == 1
    assert (tmp_path / "log").read_text().split() == ["slow"]
