"""Python of the README and of pages that no other test here runs: it works as it stands there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import pytest

from workflow_runner import WorkflowRunner

pytestmark = pytest.mark.plugin
ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def define(source: str, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a module of this source defines."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(source, vars(module))
    return vars(module)


async def run_inside(source: str, **names: Any) -> None:
    """Run code that awaits, as the body of a function."""
    given = dict(names)
    exec(f"async def body():\n{indent(source, '    ')}", given)
    body: Callable[[], Awaitable[None]] = given["body"]
    await body()


def test_the_workflow_of_the_readme_prints_what_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = [block for block in blocks("README.md") if "run_workflow" in block]
    define(source, "of_the_readme", monkeypatch)
    assert capsys.readouterr().out.strip() == source.rpartition("# ")[2].strip()
    assert (tmp_path / ".workflow" / "checkpoints.db").exists()


async def test_the_nodes_and_the_graph_of_the_quickstart_fit(tmp_path: Path) -> None:
    (source,), (document,) = blocks("docs/index.md"), blocks("docs/index.md", "json")
    (tmp_path / "mynodes.py").write_text(source, encoding="utf-8")
    runner = WorkflowRunner(nodes=[tmp_path / "mynodes.py"])
    enable = {"checkpoint": {"every_firing": True, "url": f"sqlite:///{tmp_path / 'checkpoints.db'}"}}
    result = await runner.run(json.loads(document), {"count": 2}, enable=enable)
    assert result.outputs == {"texts": ["page 0", "page 1"]}


@pytest.mark.parametrize("page", ["manager", "jobs", "state", "events", "retention"])
async def test_the_calls_of_a_page_are_right(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'flows.db'}"
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_URL", url)
    for place, block in enumerate(blocks("docs/manager.md")[:1] + blocks(f"docs/{page}.md")):
        source, count = re.subn(r'"(sqlite|postgresql):[^"]*"', repr(url), block)
        assert count >= 1
        if page == "jobs" and place:
            source = source.replace("order-17", "order-18")  # which is made there
        if 'CheckpointManager("order-17", enabled=True, url' in source:
            source += "await manager.close()\n"
        await run_inside(source, graph=None, page="a page")
