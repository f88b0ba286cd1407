"""The report over the standard library: killed with SIGKILL and resumed, it is byte for byte the undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoint_plugin

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = (sys.executable, "-m", "workflow_runner.cli")
NODES = ("--nodes", str(EXAMPLES / "stdlib_nodes.py"))
LIMIT = 150
WAIT_SECONDS = 60


def arguments(run_id: str, folder: str, journal: str) -> list[str]:
    """The command of the README, over fewer files."""
    inputs = {"limit": str(LIMIT), "folder": json.dumps(folder), "journal": json.dumps(journal)}
    given = [part for name, value in inputs.items() for part in ("--input", f"{name}={value}")]
    return [*COMMAND, "run", str(EXAMPLES / "stdlib_report.json"), *NODES, "--run-id", run_id, "--quiet", *given]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_killed_report_is_the_undisturbed_one(tmp_path: Path, store_url: str) -> None:
    packages = str(Path(checkpoint_plugin.__file__).parents[1])
    environment = {**os.environ, "WORKFLOW_CHECKPOINT_URL": store_url, "PYTHONPATH": packages}
    subprocess.run(arguments("whole", "whole", "whole.txt"), cwd=tmp_path, env=environment, check=True, timeout=WAIT_SECONDS)
    journal = tmp_path / "killed.txt"
    process = subprocess.Popen(arguments("killed", "killed", "killed.txt"), cwd=tmp_path, env=environment)
    give_up = time.monotonic() + WAIT_SECONDS
    while len(lines(journal)) < LIMIT // 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    resume = [*COMMAND, "resume", "killed", *NODES, "--json"]
    found = subprocess.run(
        resume, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert json.loads(found.stdout)["status"] == "completed"
    for name in ("report.json", "report.svg"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    measured = lines(journal)
    assert set(measured) == set(lines(tmp_path / "whole.txt"))
    assert len(set(measured)) == LIMIT
    assert json.loads((tmp_path / "whole" / "report.json").read_text())["total"]["files"] == LIMIT
