"""The witness: bodies write what they do to a file outside of the system, which no kill can take back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from hookspecs import Snapshot, from_tagged, to_tagged
from tests.simulation.check import Firings, firings_of
from tests.simulation.lab import Journal, Lab, member_of
from workflow_runner import Context

__all__ = ["Testimony", "WitnessLab", "open_journal", "read_testimony"]


def open_journal(path: Path) -> int:
    """A descriptor to append to: one write is one line, also when the process dies right after it."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class WitnessLab(Lab):
    """What bodies share in a child process: every call of theirs is a line in the journal.

    Args:
        journal_file: descriptor of the journal.
        works: descriptor to write to at the first call of a body.
        attempt: of the run.
        random: of the timing, and of everything that is not deterministic.
        pace_seconds: the longest pause of a body.
    """

    def __init__(self, journal_file: int, works: int, attempt: int, random: Random, pace_seconds: float) -> None:
        super().__init__(random, Journal(), attempt)
        self._file = journal_file
        self._works: int | None = works
        self._pace_seconds = pace_seconds

    def restored(self, snapshot: Snapshot | None) -> None:
        """Write what the cut holds that the attempt goes on from."""
        nodes = snapshot.nodes if snapshot is not None else ()
        self.owed = {node.node_id: node.emitted for node in nodes if node.emitted}
        rows = [[n.node_id, n.status, n.commits, *firings_of(n)] for n in nodes]
        self._write("restored", rows, 0 if snapshot is None else snapshot.number)

    def saved(self, number: int) -> None:
        """Write that a checkpoint was called durable."""
        self._write("saved", number)

    def violate(self, problem: str) -> None:
        self._write("violated", problem)

    def begin(self, context: Context, *seen: Any) -> None:
        self._write("begin", context.node_id, context.idempotency_key, to_tagged(seen))
        if self._works is not None:
            os.write(self._works, b"!")
            self._works = None

    def step(self, context: Context, position: object, *seen: Any) -> None:
        self._write("step", context.node_id, context.idempotency_key, to_tagged(position), to_tagged(seen))

    def made(self, context: Context, value: Any) -> None:
        self._write("made", context.node_id, context.idempotency_key, to_tagged(value))

    def durable(self, node_id: str, commits: int) -> None:
        self._write("durable", node_id, commits)

    async def pause(self) -> None:
        await asyncio.sleep(0 if self.random.random() < 0.3 else self.random.random() * self._pace_seconds)

    def fail(self) -> None:
        """Nothing fails here but the process."""

    def _write(self, *words: Any) -> None:
        os.write(self._file, json.dumps([self.attempt, *words]).encode() + b"\n")


@dataclass
class Testimony:
    """What a journal says about a whole run.

    Args:
        violations: promises that were broken.
        attempts: that began their work.
        restored: attempts that went on from a cut.
        firings: by node, in the cut that the last attempt went on from.
        begun: bodies by node that the last attempt called.
    """

    __test__ = False

    violations: list[str] = field(default_factory=list)
    attempts: int = 0
    restored: int = 0
    firings: dict[str, Firings] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)


def read_testimony(path: Path, *, pure: set[str], gated: bool) -> Testimony:
    """Play a journal again, in a lab that checks every word.

    Args:
        path: of the journal.
        pure: nodes whose every step must be the same whenever it is run.
        gated: whether nothing may have been seen before it was durable.
    """
    found = Testimony()
    journal = Journal()
    lab = Lab(Random(0), journal, 0)
    promised: dict[str, int] = {}
    saved = 0
    for attempt, word, *rest in _lines(path):
        if word == "restored":
            nodes, number = rest
            if number < saved:
                journal.violations.append(f"checkpoint {saved} was called durable, and attempt {attempt} found {number}")
            found.attempts += 1
            found.restored += bool(nodes)
            commits = {node_id: commits for node_id, _, commits, *_ in nodes}
            for node_id, wanted in promised.items():
                if commits.get(node_id, 0) < wanted:
                    journal.violations.append(
                        f"commit {wanted} of node {node_id} was called durable, and attempt {attempt} lost it"
                    )
            completed = {node_id for node_id, status, *_ in nodes if status == "completed"}
            found.firings = {node_id: (final, left) for node_id, _, _, final, left in nodes}
            lab = Lab(Random(0), journal, attempt, completed, pure)
        elif word == "saved":
            saved = max(saved, *rest)
        elif word == "durable":
            node_id, wanted = rest
            promised[node_id] = max(promised.get(node_id, 0), wanted)
        elif word == "violated":
            lab.violate(*rest)
        else:
            node_id, key, *_ = rest
            if gated and word == "begin" and (member_of(node_id), key) in journal.seen:
                lab.violate(f"node {node_id} ran a firing again whose output another node had been given")
            _tell(lab, word, *rest)
    found.violations = journal.violations
    found.begun = {node_id: count for (attempt, node_id), count in journal.begun.items() if attempt == lab.attempt}
    return found


def _tell(lab: Lab, word: str, node_id: str, key: str, *rest: Any) -> None:
    context = cast(Context, SimpleNamespace(node_id=node_id, idempotency_key=key))
    match word, rest:
        case "begin", [seen]:
            lab.begin(context, *from_tagged(seen))
        case "step", [position, seen]:
            lab.step(context, from_tagged(position), *from_tagged(seen))
        case "made", [value]:
            lab.made(context, from_tagged(value))
        case _:
            raise AssertionError(f"{word!r} is no word of a journal")


def _lines(path: Path) -> Iterator[list[Any]]:
    with path.open(encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)
