"""`docs/cli.md` shows every command and flag with the words of `--help`."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from checkpoint_plugin.cli import prune as pruning
from checkpoint_plugin.cli import runs as stored
from checkpoint_plugin.cli.answer import answer
from checkpoint_plugin.cli.cancel import cancel
from checkpoint_plugin.cli.db import db
from checkpoint_plugin.cli.events import events
from checkpoint_plugin.cli.fork import fork
from checkpoint_plugin.cli.recover import recover
from checkpoint_plugin.cli.suspended import suspended
from tests.cli.command import environment, workflow, write_graph
from workflow_runner.cli.plugins import plugins
from workflow_runner.cli.resume import resume
from workflow_runner.cli.run import run
from workflow_runner.cli.validate import validate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
COMMANDS: dict[str, click.Command] = {
    "run": run,
    "resume": resume,
    "validate": validate,
    "plugins": plugins,
    "runs": stored.runs,
    "show": stored.show,
    "checkpoints": stored.checkpoints,
    "suspended": suspended,
    "recover": recover,
    "prune": pruning.prune,
    "savepoint": pruning.savepoint,
    **{f"db {name}": command for name, command in db.commands.items()},
    "fork": fork,
    "answer": answer,
    "cancel": cancel,
    "events": events,
}


def section(name: str) -> str:
    """What the page must say of a command."""
    command = COMMANDS[name]
    rows = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            context = click.Context(command, info_name=name)
            record = parameter.get_help_record(context)
            if record is not None:
                flag, text = record
                rows.append(f"| `{flag}` | {' '.join(text.split()).replace('|', chr(92) + '|')} |")
    arguments = " ".join(str(p.metavar or p.name).upper() for p in command.params if isinstance(p, click.Argument))
    title = f"workflow {name} {arguments}".strip()
    return "\n".join([f"## {title}", "", command.get_short_help_str(200), "", "| flag | meaning |", "|---|---|", *rows, ""])


def codes_of_help(name: str) -> set[str]:
    """The exit codes that the help of a command tells: each stands behind two spaces or more, before its meaning."""
    _, _, told = (COMMANDS[name].help or "").partition("Exit codes:")
    return set(re.findall(r"\d+", " ".join(re.findall(r"\s{2,}(\d+(?:, \d+)*) ", told))))


def test_no_command_is_left_out() -> None:
    project = tomllib.loads((ROOT / "checkpoint_plugin" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = {"run", "resume", "validate", "plugins"}
    assert {name.partition(" ")[0] for name in COMMANDS} == ours | set(project["entry-points"]["workflow_runner.commands"])


def test_the_exit_codes_are_documented() -> None:
    table, _, _ = PAGE.partition("| exit code | meaning |\n|---|---|\n")[2].partition("\n\n")
    codes = {code for line in table.splitlines() for code in line.split("|")[1].replace(",", " ").split()}
    assert codes == {"0", "1", "2", "3", "4", "5", "6", "70", "74", "129", "130", "143"}
    for name in ("run", "resume"):
        assert codes_of_help(name) == codes - {"70", "74"}, "those two are of every command"
    for name, command in COMMANDS.items():
        told = codes_of_help(name)
        assert told <= codes
        if told and any(parameter.name == "url" for parameter in command.params):
            assert "5" in told, "the store may be out of reach"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_documented(name: str) -> None:
    assert section(name) in PAGE


def test_every_variable_is_documented() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    read = {
        name
        for package in ("hookspecs", "workflow_runner", "checkpoint_plugin")
        for module in (ROOT / package).rglob("*.py")
        for name in re.findall(r'"(WORKFLOW_[A-Z_]+)"', module.read_text(encoding="utf-8"))
    }
    assert {"WORKFLOW_DEBUG", "WORKFLOW_DISABLE_PLUGINS", "WORKFLOW_CHECKPOINT_URL"} <= read
    assert {name for name in read if f"`{name}`" not in pages} == set()


def keys_of(document: Any) -> Iterator[str]:
    """All keys, but those of what a user or the system names."""
    if isinstance(document, list):
        document = dict(enumerate(document))
    if isinstance(document, dict):
        for key, value in document.items():
            if isinstance(key, str):
                yield key
            if key not in ("disk", "payload"):
                yield from keys_of(value)


def test_the_json_of_every_command_is_documented(tmp_path: Path) -> None:
    rows = dict(re.findall(r"^\| `([a-z -]+)` \| (.*) \|$", PAGE.partition("## JSON\n")[2], re.MULTILINE))
    assert set(rows) == set(COMMANDS) - {"run", "resume", "suspended", "recover"}, "those are told where they stand"
    del rows["db check"], rows["answer"]  # tests of their own
    key = environment(WORKFLOW_CHECKPOINT_KEY="00" * 32)
    graph = write_graph(tmp_path, "value")
    enable = 'checkpoint={"events": true, "every_firing": true}'
    begun = workflow(
        *("run", graph, "--nodes", "nodes.py", "--input", "a=1", "--run-id", "r", "--enable", enable), cwd=tmp_path, env=key
    )
    assert begun.returncode == 0, begun.stderr
    more = {
        "validate": [graph, "--nodes", "nodes.py"],
        **{command: ["r"] for command in ("show", "checkpoints", "events")},
        "prune": ["--drop-finished", "0", "--dry-run"],
        "savepoint": ["r", "end"],
        "fork": ["r", "s", "--checkpoint", "1"],
        "cancel": ["s"],
    }
    listed = set(re.findall(r'"(\w+)"', rows["runs"].partition(";")[0])) - {"runs"}
    for name in rows:
        done = workflow(*name.split(), *more.get(name, []), "--json", cwd=tmp_path, env=key)
        assert done.returncode == 0, done.stderr
        told = set(re.findall(r'"(\w+)"', rows[name].partition("; where rows")[0]))
        assert told | (listed if name == "show" else set()) == set(keys_of(json.loads(done.stdout))), name
