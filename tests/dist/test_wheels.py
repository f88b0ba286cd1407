"""Run by `tox -e dist`: the wheels in a clean environment, the product's first promise."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dist.export import ROOT, export_sources

Venv = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """A clean virtual environment: runs one of its programs, away from the checkout."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WORKFLOW"))}

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "venv" / "bin" / program), *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def wheels(venv: Venv, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, by distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    source = export_sources(folder / "source")
    built = venv("pip", "wheel", "--no-deps", "--wheel-dir", folder, source, source / "checkpoint_plugin")
    assert built.returncode == 0, built.stderr
    found = {path.name.partition("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}
    assert set(found) == {"workflow-runner", "workflow-checkpoint"}
    return found


def listed(venv: Venv) -> dict[str, Any]:
    done = venv("workflow", "plugins", "--json")
    assert done.returncode == 0, done.stderr
    return {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}


def run_enabled(venv: Venv) -> subprocess.CompletedProcess[str]:
    graph = {"nodes": [{"id": "note", "type": "workflow.Comment"}], "edges": [], "enable": {"checkpoint": True}}
    write = "import pathlib, sys; pathlib.Path('flow.json').write_text(sys.argv[1])"
    assert venv("python", "-c", write, json.dumps(graph)).returncode == 0
    return venv("workflow", "run", "flow.json", "--json")


def test_the_plugin_comes_and_goes_with_its_wheel(venv: Venv, wheels: dict[str, Path]) -> None:
    installed = venv("pip", "install", wheels["workflow-runner"])
    assert installed.returncode == 0, installed.stderr
    assert listed(venv) == {}
    refused = run_enabled(venv)
    assert refused.returncode == 2
    assert "pip install workflow-checkpoint" in json.loads(refused.stdout)["error"]["message"]
    assert venv("python", "-c", "import sqlmodel").returncode != 0

    installed = venv("pip", "install", wheels["workflow-checkpoint"])
    assert installed.returncode == 0, installed.stderr
    plugin = listed(venv)["checkpoint"]
    assert (plugin["status"], plugin["distribution"], plugin["error"]) == ("ok", "workflow-checkpoint", None)
    assert {"save_checkpoint", "restore_checkpoint"} <= set(plugin["hooks"])
    ran = run_enabled(venv)
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(venv("workflow", "runs", "--json").stdout)["runs"]) == 1

    assert venv("pip", "uninstall", "--yes", "workflow-checkpoint").returncode == 0
    assert listed(venv) == {}
    assert run_enabled(venv).returncode == 2
    assert venv("workflow", "runs").returncode == 2


@pytest.mark.parametrize(
    ("distribution", "packages"),
    [("workflow-runner", {"hookspecs", "workflow_runner"}), ("workflow-checkpoint", {"checkpoint_plugin"})],
)
def test_a_wheel_holds_its_packages_typed_and_nothing_else(
    wheels: dict[str, Path], distribution: str, packages: set[str]
) -> None:
    names = zipfile.ZipFile(wheels[distribution]).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == packages
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    licence = (ROOT / "LICENSE").read_bytes()
    wheel = zipfile.ZipFile(wheels[distribution])
    assert [wheel.read(name) for name in names if name.endswith(".dist-info/licenses/LICENSE")] == [licence]


@pytest.mark.parametrize(("distribution", "page"), [("workflow-runner", "."), ("workflow-checkpoint", "checkpoint_plugin")])
def test_a_wheel_says_what_it_is(wheels: dict[str, Path], distribution: str, page: str) -> None:
    wheel = zipfile.ZipFile(wheels[distribution])
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = (ROOT / page / "README.md").read_text(encoding="utf-8")
    assert wheel.read(metadata).decode().endswith(text)


OTHERWISE_NAMED = {"PIL": "pillow", "backports": "backports.zstd", "pydantic_core": "pydantic", "hookspecs": "workflow-runner"}
"""The distributions of packages that have another name."""
NEVER_INSTALLED = {"_typeshed", "compression"}
"""Of type checkers, and of the standard library of Python 3.14."""


@pytest.mark.parametrize("distribution", ["workflow-runner", "workflow-checkpoint"])
def test_a_wheel_requires_what_it_imports(wheels: dict[str, Path], distribution: str) -> None:
    wheel = zipfile.ZipFile(wheels[distribution])
    imported: set[str] = set()
    for name in wheel.namelist():
        if name.endswith(".py"):
            for item in ast.walk(ast.parse(wheel.read(name))):
                if isinstance(item, ast.Import):
                    imported.update(alias.name.partition(".")[0] for alias in item.names)
                elif isinstance(item, ast.ImportFrom) and item.level == 0:
                    imported.add(str(item.module).partition(".")[0])
    own = {name.partition("/")[0] for name in wheel.namelist()}
    wanted = {OTHERWISE_NAMED.get(name, name) for name in imported - own - sys.stdlib_module_names - NEVER_INSTALLED}
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = set(re.findall(r"^Requires-Dist: ([\w.-]+)", wheel.read(metadata).decode(), re.MULTILINE))
    assert wanted - required == set()
