"""A run with two approvals and a timer: each step is another process, and processes are killed between them and in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from checkpoint_plugin.database.location import ENVIRONMENT

NODES = Path(__file__).with_name("approval_nodes.py")
ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60
SLEEP_SECONDS = 1.0
CHAIN = ("draft", "first", "between", "nap", "second", "publish")
TYPES = {"first": "approve", "second": "approve", "nap": "wait"}
RESULT = "letter draft first=yes between nap second=no publish"
ANSWER = "import asyncio, sys, json; from checkpoint_plugin import update_suspended_state as answer; " + (
    "asyncio.run(answer('letter', sys.argv[1], json.loads(sys.argv[2])))"
)


def document(journal: Path) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = [{"id": "text", "type": "workflow.Input", "data": {"value": "letter"}}]
    edges: list[dict[str, Any]] = []
    before = "text"
    for name in CHAIN:
        data = {"journal": str(journal), **({"seconds": SLEEP_SECONDS} if name == "nap" else {})}
        nodes.append({"id": name, "type": f"approval_nodes.{TYPES.get(name, 'work')}", "data": data})
        edges.append({"source": before, "target": name, "targetHandle": "text"})
        before = name
    nodes.append({"id": "out", "type": "workflow.Output"})
    edges.append({"source": before, "target": "out", "targetHandle": "value"})
    return {"nodes": nodes, "edges": edges, "enable": {"checkpoint": {"every_firing": True}}}


class Letter:
    """The run, as the processes that have to do with it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.journal, self.graph = folder / "journal", folder / "graph.json"
        self.graph.write_text(json.dumps(document(self.journal)), encoding="utf-8")
        self._environment = {**os.environ, ENVIRONMENT: url}
        self.begin = ("run", str(self.graph), "--run-id", "letter", "--nodes", str(NODES))
        self.resume = ("resume", "letter", "--nodes", str(NODES))
        self.recover = ("recover", "--nodes", str(NODES))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command, or with `answer` an answer given in Python."""
        command = [sys.executable, "-m", "workflow_runner.cli", *arguments, "--json"]
        if arguments[0] == "answer":
            command = [sys.executable, "-c", ANSWER, *arguments[1:]]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=self._environment, **streams)

    def do(self, *arguments: str) -> tuple[int, Any]:
        """Run a command to its end: the code, and what it told."""
        process = self.start(*arguments)
        told, complaints = process.communicate(timeout=LIMIT_SECONDS)
        return process.returncode, json.loads(told.splitlines()[-1]) if told else complaints

    def kill(self, seconds: float, *arguments: str) -> None:
        """Start a command and kill it after a while, with all that it started."""
        process = self.start(*arguments)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=LIMIT_SECONDS)

    def lines(self) -> Counter[str]:
        return Counter(self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else ())


@pytest.fixture
def letter(store_url: str, tmp_path: Path) -> Letter:
    return Letter(store_url, tmp_path)


def test_each_body_ends_once_and_is_started_once_more_for_each_answer(letter: Letter, store_url: str) -> None:
    dice = Random(f"between {store_url[:6]}")

    def disturb() -> None:
        """A resume with nothing to go on with, and an answer to nobody, killed at any moment."""
        letter.kill(dice.uniform(0.05, 0.9), *letter.resume)
        letter.kill(dice.uniform(0.05, 0.9), "answer", "draft", '"nobody asked"')

    assert letter.do(*letter.begin)[0] == 3
    disturb()
    letter.kill(dice.uniform(0.1, 0.9), "answer", "first", '"yes"')
    code, told = letter.do("answer", "first", '"yes"')
    assert code == 0 or "answered already" in told, told
    slept_at = time.monotonic()
    code, told = letter.do(*letter.resume)
    assert (code, told["status"]) == (3, "suspended"), told
    time.sleep(max(0.0, slept_at + SLEEP_SECONDS + 1.0 - time.monotonic()))
    code, told = letter.do(*letter.recover)  # the time has come
    assert code == 0, told
    disturb()
    code, told = letter.do(*letter.resume, "--set", 'second="no"')
    assert (code, told["outputs"]) == (0, {"out": [RESULT]}), told
    expected = Counter({f"{what} {name}": 1 for name in CHAIN for what in ("begin", "end")})
    expected.update({"begin first": 1, "begin nap": 1, "begin second": 1})
    assert letter.lines() == expected


def test_killed_anywhere_the_letter_is_sent_all_the_same(letter: Letter, store_url: str) -> None:
    dice = Random(f"anywhere {store_url[:6]}")
    kills = 0

    def insist(*arguments: str) -> Any:
        """Kill the command once on its way, then let it do its work."""
        nonlocal kills
        letter.kill(dice.uniform(0.3, 1.2), *arguments)
        kills += 1
        again = letter.resume if arguments == letter.begin and _is_stored(letter) else arguments
        return letter.do(*again)

    assert insist(*letter.begin)[0] == 3
    code, told = insist(*letter.resume, "--set", 'first="yes"')
    if code == 2:  # the answer was taken before the kill, and what it began is gone on with
        code, told = letter.do(*letter.resume)
    assert code == 3, told
    time.sleep(SLEEP_SECONDS + 0.5)
    assert insist(*letter.recover)[0] == 0
    code, told = insist(*letter.resume, "--set", 'second="no"')
    if code == 2:
        code, told = letter.do(*letter.resume)
        if code == 3:  # the recovery was killed when it had claimed the run and not begun: nobody had asked before
            code, told = letter.do(*letter.resume, "--set", 'second="no"')
    assert (code, told["outputs"]) == (0, {"out": [RESULT]}), told
    lines = letter.lines()
    assert all(lines[f"end {name}"] >= 1 for name in CHAIN)
    assert sum(lines[f"end {name}"] for name in CHAIN) <= len(CHAIN) + kills, "a kill repeats what was not durable, and no more"


def _is_stored(letter: Letter) -> bool:
    return any(run["run_id"] == "letter" for run in letter.do("runs")[1]["runs"])
