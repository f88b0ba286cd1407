"""The command line as a user meets it: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import workflow_runner

__all__ = ["NODES", "environment", "read_terminal", "start", "workflow", "write_graph"]

COMMAND = (sys.executable, "-m", "workflow_runner.cli")
PACKAGES = str(Path(workflow_runner.__file__).parents[1])

NODES = '''
import asyncio
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from workflow_runner import Context, Stream, node


@node
async def value(a: Any) -> Any:
    return a

@node
async def loud(a: Any) -> Any:
    print("said by a node")
    return a

@node
def runs_a_program(a: Any) -> Any:
    subprocess.run(["printf", "said by a program"], check=True)
    return a

@node
async def count(a: int) -> AsyncIterator[int]:
    for number in range(a):
        yield number

class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")

@node
async def oddities(a: Any) -> AsyncIterator[Any]:
    for item in (float("nan"), (1, 2), b"abc", {1: 2}, {"$type": "x"}, 2**70, Mute(), object()):
        yield item

@node
async def fails(a: Any) -> Any:
    raise ValueError("the reason")

@node
async def leaves(a: Any) -> Any:
    raise SystemExit(0)

@node
async def asks(a: Any, context: Context) -> Any:
    return await context.suspend("may it go on?")


@node
async def asks_for_sleep(a: Any, context: Context) -> Any:
    return await context.suspend("sleep")

@node
async def waits(a: Any) -> Any:
    Path("waiting").touch()
    await asyncio.sleep(600)

@node
def sleeps(a: Any) -> Any:
    Path("waiting").touch()
    time.sleep(600)

@node
async def offloads(a: Any) -> Any:
    await asyncio.to_thread(sleeps, a)

@node
async def refuses(a: Any) -> Any:
    while True:
        Path("waiting").touch()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

@node
async def spins(a: Any) -> Any:
    Path("waiting").touch()
    while True:
        pass

@node
async def total(items: Stream[int], context: Context) -> AsyncIterator[int]:
    """Waits once, in the middle, for somebody to stop it."""
    done = context.state or 0
    async for item in items:
        if item == 5 and not Path("go on").exists():
            await context.checkpoint("half")
            Path("waiting").touch()
            await asyncio.sleep(600)
        done += item
        with Path("journal").open("a") as journal:
            journal.write(f"{item}\\n")
        yield done
        context.commit(done)
'''


def environment(*folders: Path, **variables: str) -> dict[str, str]:
    """Variables of a process that sees the packages under test and the distributions in some folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WORKFLOW", "PYTHON"))}
    return kept | {"PYTHONPATH": os.pathsep.join([*map(str, folders), PACKAGES]), "TERM": "dumb"} | variables


def workflow(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=env or environment(), capture_output=True, text=True, check=False, timeout=60
    )


def start(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, env=env or environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def write_graph(folder: Path, node: str, data: Mapping[str, Any] | None = None, **more: Any) -> str:
    """Write `nodes.py` and a graph: input `a` → the node → output `out`.

    Returns:
        The graph's file name.
    """
    (folder / "nodes.py").write_text(NODES)
    document = {
        "nodes": [
            {"id": "in", "type": "workflow.Input", "data": {"name": "a"}},
            {"id": "body", "type": f"nodes.{node}", "data": data or {}},
            {"id": "out", "type": "workflow.Output"},
        ],
        "edges": [
            {"source": "in", "target": "body", "targetHandle": "a"},
            {"source": "body", "target": "out", "targetHandle": "value"},
        ],
        **more,
    }
    (folder / "flow.json").write_text(json.dumps(document))
    return "flow.json"


def read_terminal(reader: int) -> bytes:
    """All that a terminal shows until its other end is closed; this one is closed, too."""
    shown = b""
    while True:
        try:
            chunk = os.read(reader, 65_536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(reader)
    return shown
