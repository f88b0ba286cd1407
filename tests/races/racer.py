"""A process that runs and resumes what it is told, line by line, and tells what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from workflow_runner import Context, Graph, WorkflowRunner, node
from workflow_runner.errors import RunStopped

__all__ = ["steps", "wait_first"]


@node
async def wait_first(journal: str, seconds: float) -> str:
    """Notes that it is executed, and takes some time for it."""
    _note(journal, str(os.getpid()))
    await asyncio.sleep(seconds)
    return "done"


@node
async def steps(journal: str, count: int, context: Context) -> AsyncIterator[int]:
    """Counts, slowly, and notes that it begins, and each step; no further than a file beside the journal says, if any."""
    first = context.state or 0
    limit = Path(f"{journal}.limit")
    _note(journal, f"{os.getpid()} begins")
    for step in range(first, count):
        while _is_beyond(step, limit):  # noqa: ASYNC110  another process says so
            await asyncio.sleep(0.02)
        _note(journal, f"{os.getpid()} {step}")
        yield step
        context.commit(step + 1)
        await asyncio.sleep(0.02)


def _is_beyond(step: int, limit: Path) -> bool:
    try:
        return step >= int(limit.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False


def _note(journal: str, line: str) -> None:
    with Path(journal).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _graph(kind: str, journal: str) -> Graph:
    graph = Graph()
    node_id = (
        graph.add(wait_first, journal=journal, seconds=0.3) if kind == "wait" else graph.add(steps, journal=journal, count=100)
    )
    graph.output("out", node_id)
    return graph


async def _obey(order: dict[str, Any]) -> dict[str, Any]:
    runner = WorkflowRunner(nodes=[__name__])
    options = {"url": order["url"], **order["options"]}
    try:
        match order["verb"]:
            case "prepare":  # a run that was stopped before its node had done anything
                runner.subscribe(lambda event: runner.stop("cancel"))
                await runner.run(_graph(order["kind"], order["journal"]), None, {"checkpoint": options}, order["run_id"])
            case "run":
                result = await runner.run(_graph(order["kind"], order["journal"]), None, {"checkpoint": options}, order["run_id"])
                return {"outputs": result.outputs}
            case "resume":
                result = await runner.resume(order["run_id"], url=order["url"], steal=order["steal"])
                return {"outputs": result.outputs}
    except RunStopped:
        pass
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {}


def main() -> None:
    """Obey the lines of standard input."""
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_obey(json.loads(line)))), flush=True)


if __name__ == "__main__":
    from tests.races import racer  # node types bear the name of the module, not `__main__`

    racer.main()
