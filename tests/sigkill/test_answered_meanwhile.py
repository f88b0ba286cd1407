"""Answers for a run whose process is killed again and again while they come: each that was taken counts, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from checkpoint_plugin import update_suspended_state
from checkpoint_plugin.database.location import ENVIRONMENT, locate
from checkpoint_plugin.errors import NodeNotSuspended
from checkpoint_plugin.runs.suspended_nodes import SuspendedNode, fetch_suspended_nodes
from checkpoint_plugin.store import Store
from hookspecs import RunHeld, SuspensionChanged

NODES = Path(__file__).with_name("answered_nodes.py")
ROOT = Path(__file__).parents[2]
PEOPLE, TICKS, TICK_SECONDS = 6, 20, 0.03
KILLS = 5
LIMIT_SECONDS = 60.0


def document() -> dict[str, Any]:
    nodes: list[dict[str, Any]] = [
        {"id": "tick", "type": "answered_nodes.tick", "data": {"ticks": TICKS, "seconds": TICK_SECONDS}},
        {"id": "judge", "type": "answered_nodes.judge"},
        {"id": "judged", "type": "workflow.Output"},
    ]
    edges = [
        {"source": "tick", "target": "judge", "targetHandle": "ticks"},
        {"source": "judge", "target": "judged", "targetHandle": "value"},
    ]
    for number in range(PEOPLE):
        nodes.append({"id": f"ask{number}", "type": "answered_nodes.ask", "data": {"number": number}})
        nodes.append({"id": f"told{number}", "type": "workflow.Output"})
        edges.append({"source": f"ask{number}", "target": f"told{number}", "targetHandle": "value"})
    return {"nodes": nodes, "edges": edges, "enable": {"checkpoint": {"every_firing": True, "lease_seconds": 2}}}


class People:
    """Answer what they see, each question with a word of its own, and remember which answers were taken."""

    def __init__(self, url: str, dice: Random) -> None:
        self.url = url
        self.taken: dict[tuple[str, str], str] = {}
        self.meanwhile = 0
        self._dice = dice
        self._asked = 0

    async def look(self, *, is_executed: bool) -> None:
        store = Store(locate(self.url), create=True)
        try:
            waiting = [node for node in await fetch_suspended_nodes(store) if not node.due]
            for node in self._dice.sample(waiting, min(len(waiting), 3)):
                await self._answer(store, node)
                self.meanwhile += is_executed
        finally:
            await store.close()

    async def _answer(self, store: Store, node: SuspendedNode) -> None:
        self._asked += 1
        word = f"word {self._asked}"
        try:
            await update_suspended_state("r", node.node_id, word, store=store, since=node.since)
        except (
            NodeNotSuspended,
            SuspensionChanged,
            RunHeld,
        ):  # its run has gone on meanwhile, or is being taken by the next process
            return
        question = node.node_id, str(node.since)
        assert question not in self.taken, "an answer was taken for a question that was answered"
        self.taken[question] = word


@pytest.fixture
def environment(store_url: str) -> dict[str, str]:
    return {**os.environ, ENVIRONMENT: store_url}


def test_every_answer_that_was_taken_counts_once(store_url: str, environment: dict[str, str], tmp_path: Path) -> None:
    dice = Random(f"answered {store_url[:6]}")
    graph, told = tmp_path / "graph.json", tmp_path / "told"
    graph.write_text(json.dumps(document()), encoding="utf-8")
    people, kills, ends = People(store_url, dice), 0, time.monotonic() + LIMIT_SECONDS
    is_stored = False
    while time.monotonic() < ends:
        what = ("resume", "r") if is_stored else ("run", str(graph), "--run-id", "r")
        command = [sys.executable, "-m", "workflow_runner.cli", *what, "--nodes", str(NODES), "--json", "--quiet"]
        with told.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
            dies_at = time.monotonic() + dice.uniform(0.2, 0.8) if kills < KILLS else ends
            try:
                while process.poll() is None and time.monotonic() < (dies_at if people.taken else ends):
                    asyncio.run(people.look(is_executed=True))
                    time.sleep(dice.uniform(0.0, 0.1))
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                code = process.wait()
        is_stored = is_stored or bool(people.taken) or code == 3
        if code == 0:
            break
        assert code in (-signal.SIGKILL, 3, 4), told.read_text(encoding="utf-8")
        asyncio.run(people.look(is_executed=False))
    document_of_result = json.loads(told.read_text(encoding="utf-8").splitlines()[-1])
    outputs = document_of_result["outputs"]
    assert kills and people.meanwhile > PEOPLE
    words = {node_id: [word for (asked, _), word in people.taken.items() if asked == node_id] for node_id, _ in people.taken}
    for number in range(PEOPLE):
        assert outputs[f"told{number}"] == [f"{number}: {words[f'ask{number}']}"]
    verdicts = iter(words["judge"])
    assert outputs["judged"] == [n if n % 5 else f"{n} {next(verdicts)}" for n in range(TICKS)]
    assert next(verdicts, None) is None
