"""The servers that tests start."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

STARTS = """
import sys
from tests.postgres import Server, start_server

server = start_server(Server)
print(server.folder, flush=True)
sys.stdin.read()
"""


def test_a_server_ends_with_the_tests_that_started_it_though_they_were_killed(postgres_server: str) -> None:
    """Where the server of the session could not be started, the test is skipped with it."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", STARTS], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert (folder / "data" / "postmaster.pid").exists()
        process.kill()
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
