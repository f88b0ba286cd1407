"""The plugin of `docs/plugins.md` works as it stands there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from hookspecs import PluginHost, PluginOptionsInvalid
from tests.distribution import install_distribution
from workflow_runner import Graph, WorkflowRunner, node

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


@node
async def one(x: int) -> int:
    return x


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = re.search(r'timing = "(.+)"', BLOCKS[1][1])
    assert entry is not None
    source = BLOCKS[0][1]
    entries = {"workflow_runner": {"timing": entry[1]}}
    install_distribution(tmp_path, "workflow-timing", entries=entries, modules={"workflow_timing": source})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "workflow_timing", raising=False)


@pytest.mark.usefixtures("installed")
async def test_it_is_found_and_enabled_by_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    graph = Graph()
    graph.add(one, node_id="first", x=1)
    await WorkflowRunner().run(graph, enable={"timing": {"most": 1}})
    assert re.fullmatch(r"first: \d+\.\d{3} s\n", capsys.readouterr().out)
    await WorkflowRunner().run(graph)
    assert capsys.readouterr().out == ""
    with pytest.raises(PluginOptionsInvalid, match="no option 'mots'"):
        await WorkflowRunner().run(graph, enable={"timing": {"mots": 1}})


@pytest.mark.usefixtures("installed")
async def test_an_object_is_registered_in_code(capsys: pytest.CaptureFixture[str]) -> None:
    import workflow_timing  # type: ignore[import-not-found]

    graph = Graph()
    graph.add(one, node_id="first", x=1)
    host = PluginHost().register(workflow_timing.Timing(most=3), name="timing")
    await WorkflowRunner(plugins=host).run(graph)
    assert capsys.readouterr().out.startswith("first: ")


@node
async def in_a_while(x: int) -> int:
    await asyncio.sleep(0.01)
    return x


@pytest.mark.usefixtures("installed")
async def test_an_object_is_told_of_runs_that_go_on_at_the_same_time(capsys: pytest.CaptureFixture[str]) -> None:
    import workflow_timing

    graph = Graph()
    graph.add(in_a_while, node_id="first", x=1)
    runner = WorkflowRunner(plugins=PluginHost().register(workflow_timing.Timing(most=3), name="timing"))
    await asyncio.gather(*(runner.run(graph) for _ in range(3)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"first: \d+\.\d{3} s", line) for line in lines)
