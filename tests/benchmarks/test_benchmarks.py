"""Every workload of ours and of the floor does its work at a tiny size, and is reported; nothing here looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import checkpoint_plugin
from benchmarks.case import PEERS, Case, Entry, Figure, cases
from benchmarks.goal import GOALS, Goal, Pick, is_passed, judge
from benchmarks.measuring import Found, Measuring
from benchmarks.participant import Participant
from benchmarks.picture import draw
from benchmarks.place import Places
from benchmarks.request import Request
from benchmarks.table import rows

ROOT = Path(__file__).parents[2]
TINY = {case.name: case for case in cases(0.004)}
SLOW = ("W4 warm postgresql", "W7 100 nodes", "W7 1000 nodes", "W9")
QUICK = [name for name in TINY if not name.startswith(SLOW) and "fresh" not in name]
"""The others are the same code, or start processes."""


@pytest.fixture(scope="module")
def measuring(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measuring]:
    assert checkpoint_plugin.__all__
    folder = tmp_path_factory.mktemp("benchmarks")
    with Measuring(Places(folder, postgres_server), 1, folder / "log", lambda text: None) as found:
        yield found


def ours_and_floor(case: Case) -> Case:
    kept = tuple(entry for entry in case.entries if entry.participant in ("ours", "floor"))
    return Case(case.workload, case.variant, case.size, case.database, kept, case.figures, case.filled, case.fresh)


@pytest.mark.parametrize("name", QUICK)
def test_each_does_its_work(name: str, measuring: Measuring) -> None:
    case = ours_and_floor(TINY[name])
    found = measuring.measure(case)
    for item in found:
        assert not item.problem
        assert item.values[case.figures[0].metric][0] > 0
    assert len(rows(found)) > len(found)


def test_a_fresh_process_and_the_command_are_measured(measuring: Measuring) -> None:
    for name in ("W4 fresh process sqlite", "W9 help absent", "W9 run enabled"):
        for item in measuring.measure(ours_and_floor(TINY[name])):
            assert not item.problem, item.problem


def test_who_is_missing_is_said(tmp_path: Path) -> None:
    with Participant("floor", tmp_path / "log") as floor:
        assert floor.ask(Request("W9", "help absent", 1)) == {"missing": "floor is not measured on W9"}
    case = Case("W1", "sync postgresql", 2, "postgresql", (Entry("floor", "floor"),), (Figure("seconds", "s"),))
    with Measuring(Places(tmp_path, None, "no PostgreSQL here"), 1, tmp_path / "log", lambda text: None) as measuring:
        assert measuring.measure(case)[0].problem == "no PostgreSQL here"


def test_an_error_is_an_answer_and_the_next_request_is_answered(tmp_path: Path) -> None:
    with Participant("ours", tmp_path / "log") as ours:
        assert ours.ask(Request("W1", "nonsense", 2)) == {"error": "KeyError: 'nonsense'"}
        assert ours.ask(Request("W1", "off", 2))["metrics"]["seconds"] > 0


def found(case: Case, label: str, *seconds: float) -> Found:
    return Found(case, Entry(label, label), case.size, {"seconds": list(seconds)})


def test_goals_are_judged_round_by_round() -> None:
    case = TINY["W1 off"]
    verdicts = {str(verdict.goal): verdict for verdict in judge([found(case, "ours", 2, 40, 6), found(case, "floor", 1, 10, 3)])}
    reached = verdicts["W1 off, ours seconds / floor ≤ 2.5"]
    assert reached.value == 2
    assert reached.reached
    missing = verdicts["W1 off, ours seconds / any peer ≤ 1"]
    assert missing.value is None
    assert not missing.reached
    missed = judge([found(case, "ours", 9), found(case, "floor", 1), found(case, "burr", 8), found(case, "kedro", 10)])
    assert [verdict.value for verdict in missed] == [9, 9 / 8]
    assert not any(verdict.reached for verdict in missed)


def test_the_fastest_peer_is_not_known_where_one_of_them_broke() -> None:
    case = TINY["W1 off"]
    burr = Found(case, Entry("burr", "burr"), case.size, problem="KeyError: 'step'", failed=True)
    verdicts = judge([found(case, "ours", 9), burr, found(case, "kedro", 10)])
    assert [verdict.value for verdict in verdicts if verdict.goal.by is not None and verdict.goal.by.entry == "any peer"] == [
        None
    ]


def test_a_check_is_not_passed_where_ours_broke(tmp_path: Path) -> None:
    case = TINY["W1 off"]
    nonsense = Case("W1", "nonsense", 2, "", (Entry("ours", "ours"),), case.figures)
    with Measuring(Places(tmp_path, None), 1, tmp_path / "log", lambda text: None) as measuring:
        broken = measuring.measure(nonsense)
    away = Found(case, Entry("ours", "ours"), case.size, problem="no PostgreSQL here")
    peer = Found(case, Entry("burr", "burr"), case.size, problem="KeyError: 'step'", failed=True)
    assert is_passed([], [found(case, "ours", 1), away, peer])
    assert not is_passed([], broken)
    assert not is_passed(judge([found(case, "ours", 9), found(case, "floor", 1)]), [])


def test_bytes_are_judged_by_what_had_to_be_stored() -> None:
    case = TINY["W6 sync sqlite"]
    item = Found(case, Entry("ours", "ours"), 10, {"seconds": [1.0], "bytes": [20_480.0]})
    assert [verdict.value for verdict in judge([item])] == [2]


def test_a_goal_speaks_of_cases_that_exist() -> None:
    labels = {name: {entry.label for entry in case.entries} for name, case in TINY.items()}

    def picks(goal: Goal) -> list[Pick]:
        return [pick for pick in (goal.what, goal.by, *(goal.relative_to or ())) if pick is not None]

    for pick in (pick for goal in GOALS for pick in picks(goal)):
        assert pick.entry in labels[pick.case] or (pick.entry == "any peer" and labels[pick.case] & set(PEERS)), pick


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    path, picture = tmp_path / "figures.json", tmp_path / "figures.svg"
    options = ["--only", "W1 off", "--peers", "none", "--rounds", "2", "--scale", "0.01"]
    command = [sys.executable, "-m", "benchmarks", *options, "--json", str(path), "--svg", str(picture)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "W1 off, 10" in ended.stdout
    document = json.loads(path.read_text())
    assert [len(item["metrics"]["seconds"]["rounds"]) for item in document["results"]] == [2, 2, 2, 2]
    assert document["settings"]["versions"]["ours"]["versions"]["workflow-runner"]
    assert "</svg>" in picture.read_text()


def test_the_picture_is_well_formed() -> None:
    case = TINY["W1 off"]
    same = draw([[found(case, "ours", 1.0), found(case, "a & b", 1.0)]])
    assert {child.tag.rpartition("}")[2] for child in ElementTree.fromstring(same)} == {"rect", "text"}
