"""Run by `tox -e runner-only`, where the plugin is neither installed nor importable from the checkout."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from hookspecs import PluginHost, PluginMissing
from tests.cli.command import workflow, write_graph


@pytest.mark.parametrize("module", ["checkpoint_plugin", "sqlmodel", "sqlalchemy", "asyncpg"])
def test_neither_the_plugin_nor_a_database_layer_is_here(module: str) -> None:
    assert importlib.util.find_spec(module) is None


def test_no_plugin_is_listed_and_no_command_of_it(tmp_path: Path) -> None:
    done = workflow("plugins", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"plugins": []})
    assert "checkpoints" not in workflow("--help", cwd=tmp_path).stdout
    assert workflow("runs", cwd=tmp_path).returncode == 2


def test_enabling_it_says_what_to_install(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, "value", enable={"checkpoint": True})
    done = workflow("run", graph, "--nodes", "nodes.py", "--input", "a=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install workflow-checkpoint" in done.stderr
    with pytest.raises(PluginMissing):
        PluginHost().bind({"checkpoint": True})


def test_resuming_says_what_to_install(tmp_path: Path) -> None:
    done = workflow("resume", "some-run", cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install workflow-checkpoint" in done.stderr
