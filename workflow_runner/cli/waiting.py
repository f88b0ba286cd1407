"""A node that waits, in a line for whoever may answer."""

from __future__ import annotations

from shlex import quote

from hookspecs import Suspension
from workflow_runner.cli.report import one_line
from workflow_runner.shell import shell_word
from workflow_runner.suspension import SLEEP

__all__ = ["waiting_line"]


def waiting_line(run_id: str, node_id: str, waits: Suspension, *, executed: bool = False) -> str:
    """What a node waits for, and the command that answers it.

    Args:
        run_id: its run.
        node_id: the node.
        waits: what it waits for.
        executed: whether the run goes on meanwhile, so that an answer is brought to who executes it.
    """
    until = "" if waits.wake_at is None else f" until {waits.wake_at.isoformat()}"
    shown, resume = one_line(node_id), f"workflow resume {quote(run_id)}"
    if waits.reason == SLEEP and waits.wake_at is not None:
        return f"{shown}{until}" if executed else f"{shown}{until}: then `{resume}`"
    answer = shell_word(f"{node_id}=JSON")
    quoted = answer if answer.endswith("'") else f"'{answer}'"  # JSON needs it
    command = f"workflow answer {quote(run_id)} {quoted}" if executed else f"{resume} --set {quoted}"
    return f"{shown} waits{until}: {one_line(waits.reason)}. Answer: {command}"
