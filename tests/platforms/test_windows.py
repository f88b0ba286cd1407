"""What Windows lacks is not needed, and what it does with files changes nothing that is stored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.command import environment

NODES = """
import asyncio
import signal
from pathlib import Path
from workflow_runner import node

@node
async def lines(n: int) -> bytes:
    return b"a line\\n" * n

@node
async def interrupted(data: bytes) -> int:
    if not Path("interrupted").exists():
        Path("interrupted").touch()
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(20)
    return len(data)
"""
N = 5_000


def write_flow(folder: Path, last: str) -> None:
    (folder / "nodes.py").write_text(NODES)
    flow: dict[str, Any] = {
        "nodes": [
            {"id": "lines", "type": "nodes.lines", "data": {"n": N}},
            {"id": "last", "type": f"nodes.{last}", "data": {}},
            {"id": "out", "type": "workflow.Output"},
        ],
        "edges": [
            {"source": "lines", "target": "last", "targetHandle": "data"},
            {"source": "last", "target": "out", "targetHandle": "value"},
        ],
        "enable": {"checkpoint": {"every_firing": True, "blobs": True, "blob_bytes": 1_000, "witness": "witness"}},
    }
    (folder / "flow.json").write_text(json.dumps(flow))


def on_windows(folder: Path, *commands: str) -> tuple[list[int], str]:
    """Exit codes of commands that are run one after the other in one process, and what was printed before."""
    arguments = " , ".join(commands).split()
    done = subprocess.run(
        [sys.executable, "-m", "tests.platforms.windows", *arguments],
        cwd=folder,
        env=environment(WORKFLOW_DEBUG="1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    printed, _, codes = done.stdout.rstrip().rpartition("\n")
    return json.loads(codes), printed + done.stderr


RUN = "run flow.json --nodes nodes.py --run-id r --quiet"


def test_a_run_is_saved_with_its_files_and_resumed(tmp_path: Path) -> None:
    write_flow(tmp_path, "interrupted")
    assert on_windows(tmp_path, RUN)[0] == [130]
    assert len(list((tmp_path / ".workflow/checkpoints.db.blobs").rglob("*.*"))) == 1
    commands = ("db check", "resume r --nodes nodes.py", "show r", "prune --keep-last 1", "runs")
    codes, printed = on_windows(tmp_path, *commands)
    assert codes == [0, 0, 0, 0, 0], printed
    assert f"out: {7 * N}" in printed


def test_a_recovery_resumes_runs_in_processes_and_hears_why_one_failed(tmp_path: Path) -> None:
    write_flow(tmp_path, "interrupted")
    assert on_windows(tmp_path, RUN)[0] == [130]
    (tmp_path / "nodes.py").write_text(NODES.replace("return len(data)", 'raise ValueError("the reason")'))
    codes, printed = on_windows(tmp_path, "recover --paused --nodes nodes.py")
    assert codes == [1]
    assert "the reason" in printed


def test_each_module_of_the_plugin_is_imported_without_what_is_of_unix_alone() -> None:
    program = """
import pkgutil
from tests.platforms import windows
windows.become_windows()
import checkpoint_plugin, hookspecs, workflow_runner
for package in (checkpoint_plugin, hookspecs, workflow_runner):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
