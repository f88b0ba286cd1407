"""W9: how long the command takes to start, without the plugin, with it, and with it enabled.

All are started alike: `python -S` with one folder that links to everything that is installed, so that the plugin can be left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.request import Request

__all__ = ["run_start"]

COMMAND = "import sys; sys.path[:0] = [{folder!r}]; from workflow_runner.cli.main import main; main()"
NODES = "from workflow_runner import node\n\n\n@node\nasync def one() -> int:\n    return 1\n"
DOCUMENT = {"nodes": [{"id": "one", "type": "one_node.one", "data": {}}], "edges": []}
PLUGIN = ("checkpoint_plugin", "workflow_checkpoint")


def run_start(request: Request) -> dict[str, float]:
    """Measure `help` or `run`, with the plugin `absent`, `present` or `enabled`."""
    what, plugin = request.variant.split()[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = folder / "site"
        _link(site, with_plugin=plugin != "absent")
        (folder / "one_node.py").write_text(NODES)
        (folder / "flow.json").write_text(json.dumps(DOCUMENT))
        arguments = ["--help"] if what == "help" else ["run", "flow.json", "--nodes", "one_node.py", "--quiet"]
        if plugin == "enabled":
            arguments += ["--enable", "checkpoint"]
        command = [sys.executable, "-S", "-c", COMMAND.format(folder=str(site)), *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)  # compiles what is not compiled yet
        (folder / ".workflow" / "checkpoints.db").unlink(missing_ok=True)
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return {"seconds": time.perf_counter() - started}


def _link(site: Path, with_plugin: bool) -> None:
    site.mkdir()
    entries = list(Path(sysconfig.get_path("purelib")).iterdir())
    for package in ("hookspecs", "workflow_runner", "checkpoint_plugin"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        entries.insert(0, Path(spec.origin).parent)
    for entry in entries:
        link = site / entry.name
        if not link.exists() and (with_plugin or not entry.name.startswith(PLUGIN)):
            link.symlink_to(entry)
