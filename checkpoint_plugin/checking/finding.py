"""What a check of a store finds, and how a user goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final

__all__ = ["RESTORE", "Finding", "RunReport", "StoreReport", "Unverified", "go_on", "newest_intact"]

RESTORE: Final = "Restore the database from a copy."


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not what was written.

    Args:
        run_id: the run; `None` for the database itself.
        what: is wrong.
        advice: what to do.
        number: of a checkpoint.
        node_id: a node.
    """

    run_id: str | None
    what: str
    advice: str
    number: int | None = None
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unverified:
    """Something that could not be looked at.

    Args:
        run_id: the run; `None` for the database itself.
        what: and why.
    """

    run_id: str | None
    what: str


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run that was checked.

    Args:
        run_id: the run.
        checkpoints: the numbers of those that are there.
        damaged: those of them that cannot be restored.
        findings: what is wrong.
        unverified: what could not be looked at.
    """

    run_id: str
    checkpoints: Sequence[int] = ()
    damaged: frozenset[int] = frozenset()
    findings: Sequence[Finding] = ()
    unverified: Sequence[Unverified] = ()

    @property
    def newest_intact(self) -> int | None:
        """The newest checkpoint that can be restored."""
        return newest_intact(self.checkpoints, self.damaged)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """A store that was checked.

    Args:
        runs: those that were.
        findings: about the database itself.
    """

    runs: Sequence[RunReport]
    findings: Sequence[Finding] = ()

    @property
    def all_findings(self) -> Sequence[Finding]:
        """Of the database and of every run."""
        return [*self.findings, *(finding for run in self.runs for finding in run.findings)]

    @property
    def unverified(self) -> Sequence[Unverified]:
        """Of every run."""
        return [each for run in self.runs for each in run.unverified]


def newest_intact(checkpoints: Sequence[int], damaged: frozenset[int] | set[int]) -> int | None:
    """The newest checkpoint that is not damaged."""
    return max((number for number in checkpoints if number not in damaged), default=None)


def go_on(run_id: str, number: int | None) -> str:
    """What to do about damage of checkpoints.

    Args:
        run_id: the run.
        number: of the newest that is intact.
    """
    if number is None:
        return RESTORE
    command = f"workflow resume {quote(run_id)} --checkpoint {number}"
    return f"Go on from checkpoint {number}: {command}, or --latest-intact. Or: {RESTORE}"
