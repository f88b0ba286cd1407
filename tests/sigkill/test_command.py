"""`workflow run` and `workflow resume` in processes of their own, killed where the journal says that they are at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import pytest

from checkpoint_plugin.database.location import ENVIRONMENT

NUMBERS = 60
KILLS = 3
NODES = Path(__file__).with_name("command_nodes.py")
GRAPH: dict[str, Any] = {
    "nodes": [
        {"id": "n", "type": "workflow.Input", "data": {"name": "n"}},
        {"id": "journal", "type": "workflow.Input", "data": {"name": "journal"}},
        {"id": "numbers", "type": "command_nodes.numbers", "data": {}},
        {"id": "square", "type": "command_nodes.square", "data": {}},
        {"id": "total", "type": "command_nodes.running_total", "data": {}},
        {"id": "out", "type": "workflow.Output", "data": {"name": "totals"}},
    ],
    "edges": [
        {"source": "n", "target": "numbers", "targetHandle": "n"},
        {"source": "numbers", "target": "square", "targetHandle": "number"},
        {"source": "journal", "target": "square", "targetHandle": "journal"},
        {"source": "square", "target": "total", "targetHandle": "items"},
        {"source": "total", "target": "out", "targetHandle": "value"},
    ],
    "enable": {"checkpoint": {"every_firing": True}},
}


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_killed_command_is_resumed_where_it_was(lanes: int, store_url: str, tmp_path: Path) -> None:
    random = Random(store_url.partition(":")[0])
    graph, journal = tmp_path / "graph.json", tmp_path / "journal"
    nodes = [{**node, "lanes": lanes} if node["id"] == "square" else node for node in GRAPH["nodes"]]
    graph.write_text(json.dumps({**GRAPH, "nodes": nodes}), encoding="utf-8")
    arguments = [
        "run",
        str(graph),
        "--run-id",
        "killed",
        "--input",
        f"n={NUMBERS}",
        "--input",
        f"journal={json.dumps(str(journal))}",
    ]
    for kill in range(KILLS):
        process = start(arguments, store_url, hash_seed=kill)
        wait_for_lines(journal, len(squares(journal)) + random.randint(3, 12), process)
        time.sleep(random.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        arguments = ["resume", "killed"]
    process = start(arguments, store_url, hash_seed=KILLS)
    told, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    result = json.loads(told.splitlines()[-1])
    assert result["status"] == "completed"
    assert result["outputs"] == {"totals": list(accumulate(i * i for i in range(NUMBERS)))}
    times = Counter(number for number, _ in squares(journal))
    assert sorted(times) == list(range(NUMBERS))
    # One firing of a lane at a time, and nobody sees what is not durable: a kill can repeat one square of each, and no other.
    assert sum(times.values()) - NUMBERS <= KILLS * lanes
    assert len(set(squares(journal))) == NUMBERS, "a square that was run again had another idempotency key"


def start(arguments: list[str], url: str, hash_seed: int) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "workflow_runner.cli", *arguments, "--nodes", str(NODES), "--json", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, ENVIRONMENT: url, "PYTHONHASHSEED": str(hash_seed)},
    )


def squares(journal: Path) -> list[tuple[int, str]]:
    """The squares begun so far, with their idempotency keys."""
    if not journal.exists():
        return []
    lines = [line.split() for line in journal.read_text(encoding="ascii").splitlines()]
    return [(int(number), key) for number, key in lines]


def wait_for_lines(journal: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the journal has so many lines."""
    while len(squares(journal)) < count:
        if process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode} before it could be killed: {process.communicate()}")
        time.sleep(0.002)
