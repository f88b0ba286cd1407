from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hookspecs import CheckpointRef, Suspension
from tests.cli.command import environment, read_terminal, write_graph
from workflow_runner import CheckpointSaved, Event, NodeChanged, NodeSuspended, Progressed, RunEnded, RunStarted
from workflow_runner.cli.progress import Lines, Tally

NODE = NodeChanged("r", "n", "running", 1)
SAVED = CheckpointSaved("r", CheckpointRef("r", 4, "every 5 s", datetime.now(UTC)))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_at_the_beginning_once_a_period_and_at_the_end() -> None:
    clock = Clock()
    stream = io.StringIO()
    lines = Lines(stream, period_seconds=1.0, clock=clock)
    lines(RunStarted("r", 2, 5, 3))
    assert stream.getvalue() == "run r: 5 nodes, attempt 2: 3 nodes were completed before\n"
    lines(NODE)
    clock.now = 0.9
    lines(SAVED)
    assert stream.getvalue().count("\n") == 1
    clock.now = 1.0
    lines(Progressed("r", "n", 1, 2))
    assert stream.getvalue().splitlines()[1] == "1.0 s: 3 of 5 nodes completed, 1 running, checkpoint 4 (every 5 s); n: 1 / 2"
    lines(NodeChanged("r", "n", "completed", 1))
    assert stream.getvalue().count("\n") == 2
    lines(RunEnded("r", "completed"))
    assert stream.getvalue().splitlines()[2:] == [
        "1.0 s: 4 of 5 nodes completed, checkpoint 4 (every 5 s)",
        "run r: completed",
    ]


@pytest.mark.parametrize(
    ("done", "total", "told"),
    [
        ("half", None, "'half'"),
        (1, "some\nmore", "1 / 'some\\nmore'"),
        pytest.param(10**400, None, "1" + "0" * 58 + "…", id="too large"),
        (None, 3, ""),
        (0.5, 2.0, "0.5 / 2"),
    ],
)
def test_what_a_body_tells_as_its_progress_fails_nobody_who_shows_it(done: Any, total: Any, told: str) -> None:
    clock = Clock()
    stream = io.StringIO()
    lines = Lines(stream, period_seconds=1.0, clock=clock)
    lines(RunStarted("r", 1, 1, 0))
    lines(NODE)
    clock.now = 1.0
    lines(Progressed("r", "n", done, total))
    assert stream.getvalue().splitlines()[1] == "1.0 s: 0 of 1 nodes completed, 1 running" + (told and f"; n: {told}")


def test_a_line_tells_how_far_the_first_nodes_say_they_are() -> None:
    clock = Clock()
    stream = io.StringIO()
    lines = Lines(stream, period_seconds=1.0, clock=clock)
    lines(RunStarted("r", 1, 20, 0))
    for number in range(20):
        lines(NodeChanged("r", f"n{number}", "running", 1))
        lines(Progressed("r", f"n{number}", number, None))
    lines(NodeChanged("r", "n0", "completed", 1))
    clock.now = 1.0
    lines(SAVED)
    assert stream.getvalue().splitlines()[1].endswith("(every 5 s); n1: 1; n2: 2; n3: 3; and 16 more")


def test_a_node_that_waits_is_told_once_others_go_on_and_it_is_stored() -> None:
    stream = io.StringIO()
    lines = Lines(stream, clock=Clock())
    lines(RunStarted("r", 1, 20, 0))
    wakes = datetime(2027, 1, 1, tzinfo=UTC)
    lines(NodeChanged("r", "works", "running", 1))
    for place, node_id in enumerate(("a", "b c", "nap", "d", "e")):
        lines(NodeChanged("r", node_id, "suspended", 1))
        waits = Suspension("sleep", wakes, wake_at=wakes) if node_id == "nap" else Suspension(f"number {place}?", wakes)
        lines(NodeSuspended("r", node_id, waits))
    lines(NodeChanged("r", "e", "running", 1))
    assert stream.getvalue().count("\n") == 1
    for _ in range(2):
        lines(SAVED)
    assert stream.getvalue().splitlines()[1:] == [
        "a waits: number 0?. Answer: workflow answer r 'a=JSON'",
        "b c waits: number 1?. Answer: workflow answer r 'b c=JSON'",
        "nap until 2027-01-01T00:00:00+00:00",
        "and 1 more wait. See them with `workflow suspended`.",
    ]


def test_where_nothing_else_goes_on_the_end_of_the_run_tells_who_waits() -> None:
    stream = io.StringIO()
    lines = Lines(stream, clock=Clock())
    lines(RunStarted("r", 1, 2, 0))
    lines(NodeChanged("r", "a", "suspended", 1))
    lines(NodeSuspended("r", "a", Suspension("go on?", datetime(2027, 1, 1, tzinfo=UTC))))
    lines(SAVED)
    assert "waits" not in stream.getvalue()


def test_a_run_that_is_refused_before_it_begins_leaves_its_error_alone() -> None:
    stream = io.StringIO()
    Lines(stream)(RunEnded("r", "failed"))
    assert stream.getvalue() == ""


def test_the_tally_counts_a_node_once() -> None:
    tally = Tally(Clock())
    events: list[Event] = [
        RunStarted("r", 1, 2, 0),
        NODE,
        NodeChanged("r", "n", "paused", 3),
        Progressed("r", "n", 5, 10),
        Progressed("r", "unheard of", 5, 10),
    ]
    for event in events:
        tally.hear(event)
    assert {status: count for status, count in tally.statuses.items() if count} == {"paused": 1}
    assert (tally.nodes["n"].firings, tally.nodes["n"].done, tally.nodes["n"].total) == (3, 5, 10)


def test_firings_a_second_are_those_that_were_begun_meanwhile() -> None:
    """Not those of earlier attempts, nor those of other lanes, by whose number a firing of a lane is known."""
    clock = Clock()
    tally = Tally(clock)
    for firings in (1_000, 1_008, 1_017, 1_024):
        tally.hear(NodeChanged("r", "n/1", "running", firings))
    tally.hear(NodeChanged("r", "n/1", "completed", 1_024))
    node = tally.nodes["n/1"]
    assert node.rate(0.5) == ""
    assert (node.firings, node.rate(2.0)) == (1_024, "1.5")


def test_a_terminal_gets_the_live_view(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "count")
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "workflow_runner.cli", "run", graph, "--nodes", "nodes.py", "--input", "a=3"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(TERM="xterm"), stdout=subprocess.PIPE, stderr=terminal, text=True
    ) as process:
        os.close(terminal)
        shown = read_terminal(reader)
        assert process.stdout is not None
        assert process.stdout.read().startswith("out: 3 items")
    assert process.returncode == 0
    assert b"3 of 3 nodes completed" in shown
    assert b"firings" in shown
