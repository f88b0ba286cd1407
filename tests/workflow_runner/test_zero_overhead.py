"""Off means off: a run that enables nothing makes the same calls whether or not a plugin is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.distribution import install_distribution

PROGRAM = """
    import asyncio, gc, json, sys
    from collections.abc import AsyncIterator
    from workflow_runner import Context, Graph, Stream, WorkflowRunner, node

    @node
    async def numbers(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @node
    async def double(x: int) -> int:
        return 2 * x

    @node
    async def total(items: Stream[int], context: Context) -> AsyncIterator[int]:
        seen = context.state or 0
        async for x in items:
            seen += x
            yield seen
            context.commit(seen)

    def graph():
        made = Graph()
        doubled = made.add(double, x=made.add(numbers, n=200))
        made.output("doubled", doubled)
        made.output("totals", made.add(total, items=doubled))
        made.output("sums", made.add(double, x=doubled))
        return made

    calls = 0
    watching = []

    def count(frame, event, argument):
        global calls
        if event in ("call", "c_call"):
            calls += 1

    def audit(event, arguments):
        if watching and event.startswith(("open", "socket.__new__", "_thread.start_", "sqlite3.connect", "import")):
            watching.append(event + ": " + str(arguments[0]))

    async def main():
        global calls
        runner = WorkflowRunner()
        for _ in range(3):
            await runner.run(graph(), run_id="warm")
        made = graph()
        watching.append("begin")
        gc.collect()
        gc.disable()  # what it collects of earlier runs would be counted, too, or not
        sys.setprofile(count)
        result = await runner.run(made, run_id="counted")
        sys.setprofile(None)
        seen, watching[:] = watching[1:], []
        assert result.outputs["totals"][-1] == 2 * sum(range(200))
        loaded = [name for name in ("sqlmodel", "sqlalchemy", "checkpoint_plugin", "idle_plugin") if name in sys.modules]
        print(json.dumps({"calls": calls, "touched": seen, "loaded": loaded}))

    sys.addaudithook(audit)
    PLANT
    asyncio.run(main())
"""
PLANTED = """
    from workflow_runner import firing
    from hookspecs import RunHooks
    original = firing.BodyActor.values
    def idle(self):
        return original(self)
    firing.BodyActor.values = idle
"""
PLUGIN = """
    from hookspecs import hookimpl

    class Idle:
        @hookimpl
        async def before_node(self, run, node, inputs): ...
        @hookimpl
        async def after_node(self, run, node, outcome): ...

    def make(options):
        return Idle()
"""


def counted(folder: Path, plant: str = "") -> dict[str, object]:
    """The calls of one run, in a process of its own whose only addition is a folder on `sys.path`."""
    program = folder / "program.py"
    folder.mkdir(exist_ok=True)
    program.write_text(dedent(PROGRAM).replace("PLANT", dedent(plant)), encoding="utf-8")
    code = f"import runpy, sys; sys.path.insert(0, {str(folder)!r}); runpy.run_path({str(program)!r}, run_name='program')"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[2] if (Path(__file__).parents[2] / "workflow_runner").is_dir() else folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    result: dict[str, object] = json.loads(found.stdout.splitlines()[-1])
    return result


@pytest.fixture
def with_plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "with"
    entries = {"workflow_runner": {"idle": "idle_plugin:make"}, "workflow_runner.nodes": {"idle": "idle_plugin"}}
    return install_distribution(folder, "idle-plugin", entries=entries, modules={"idle_plugin": PLUGIN})


def test_an_installed_plugin_that_is_not_enabled_costs_no_call(tmp_path: Path, with_plugin: Path) -> None:
    without = counted(tmp_path / "without")
    assert counted(with_plugin) == without
    assert counted(tmp_path / "again") == without, "the count itself must repeat exactly"
    assert without["touched"] == []
    assert without["loaded"] == []


def test_an_idle_call_at_each_firing_would_be_seen(tmp_path: Path) -> None:
    assert counted(tmp_path / "planted", PLANTED)["calls"] != counted(tmp_path / "plain")["calls"]
