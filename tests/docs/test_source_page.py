"""The page about the source names what is there, from the top down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.plugin  # of which the page tells, too
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "source.md").read_text(encoding="utf-8")


def packages() -> list[str]:
    return [found.parent.name for found in (ROOT / "checkpoint_plugin").glob("*/__init__.py")]


def test_what_it_names_is_there() -> None:
    named = re.findall(r"`((?:hookspecs|workflow_runner|checkpoint_plugin)/[\w/.]+)`", PAGE)
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_it_names_every_module_of_the_runner_once() -> None:
    table = PAGE.partition("## The runner\n")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+(?:\.py)?)`[,| ]", "\n".join(line.split(" | ")[0] + " |" for line in table.splitlines()[3:]))
    there = {found.name for found in (ROOT / "workflow_runner").glob("[!_]*.py")} | {"cli"}
    assert sorted(named) == sorted(there)


def test_it_tells_the_plugins_packages_in_the_order_of_their_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["checkpoint_plugin"]]
    in_order = [name for layer in layers for name in re.split(r" [|:] ", layer)]
    assert set(packages()) <= set(in_order)
    told = re.findall(r"^\| `checkpoint_plugin/(\w+)`", PAGE, re.MULTILINE)
    assert told == [name for name in in_order if name in told]
    assert set(told) == set(packages()) - {"migrations"}


def test_each_package_says_the_same_of_itself() -> None:
    for name in set(packages()) - {"migrations", "cli", "codec"}:
        (doc,) = re.findall(rf"^\| `checkpoint_plugin/{name}` \| (.*?) \|$", PAGE, re.MULTILINE)
        said = (ROOT / "checkpoint_plugin" / name / "__init__.py").read_text(encoding="utf-8").strip().strip('"').rstrip(".")
        assert said.lower() == doc.lower(), name
