"""Two and four processes resume one run; an owner that is stopped, replaced and continued; one that is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import RunHistory, Store

WAIT_SECONDS = 60
LIVE_SECONDS = 1.0
STOPS = 50


class Racer:
    """One process of `racer.py`."""

    def __init__(self, folder: Path) -> None:
        self._messages = (folder / f"racer-{id(self)}.txt").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.races.racer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.answer()

    def order(self, verb: str, **more: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"verb": verb, "options": {}, "steal": False, **more}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=WAIT_SECONDS)
        self._messages.close()


@contextmanager
def racers(count: int, folder: Path) -> Iterator[list[Racer]]:
    started: list[Racer] = []
    try:
        while len(started) < count:
            started.append(Racer(folder))
        yield started
    finally:
        for racer in started:
            racer.end()


def checkpoints(url: str, run_id: str) -> list[tuple[int, int]]:
    """Number and attempt of each."""

    async def read() -> list[tuple[int, int]]:
        store = Store(locate(url), create=False)
        try:
            assert await store.restore(RunHistory(run_id, 0), None) is not None
            return [(row.number, row.attempt) for row in await store.checkpoints(run_id)]
        finally:
            await store.close()

    return asyncio.run(read())


def wait_for_lines(path: Path, count: int, holding: str = "") -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not path.exists() or sum(holding in line for line in path.read_text(encoding="utf-8").splitlines()) < count:
        assert time.monotonic() < deadline, f"{path} has no {count} lines"
        time.sleep(0.01)


def limit_of(journal: Path, step: int) -> Path:
    """Have the steps of a run wait at one of them until the file is gone: on a slow machine they are not over too soon."""
    path = Path(f"{journal}.limit")
    path.write_text(str(step), encoding="utf-8")
    return path


def stop_between_transactions(racer: Racer, url: str) -> None:
    """Stop a process where it does not hold the lock of an SQLite file: with it stopped, nobody at all can write there."""
    for _ in range(STOPS):
        racer.signal(signal.SIGSTOP)
        if not url.startswith("sqlite"):
            return
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=0)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            racer.signal(signal.SIGCONT)
            time.sleep(0.01)
        else:
            return
        finally:
            connection.close()
    raise AssertionError("the owner always held the lock")


@pytest.mark.parametrize("count", [2, 4])
def test_one_of_several_processes_resumes_a_run(store_url: str, tmp_path: Path, count: int, pytestconfig: pytest.Config) -> None:
    with racers(count, tmp_path) as all_of_them:
        for number in range(pytestconfig.getoption("--race-rounds")):
            run_id, journal = f"run-{number}", tmp_path / f"journal-{number}"
            first = all_of_them[0]
            first.order("prepare", kind="wait", url=store_url, run_id=run_id, journal=str(journal))
            assert first.answer() == {}
            journal.unlink(missing_ok=True)
            for racer in all_of_them:
                racer.order("resume", url=store_url, run_id=run_id)
            answers = [racer.answer() for racer in all_of_them]
            won = [answer for answer in answers if answer.get("outputs") == {"out": ["done"]}]
            lost = [answer for answer in answers if answer.get("error") == "RunHeld"]
            # Who came when all was over is given the outputs: what counts is that one alone has executed the node.
            assert won
            assert len(won) + len(lost) == count, answers
            assert len(journal.read_text(encoding="utf-8").splitlines()) == 1


def test_an_owner_that_was_stopped_replaced_and_continued_writes_nothing(store_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    options = {"every_firing": True, "lease_seconds": LIVE_SECONDS}
    limit = limit_of(journal, 20)
    with racers(2, tmp_path) as (old, new):
        old.order("run", kind="steps", url=store_url, run_id="r", journal=str(journal), options=options)
        wait_for_lines(journal, 10)
        new.order("resume", url=store_url, run_id="r")
        assert new.answer()["error"] == "RunHeld"  # it lives
        stop_between_transactions(old, store_url)
        time.sleep(2 * LIVE_SECONDS)  # now nobody renews it, though the process is there
        limit.unlink()
        new.order("resume", url=store_url, run_id="r")
        wait_for_lines(journal, len(journal.read_text(encoding="utf-8").splitlines()) + 5)
        old.signal(signal.SIGCONT)
        lost = old.answer()
        assert lost["error"] == "LeaseLost", lost
        assert "took it over" in lost["message"]
        assert new.answer() == {"outputs": {"out": list(range(100))}}
    saved = checkpoints(store_url, "r")
    attempts = [attempt for _, attempt in saved]
    assert [number for number, _ in saved] == list(range(1, len(saved) + 1))
    assert attempts == sorted(attempts)
    assert set(attempts) == {1, 2}


def test_a_killed_owner_holds_nothing(store_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with racers(2, tmp_path) as (old, new):
        old.order("run", kind="steps", url=store_url, run_id="r", journal=str(journal), options={"every_firing": True})
        wait_for_lines(journal, 10)
        old.signal(signal.SIGKILL)  # and nobody waits for it: it stays as a zombie, which lives no more
        time.sleep(0.1)
        new.order("resume", url=store_url, run_id="r")
        assert new.answer() == {"outputs": {"out": list(range(100))}}


def test_a_living_owner_is_robbed_only_on_demand(store_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    options = {"every_seconds": 0.05}
    limit = limit_of(journal, 20)
    with racers(2, tmp_path) as (old, new):
        old.order("run", kind="steps", url=store_url, run_id="r", journal=str(journal), options=options)
        wait_for_lines(journal, 10)
        new.order("resume", url=store_url, run_id="r", steal=True)
        wait_for_lines(journal, 2, "begins")
        limit.unlink()
        assert old.answer()["error"] == "LeaseLost"
        assert new.answer() == {"outputs": {"out": list(range(100))}}
