"""What errors advise to type is typed as it stands, whatever the run is called."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime

import pytest

from hookspecs import LeaseLost, RunExists, RunHeld, WorkflowError
from workflow_runner import OutcomeUnknown, RunStopped

RUN = "it's my run; rm *"


@pytest.mark.parametrize(
    "error",
    [
        RunExists(RUN),
        RunHeld(RUN, None, None),
        RunHeld(RUN, "somebody", datetime.now(UTC)),
        LeaseLost(RUN, 1),
        RunStopped(RUN, "signal", durable=True),
        OutcomeUnknown(RUN, ["a b"]),
        OutcomeUnknown(RUN, ["a b", "c"], ["d e"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_commands_in_errors_name_the_run_as_one_word(error: WorkflowError) -> None:
    commands = re.findall(r"`(workflow (?:resume|show) [^`]*)`", str(error))
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert words[2] == RUN
        assert all(word.startswith("--") or word in {"a b", "c", "d e", "a b=JSON"} for word in words[3:])
