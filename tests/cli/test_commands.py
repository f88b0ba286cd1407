from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import environment, workflow, write_graph
from tests.distribution import install_distribution

PLUGIN = """
    print("imported")

    from pathlib import Path

    import click
    from hookspecs import PluginOptionsInvalid, RunNotFound, hookimpl

    class Plugin:
        @hookimpl
        async def before_run(self, run):
            Path("heard").write_text(repr(dict(run.enable)))

    class Failing:
        @hookimpl
        async def before_run(self):
            raise RuntimeError("no room")

    def make(options):
        if "fail" in options:
            return Failing()
        if options.keys() - {"every"}:
            raise PluginOptionsInvalid("sample", "unknown option. Known is: every.")
        return Plugin()

    @click.command()
    @click.argument("run")
    @click.option("--json", is_flag=True)
    def look(run, json):
        if run == "nothing":
            raise RunNotFound(run, "the store")
        click.echo("looked")
        return 6
"""
HEAVY = ("pydantic", "rich", "sqlmodel", "sqlalchemy", "asyncpg", "checkpoint_plugin", "sample_plugin")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process with a plugin `sample` and a plugin `broken` installed."""
    entries = {
        "workflow_runner": {"sample": "sample_plugin:make"},
        "workflow_runner.commands": {"look": "sample_plugin:look", "run": "sample_plugin:look"},
    }
    folder = install_distribution(
        tmp_path / "installed", "sample-plugin", entries=entries, modules={"sample_plugin": PLUGIN}, version="2.5"
    )
    broken = {
        "workflow_runner": {"broken": "broken_plugin:make"},
        "workflow_runner.commands": {"crash": "broken_plugin:crash", "odd": "sample_plugin:make"},
    }
    install_distribution(folder, "broken-plugin", entries=broken, modules={"broken_plugin": "import not_there"})
    return environment(folder)


def test_help_lists_all_commands_and_imports_nothing_heavy(tmp_path: Path, installed: dict[str, str]) -> None:
    script = (
        "import sys; from workflow_runner.cli.main import main; code = main(['--help']);"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=installed, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    names = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert names[:4] == ["run", "resume", "validate", "plugins"]
    assert {"crash", "look"} <= set(names)
    assert "(from sample-plugin 2.5)" in done.stdout


@pytest.mark.parametrize("command", ["run", "resume", "validate", "plugins"])
def test_every_help_teaches_with_an_example(tmp_path: Path, command: str) -> None:
    done = workflow(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"workflow {command} " in done.stdout.partition("Example")[2] + " "
    assert "--json" in done.stdout
    assert "--quiet" in done.stdout


def test_a_command_of_a_plugin_runs(tmp_path: Path, installed: dict[str, str]) -> None:
    done = workflow("look", "r", cwd=tmp_path, env=installed)
    assert (done.returncode, done.stdout) == (6, "imported\nlooked\n")


def test_an_error_of_a_plugins_command_has_its_exit_code_and_json(tmp_path: Path, installed: dict[str, str]) -> None:
    done = workflow("look", "nothing", "--json", cwd=tmp_path, env=installed)
    assert done.returncode == 5
    assert json.loads(done.stdout.splitlines()[-1])["error"]["type"] == "RunNotFound"
    assert "Traceback" not in done.stderr


def test_a_plugin_cannot_take_the_name_of_an_own_command(tmp_path: Path, installed: dict[str, str]) -> None:
    assert "looked" not in workflow("run", "r", cwd=tmp_path, env=installed).stdout


@pytest.mark.parametrize("command", ["crash", "odd"])
def test_a_broken_command_is_named(tmp_path: Path, installed: dict[str, str], command: str) -> None:
    done = workflow(command, "--json", cwd=tmp_path, env=installed)
    assert done.returncode == 2
    assert "broken-plugin" in json.loads(done.stdout.splitlines()[-1])["error"]["message"]


@pytest.mark.parametrize(
    "arguments", [("-p", "no:sample", "look", "r"), ("look", "r", "-p", "no:sample"), ("look", "-pno:sample")]
)
def test_a_blocked_plugins_command_is_refused(tmp_path: Path, installed: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = workflow(*arguments, cwd=tmp_path, env=installed)
    assert done.returncode == 2
    assert "blocked" in done.stderr
    assert "look" not in workflow("-p", "no:sample", "--help", cwd=tmp_path, env=installed).stdout


@pytest.mark.parametrize("arguments", [(), ("bogus",), ("--bogus",)])
def test_wrong_usage_of_the_group(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = workflow(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: workflow" in done.stderr
    as_json = workflow(*arguments, "--json", cwd=tmp_path)
    assert as_json.returncode == 2
    assert json.loads(as_json.stdout)["error"]["type"] == "UsageError"


def test_plugins_tells_what_is_there(tmp_path: Path, installed: dict[str, str]) -> None:
    done = workflow("plugins", "--json", cwd=tmp_path, env=installed)
    assert done.returncode == 0
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert {"name", "distribution", "version", "status", "hooks", "error"} <= set(found["sample"])
    assert (found["sample"]["status"], found["sample"]["version"], found["sample"]["hooks"]) == ("ok", "2.5", ["before_run"])
    assert found["broken"]["status"] == "broken"
    assert "not_there" in found["broken"]["error"]
    shown = workflow("plugins", cwd=tmp_path, env=installed).stdout
    assert "sample  ok  (sample-plugin 2.5)" in shown


@pytest.mark.parametrize("way", ["option", "variable"])
def test_plugins_shows_a_blocked_one_without_importing_it(tmp_path: Path, installed: dict[str, str], way: str) -> None:
    environment = installed if way == "option" else installed | {"WORKFLOW_DISABLE_PLUGINS": "broken"}
    arguments = ("-p", "no:broken") if way == "option" else ()
    done = workflow("plugins", "--json", *arguments, cwd=tmp_path, env=environment)
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert (found["broken"]["status"], found["broken"]["hooks"]) == ("blocked", [])
    assert "not_there" not in found["broken"]["error"]


def run(folder: Path, installed: dict[str, str], *arguments: str, enable: Any = None) -> subprocess.CompletedProcess[str]:
    graph = write_graph(folder, "value", enable=enable or {})
    return workflow("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--json", *arguments, cwd=folder, env=installed)


@pytest.mark.parametrize(
    ("document", "arguments", "heard"),
    [
        (None, (), None),
        (None, ("--enable", "sample"), {"sample": {}}),
        (None, ("--enable", 'sample={"every": 2}'), {"sample": {"every": 2}}),
        ({"sample": {"every": 3}}, (), {"sample": {"every": 3}}),
        ({"sample": {"every": 3}}, ("--enable", "sample"), {"sample": {"every": 3}}),
        ({"sample": {"every": 3}}, ("--enable", "sample={}"), {"sample": {}}),
        ({"sample": False}, ("--enable", "sample"), {"sample": {}}),
        ({"sample": True}, ("--disable", "sample"), None),
        ({"sample": True}, ("--enable", "sample", "--disable", "sample"), None),
        (None, ("--disable", "sample", "--disable", "unheard of"), None),
        (None, ("-p", "no:sample"), None),
    ],
)
def test_what_is_enabled(
    tmp_path: Path, installed: dict[str, str], document: object, arguments: tuple[str, ...], heard: object
) -> None:
    done = run(tmp_path, installed, *arguments, enable=document)
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "heard").read_text() if (tmp_path / "heard").exists() else None
    assert found == (None if heard is None else repr(heard))


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("--enable", "broken"), 2, "PluginLoadFailed"),
        (("--enable", "absent"), 2, "PluginMissing"),
        (("--enable", "sample", "-p", "no:sample"), 2, "PluginBlocked"),
        (("--enable", 'sample={"evry": 1}'), 2, "PluginOptionsInvalid"),
        (("--enable", 'sample={"fail": 1}'), 1, "HookError"),
    ],
)
def test_a_plugin_that_cannot_be_used(
    tmp_path: Path, installed: dict[str, str], arguments: tuple[str, ...], code: int, kind: str
) -> None:
    done = run(tmp_path, installed, *arguments)
    assert done.returncode == code
    assert json.loads(done.stdout)["error"]["type"] == kind
    assert ("\n  in before_run, " in done.stderr) == (kind == "HookError"), "where the plugin's own code failed"
    assert not (tmp_path / "heard").exists()


def test_a_broken_plugin_does_not_matter_to_a_run_without_it(tmp_path: Path, installed: dict[str, str]) -> None:
    assert run(tmp_path, installed, "--enable", "sample").returncode == 0


def test_validate(tmp_path: Path, installed: dict[str, str]) -> None:
    graph = write_graph(tmp_path, "value", enable={"sample": True})
    valid = workflow("validate", graph, "--nodes", "nodes.py", "--json", cwd=tmp_path, env=installed)
    assert valid.returncode == 0
    assert json.loads(valid.stdout) == {"valid": True, "nodes": 3, "edges": 2, "problems": [], "error": None}
    for arguments in ((), ("--nodes", "nodes.py", "-p", "no:sample")):
        invalid = workflow("validate", graph, *arguments, "--json", cwd=tmp_path, env=installed)
        assert invalid.returncode == 2
        assert json.loads(invalid.stdout)["valid"] is False
    assert not (tmp_path / "heard").exists()


def test_validate_lists_what_is_wrong_with_graph_and_plugins(tmp_path: Path, installed: dict[str, str]) -> None:
    graph = write_graph(tmp_path, "velue", enable={"semple": True, "sample": 5, "other": True})
    done = workflow("validate", graph, "--nodes", "nodes.py", "--json", cwd=tmp_path, env=installed)
    told = json.loads(done.stdout)
    assert (done.returncode, told["valid"], told["error"]["type"]) == (2, False, "GraphInvalid")
    of_the_graph, *of_plugins = told["problems"]
    assert "velue" in of_the_graph
    assert ["'semple'" in of_plugins[0], "not 5" in of_plugins[1], "'other'" in of_plugins[2]] == [True] * 3
    assert all(problem in done.stderr for problem in told["problems"])


def test_a_fault_of_ours_is_exit_70(tmp_path: Path, installed: dict[str, str]) -> None:
    folder = install_distribution(
        tmp_path / "faulty",
        "faulty",
        entries={"workflow_runner.commands": {"boom": "faulty:boom"}},
        modules={"faulty": "import click\n\n@click.command()\ndef boom():\n    raise KeyError('unforeseen')\n"},
    )
    done = workflow("boom", "--json", cwd=tmp_path, env=environment(folder))
    assert done.returncode == 2  # --json is no option of this command
    done = workflow("boom", cwd=tmp_path, env=environment(folder))
    assert done.returncode == 70
    assert "KeyError: 'unforeseen'" in done.stderr
    assert "WORKFLOW_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.plugin
@pytest.mark.parametrize("command", ["show", "db check", "checkpoints", "events", "events --follow"])
def test_what_a_package_prints_when_it_is_imported_is_no_part_of_the_json(tmp_path: Path, command: str) -> None:
    entries = {"workflow_runner.codecs": {"chatty": "chatty:register_codecs"}}
    source = "print('hello from chatty')\n\ndef register_codecs(registry):\n    print('registers')\n"
    install_distribution(tmp_path / "installed", "chatty", entries=entries, modules={"chatty": source})
    env = environment(tmp_path / "installed")
    graph = write_graph(tmp_path, "value")
    options = ("--input", "a=1", "--run-id", "r", "--enable", 'checkpoint={"events": true}')
    assert workflow("run", graph, "--nodes", "nodes.py", *options, cwd=tmp_path, env=env).returncode == 0
    done = workflow(*command.split(), "r", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines if command == "events --follow" else len(lines) == 1
