"""The session of the README: a run waits for a person, and another process answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import checkpoint_plugin

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_letter_waits_for_a_person(tmp_path: Path, store_url: str) -> None:
    packages = str(Path(checkpoint_plugin.__file__).parents[1])
    environment = {**os.environ, "WORKFLOW_CHECKPOINT_URL": store_url, "PYTHONPATH": packages}

    def workflow(*arguments: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "workflow_runner.cli", *arguments, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, json.loads(done.stdout)

    nodes = ("--nodes", str(EXAMPLES / "approvals.py"))
    code, told = workflow("run", str(EXAMPLES / "approval.json"), *nodes, "--run-id", "letter", "--input", 'topic="rain"')
    assert (code, told["status"]) == (3, "suspended")
    (waits,) = workflow("suspended")[1]["suspended"]
    assert (waits["run_id"], waits["node_id"], waits["reason"]) == ("letter", "approve", "may this be sent?")
    earlier = datetime.fromisoformat(waits["since"]) - timedelta(seconds=1)
    answer = ("resume", "letter", *nodes, "--set", 'approve="yes"', "--since")
    code, told = workflow(*answer, f"approve={earlier.isoformat()}")
    assert (code, told["error"]["type"]) == (2, "SuspensionChanged")
    code, told = workflow(*answer, f"approve={waits['since']}")
    assert (code, told["outputs"]) == (0, {"sent": ["A letter about rain."]})
