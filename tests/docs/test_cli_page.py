"""`docs/cli.md` shows every command and flag with the words of `--help`."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from checkpoint_plugin.cli import prune as pruning
from checkpoint_plugin.cli import runs as stored
from checkpoint_plugin.cli.db import db
from checkpoint_plugin.cli.events import events
from checkpoint_plugin.cli.recover import recover
from checkpoint_plugin.cli.suspended import suspended
from workflow_runner.cli.plugins import plugins
from workflow_runner.cli.resume import resume
from workflow_runner.cli.run import run
from workflow_runner.cli.validate import validate

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
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


def test_the_exit_codes_are_documented() -> None:
    table, _, _ = PAGE.partition("| exit code | meaning |\n|---|---|\n")[2].partition("\n\n")
    codes = {code for line in table.splitlines() for code in line.split("|")[1].replace(",", " ").split()}
    assert codes == {"0", "1", "2", "3", "4", "5", "6", "70", "74", "130", "143"}
    for name in ("run", "resume"):
        assert codes_of_help(name) == codes - {"70", "74"}, "those two are of every command"
    for name in COMMANDS:
        assert codes_of_help(name) <= codes


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_documented(name: str) -> None:
    assert section(name) in PAGE
