"""A node that waits, in a line for whoever may answer."""

from __future__ import annotations

from hookspecs import Suspension
from workflow_runner.cli.report import one_line
from workflow_runner.shell import shell_word
from workflow_runner.suspension import SLEEP

__all__ = ["waiting_line"]


def waiting_line(node_id: str, waits: Suspension, answer: str, resume: str | None) -> str:
    """What a node waits for, and the command that answers it.

    Args:
        node_id: the node.
        waits: what it waits for.
        answer: how a command begins that takes answers.
        resume: the command that goes on when a time has come; `None` where the run goes on by itself.
    """
    until = "" if waits.wake_at is None else f" until {waits.wake_at.isoformat()}"
    shown = one_line(node_id)
    if waits.reason == SLEEP and waits.wake_at is not None:
        return f"{shown}{until}" if resume is None else f"{shown}{until}: then `{resume}`"
    given = shell_word(f"{node_id}=JSON")
    quoted = given if given.endswith("'") else f"'{given}'"  # JSON needs it
    return f"{shown} waits{until}: {one_line(waits.reason)}. Answer: {answer} {quoted}"
