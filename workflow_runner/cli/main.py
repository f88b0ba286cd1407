"""The command `workflow`: its commands, those of plugins, and the way from any error to an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from hookspecs import COMMANDS, PluginEntry, PluginHost, PluginInvalid
from workflow_runner.cli.options import take_blocked
from workflow_runner.cli.plugins import plugins
from workflow_runner.cli.report import RunReport, error_object, exit_code_of, explain, print_json
from workflow_runner.cli.resume import resume
from workflow_runner.cli.run import run
from workflow_runner.cli.streams import settle, standard_streams
from workflow_runner.cli.validate import refusal, validate

__all__ = ["main"]

OWN_COMMANDS: Final = {"run": run, "resume": resume, "validate": validate, "plugins": plugins}


class PluginCommand(click.Command):
    """Stands for a command of a plugin, which is imported when it is called, not when it is listed."""

    def __init__(self, entry: PluginEntry) -> None:
        super().__init__(entry.name, help=f"(from {entry.distribution} {entry.version})", add_help_option=False)
        self._entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Import the command and let it parse its arguments."""
        command = self._entry.load()
        if not isinstance(command, click.Command):
            raise PluginInvalid(
                self._entry.name,
                f"command {self._entry.name!r} of {self._entry.distribution} is {type(command).__name__}, not a click command. "
                "Let the entry name a function that is decorated with @click.command().",
            )
        return command.make_context(info_name, args, parent, **extra)


class WorkflowGroup(click.Group):
    """The own commands and, after them, those that plugins bring; a plugin cannot take the name of an own command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, without importing any plugin."""
        entries = ctx.ensure_object(PluginHost).entries(COMMANDS)
        brought = (name for name, entry in entries.items() if name not in OWN_COMMANDS and entry.blocked_by is None)
        return [*OWN_COMMANDS, *sorted(brought)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name in OWN_COMMANDS:
            return OWN_COMMANDS[cmd_name]
        entry = ctx.ensure_object(PluginHost).entries(COMMANDS).get(cmd_name)
        return None if entry is None else PluginCommand(entry)


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"workflow {version('workflow-runner')}")
        except PackageNotFoundError:
            click.echo("workflow, from a checkout that is not installed")
        context.exit()


@click.group(
    cls=WorkflowGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command tells more with --help. Start with: workflow run flow.json --nodes mynodes.py",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version and exit."
)
@click.option("-p", "blocked", metavar="no:NAME", multiple=True, help="Block a plugin before import; also after any command.")
def workflow(blocked: tuple[str, ...]) -> None:
    """Run workflows: graphs of nodes between which items stream."""
    if blocked:
        raise click.UsageError(f"-p {blocked[0]!r} is not no:NAME. For example: -p no:checkpoint")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name; default those of the process.

    Returns:
        The exit code.
    """
    with standard_streams():
        return settle(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    rest, blocked = take_blocked(arguments)
    try:
        code = workflow.main(rest, prog_name="workflow", standalone_mode=False, obj=PluginHost(blocked))
    except click.Abort:
        code = _report(rest, KeyboardInterrupt("interrupted"), 130)
    except click.ClickException as error:
        error.show()
        code = _report(rest, error, 2)
    except Exception as error:
        explain(error)
        code = _report(rest, error, exit_code_of(error))
    return code if isinstance(code, int) else 0


def _report(arguments: Sequence[str], error: BaseException, code: int) -> int:
    """Print the JSON of a command that failed before it could do so itself."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in options:
        command = next((argument for argument in arguments if not argument.startswith("-")), None)
        if command in ("run", "resume"):
            print_json(RunReport(None, "failed", error=error).to_json())
        elif command == "validate":
            print_json(refusal(error))
        else:
            print_json({"error": error_object(error)})
    return code
