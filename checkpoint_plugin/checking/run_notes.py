"""What is noted while a run is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from checkpoint_plugin.checking.finding import Finding, RunReport, Unverified, go_on, newest_intact
from checkpoint_plugin.errors import ValueNotReadable

__all__ = ["RunNotes"]

MOST_FINDINGS: Final = 200
"""Of one run: one lost page may damage ten thousand rows, and nobody reads as many lines."""


@dataclass(slots=True)
class RunNotes:
    """What is wrong with a run, and what could not be looked at.

    Args:
        run_id: the run.
        damaged: numbers of checkpoints that cannot be restored.
        hopeless: none can.
    """

    run_id: str
    damaged: set[int] = field(default_factory=set)
    hopeless: bool = False
    _found: list[tuple[str, int | None, str | None, str | None]] = field(default_factory=list)
    _left_out: int = 0
    _unverified: dict[str, None] = field(default_factory=dict)

    def note(self, what: str, number: int | None = None, node_id: str | None = None, advice: str | None = None) -> None:
        """Something is wrong.

        Args:
            what: it is.
            number: of a checkpoint.
            node_id: a node.
            advice: what to do; default: to go on from the newest checkpoint that is intact.
        """
        if len(self._found) < MOST_FINDINGS:
            self._found.append((what, number, node_id, advice))
        else:
            self._left_out += 1

    def spoil(self, number: int, what: str, node_id: str | None = None) -> None:
        """Something is wrong, and a checkpoint cannot be restored for it."""
        self.damaged.add(number)
        self.note(what, number, node_id)

    def condemn(self, what: str) -> None:
        """Something is wrong, and no checkpoint can be restored for it."""
        self.hopeless = True
        self.note(what)

    def leave(self, what: str) -> None:
        """Something could not be looked at."""
        self._unverified[what] = None

    def read(self, read: Callable[[], object]) -> None:
        """Read values; those that are whole and of no type that is known here are left."""
        try:
            read()
        except ValueNotReadable as error:
            self.leave(f"values that cannot be read here: {error.why}")

    def report(self, numbers: Sequence[int]) -> RunReport:
        """All of it.

        Args:
            numbers: of the checkpoints that are there.
        """
        damaged = frozenset(numbers) if self.hopeless else frozenset(self.damaged)
        advice = go_on(self.run_id, newest_intact(numbers, damaged))
        findings = [
            Finding(self.run_id, what, advice if special is None else special, number, node_id)
            for what, number, node_id, special in self._found
        ]
        if self._left_out:
            findings.append(Finding(self.run_id, f"and {self._left_out} more", advice))
        return RunReport(self.run_id, numbers, damaged, findings, [Unverified(self.run_id, what) for what in self._unverified])
