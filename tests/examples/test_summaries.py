"""The session of the README: a run with eight calls at once is killed, and repeats those that were under way alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import checkpoint_plugin

EXAMPLES = Path(__file__).parents[2] / "examples"
CHAPTERS = 30
CALLED = 16
"""Lines of the journal after which the run is killed."""


def test_calls_that_were_made_are_not_made_again(tmp_path: Path, store_url: str) -> None:
    packages = str(Path(checkpoint_plugin.__file__).parents[1])
    environment = {**os.environ, "WORKFLOW_CHECKPOINT_URL": store_url, "PYTHONPATH": packages}
    command = [sys.executable, "-m", "workflow_runner.cli"]
    nodes = ["--nodes", str(EXAMPLES / "summaries.py")]
    calls = tmp_path / "calls.txt"
    given = ["--input", f"count={CHAPTERS}", "--input", f"journal={json.dumps(str(calls))}"]
    run = [*command, "run", str(EXAMPLES / "summaries.json"), *nodes, "--run-id", "book", *given, "--quiet"]
    with subprocess.Popen(run, cwd=tmp_path, env=environment) as killed:
        try:
            for _ in range(6_000):
                if calls.exists() and len(calls.read_text(encoding="utf-8").splitlines()) >= CALLED:
                    break
                assert killed.poll() is None, "it ended before it was killed"
                time.sleep(0.01)
        finally:
            killed.kill()
    before = calls.read_text(encoding="utf-8").splitlines()
    resume = [*command, "resume", "book", *nodes, "--json"]
    done = subprocess.run(resume, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)

    told = json.loads(done.stdout)["outputs"]["summaries"]
    assert told == [f"In one line: chapter {number}" for number in range(1, CHAPTERS + 1)]
    after = calls.read_text(encoding="utf-8").splitlines()[len(before) :]
    assert len(before) == len(set(before))
    assert {*before, *after} == {f"chapter {number}" for number in range(1, CHAPTERS + 1)}
    assert len({*before} & {*after}) <= 8, "more than were under way"
