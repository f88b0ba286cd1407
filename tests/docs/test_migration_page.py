"""What `docs/migration.md` imports is exported, and the calls that it names are there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import checkpoint_plugin
from workflow_runner import SuspendableNode, WorkflowSuspended

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (?:Rows: )?(\w+).*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CALLS = [
    (owner, name, arguments)
    for owner in ("CheckpointManager", "StateManager", "EventLogger", "RecoveryService")
    for row in re.findall(r"^\| (`[^|]+) \|", SECTIONS[owner], re.MULTILINE)
    for name, arguments in re.findall(r"`(\w+)\(([^`]*)\)`", row)
]


def test_its_imports_work() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "migration.md", "exec"), {})


def test_what_it_names_of_a_suspendable_node_is_there() -> None:
    for name in ("is_suspendable", "is_resuming", "suspend_workflow", "get_saved_state", "get_answer"):
        assert f"`{name}" in SECTIONS["Suspension"]
        assert hasattr(SuspendableNode, name)
    told = WorkflowSuspended("a", "asks", {"page": 3}, {"to": "ann"}).to_dict()
    for name in ("node_id", "reason", "state", "metadata", "wake_at"):
        assert f"`{name}`" in SECTIONS["Suspension"]
        assert name in told


def test_the_calls_were_found() -> None:
    assert {"save_checkpoint", "restore_checkpoint_hook", "update_node_state", "stop", "log"} <= {name for _, name, _ in CALLS}


@pytest.mark.parametrize(("owner", "name", "arguments"), CALLS)
def test_every_call_takes_what_the_page_gives(owner: str, name: str, arguments: str) -> None:
    part = getattr(checkpoint_plugin, owner)
    parameters = inspect.signature(getattr(part, name, None) or getattr(checkpoint_plugin, name)).parameters
    for argument in arguments.replace("…", "").split(","):
        if argument.strip():
            assert argument.partition("=")[0].strip() in parameters
