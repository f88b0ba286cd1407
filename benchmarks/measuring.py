"""Measures cases: everyone in turn, round by round, so that a machine whose speed drifts treats all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.case import Case, Entry
from benchmarks.participant import Participant
from benchmarks.place import Places
from benchmarks.request import NotAvailable, Request

__all__ = ["Found", "Measuring"]


@dataclass(slots=True)
class Found:
    """What one entry of a case took.

    Args:
        case, entry: whose it is.
        size: units that it did.
        values: by metric, one a counted round.
        problem: why there is nothing.
        failed: whether it broke; without, there is no such work, or not here.
    """

    case: Case
    entry: Entry
    size: int
    values: dict[str, list[float]] = field(default_factory=dict)
    problem: str = ""
    failed: bool = False

    def note(self, answer: dict[str, Any]) -> None:
        """Remember why there is nothing, if the answer of its participant says so."""
        self.problem = answer.get("missing") or answer.get("error") or ""
        self.failed = "error" in answer

    def median(self, metric: str) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values[metric])

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "case": self.case.name,
            "entry": self.entry.label,
            "size": self.size,
            "problem": self.problem,
            "metrics": {
                name: {"median": self.median(name), "min": min(values), "max": max(values), "rounds": values}
                for name, values in self.values.items()
            },
        }


class Measuring:
    """Holds the processes of those who take part.

    Args:
        places: of the stores.
        rounds: that are counted; with more than one, a first round is not.
        log: where participants print.
        say: told what is under way.
    """

    def __init__(self, places: Places, rounds: int, log: Path, say: Callable[[str], None]) -> None:
        self._places = places
        self._rounds = rounds
        self._log = log
        self._say = say
        self._participants: dict[str, Participant] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def participant(self, name: str) -> Participant:
        """The process of one of them; started when it is first asked."""
        if name not in self._participants:
            self._participants[name] = self._stack.enter_context(Participant(name, self._log))
        return self._participants[name]

    def measure(self, case: Case) -> list[Found]:
        """All rounds of a case."""
        found = [Found(case, entry, min(case.size, entry.most or case.size)) for entry in case.entries]
        with ExitStack() as filled:
            templates = {item.entry.label: self._fill(item, filled) for item in found} if case.filled else {}
            for number in range(self._rounds + (self._rounds > 1)):
                for item in found:
                    if not item.problem:
                        self._say(f"{case.name}: {item.entry.label}, round {number}")
                        self._once(item, templates.get(item.entry.label), counted=number > 0 or self._rounds == 1)
        return found

    def _fill(self, item: Found, stack: ExitStack) -> str | None:
        self._say(f"{item.case.name}: {item.entry.label} is filled")
        try:
            url = stack.enter_context(self._places.fresh(item.case.database))
        except NotAvailable as error:
            item.problem = str(error)
            return None
        # A process of its own: nobody may be connected to a store that is copied.
        answer = self.participant(item.entry.participant).ask_fresh(_request(item, url, action="fill"))
        item.note(answer)
        return url

    def _once(self, item: Found, template: str | None, counted: bool) -> None:
        participant = self.participant(item.entry.participant)
        with self._place(item, template) as url:
            if url is None:
                return
            request = _request(item, url)
            answer = participant.ask_fresh(request) if item.case.fresh else participant.ask(request)
            item.note(answer)
            if item.problem or not counted:
                return
            metrics = answer["metrics"]
            if any(figure.metric == "bytes" for figure in item.case.figures):
                metrics["bytes"] = self._places.bytes_of(url)
            for name, value in metrics.items():
                item.values.setdefault(name, []).append(value)

    @contextmanager
    def _place(self, item: Found, template: str | None) -> Iterator[str | None]:
        with ExitStack() as stack:
            try:
                url = stack.enter_context(self._places.fresh(item.case.database, template))
            except NotAvailable as error:
                item.problem = str(error)
                yield None
                return
            yield url


def _request(item: Found, url: str, action: str = "measure") -> Request:
    return Request(item.case.workload, item.case.variant, item.size, url, action, item.entry.extra)
