"""The options that several commands share, and how their texts become values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from workflow_runner.errors import GraphInvalid, InputInvalid
from workflow_runner.failure import ON_FAILURE
from workflow_runner.shell import shell_word
from workflow_runner.unique_keys import unique_keys

__all__ = [
    "common_options",
    "enabling_options",
    "nodes_option",
    "on_failure_option",
    "read_answers",
    "read_enabling",
    "read_graph",
    "read_inputs",
    "read_times",
    "take_blocked",
]

EXAMPLE_TIME: Final = "2027-01-01T12:00:00.5+00:00"
Command = TypeVar("Command", bound=Callable[..., Any])


def common_options(command: Command) -> Command:
    """`--json`, `--quiet` and `-p`, which every command has."""
    for option in (
        click.option("-p", "blocked", metavar="no:NAME", multiple=True, callback=_refuse_p, help="Block a plugin before import."),
        click.option("--quiet", is_flag=True, help="Print nothing but errors (and the JSON, with --json)."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line of standard output."),
    ):
        command = option(command)
    return command


def nodes_option(command: Command) -> Command:
    """`--nodes`."""
    return click.option(
        "--nodes",
        "nodes",
        metavar="PATH_OR_MODULE",
        multiple=True,
        help="A Python file or module with node types; may be repeated.",
    )(command)


def enabling_options(command: Command) -> Command:
    """`--enable` and `--disable`."""
    for option in (
        click.option("--disable", metavar="NAME", multiple=True, help="Switch a plugin off; beats --enable."),
        click.option(
            "--enable",
            metavar="NAME[=JSON]",
            multiple=True,
            help="Switch a plugin on; JSON replaces the options that the workflow's document gives.",
        ),
    ):
        command = option(command)
    return command


def on_failure_option(command: Command) -> Command:
    """`--on-failure`."""
    return click.option(
        "--on-failure",
        type=click.Choice(ON_FAILURE),
        help="When a node fails: stop at once, or finish first what does not need it. Wins over the graph's document.",
    )(command)


def take_blocked(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take every `-p no:NAME` out of a command line, so that it works before and after any command, also a plugin's.

    Returns:
        The other arguments, and the blocked names.
    """
    rest: list[str] = []
    blocked: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            rest += [argument, *left]
            break
        if argument == "-p" and left and left[0].startswith("no:"):
            blocked.append(left.pop(0)[3:])
        elif argument.startswith("-pno:"):
            blocked.append(argument[5:])
        else:
            rest.append(argument)
    return rest, blocked


def read_graph(path: str) -> dict[str, Any]:
    """The JSON document in a graph file.

    Raises:
        GraphInvalid: there is no such file, or it is not a JSON object; naming line and column.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise GraphInvalid([f"the graph {path!r} cannot be read: {error.strerror or error}. Check the path."]) from error
    except UnicodeDecodeError as error:
        raise GraphInvalid([f"the graph {path!r} is not UTF-8 text: {error}. Save it as UTF-8."]) from error
    document = _read_json(text, lambda problem: GraphInvalid([f"the graph {path!r} is not JSON: {problem}."]))
    if not isinstance(document, dict):
        raise GraphInvalid([f"the graph {path!r} is a JSON {_kind(document)}, not an object with nodes and edges."])
    return document


def read_inputs(texts: Sequence[str]) -> dict[str, Any]:
    """The values of `--input NAME=JSON` and `--input NAME=@file.json`.

    Raises:
        InputInvalid: one is malformed or given twice.
    """
    return _read_named(texts, "input", "--input", "NAME")


def read_answers(texts: Sequence[str]) -> dict[str, Any]:
    """The answers of `--set NODE=JSON` and `--set NODE=@file.json`.

    Raises:
        InputInvalid: one is malformed or given twice.
    """
    return _read_named(texts, "node", "--set", "NODE")


def read_times(texts: Sequence[str]) -> dict[str, datetime]:
    """The times of `--since NODE=TIME`, in the form of ISO 8601.

    Raises:
        InputInvalid: one is malformed, has no zone, or is given twice.
    """
    found: dict[str, datetime] = {}
    for name, text in _parts(texts, "node", "--since NODE=TIME", f"--since node={EXAMPLE_TIME}"):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = datetime.min
        if moment.utcoffset() is None:
            raise InputInvalid(
                f"--since {name}={text!r} is no time with a zone. For example: --since {shell_word(name)}={EXAMPLE_TIME}"
            )
        found[name] = moment
    return found


def _read_named(texts: Sequence[str], noun: str, option: str, placeholder: str) -> dict[str, Any]:
    example = placeholder.lower()
    examples = f"""{option} {example}=10, or {option} '{example}="Ada"'"""
    found: dict[str, Any] = {}
    for name, value in _parts(texts, noun, f"{option} {placeholder}=JSON", examples):
        if value.startswith("@"):
            found[name] = _read_value_file(noun, name, value[1:])
        else:
            found[name] = _read_json(value, partial(_bad_value, noun, option, name, value))
    return found


def _parts(texts: Sequence[str], noun: str, form: str, examples: str) -> Iterator[tuple[str, str]]:
    """What stands before the first equals sign of each, and what after it."""
    option, _, shape = form.partition(" ")
    seen: set[str] = set()
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InputInvalid(f"{option} {text!r} is not {shape}. For example: {examples}")
        if name in seen:
            raise InputInvalid(f"{noun} {name!r} is given twice. Give it once.")
        seen.add(name)
        yield name, value


def read_enabling(enable: Sequence[str], disable: Sequence[str]) -> dict[str, Any]:
    """The plugins switched on (`True` or options) and off (`False`) by `--enable` and `--disable`."""
    wanted: dict[str, Any] = {}
    for text in enable:
        name, equals, value = text.partition("=")
        if not name:
            raise click.BadParameter(
                f"{text!r} is not NAME or NAME=JSON. For example: --enable checkpoint", param_hint="--enable"
            )
        wanted[name] = _read_options(name, value) if equals else True
    return {**wanted, **dict.fromkeys(disable, False)}


def _read_options(name: str, text: str) -> Mapping[str, Any] | bool:
    example = f"""--enable '{name}={{"every_seconds": 5}}'"""

    def refuse(problem: str) -> click.BadParameter:
        return click.BadParameter(
            f"the options of {name!r} are no JSON object: {problem}. For example: {example}", param_hint="--enable"
        )

    options = _read_json(text, refuse)
    if isinstance(options, dict | bool):
        return options
    raise refuse(f"found a {_kind(options)}")


def _read_value_file(noun: str, name: str, path: str) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputInvalid(f"{noun} {name!r}: the file {path!r} cannot be read: {reason}. Check the path.") from error
    return _read_json(text, lambda problem: InputInvalid(f"{noun} {name!r}: the file {path!r} is not JSON: {problem}."))


def _bad_value(noun: str, option: str, name: str, value: str, problem: str) -> InputInvalid:
    quoted = json.dumps(value)
    return InputInvalid(f"{noun} {name!r}: {value!r} is not JSON: {problem}. Text needs quotes: {option} '{name}={quoted}'")


def _read_json(text: str, refuse: Callable[[str], Exception]) -> Any:
    def refuse_constant(token: str) -> NoReturn:
        raise ValueError(f"{token} is not a JSON value")

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        raise refuse(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except ValueError as error:
        raise refuse(str(error)) from error
    except RecursionError as error:
        raise refuse("it is nested too deeply") from error


def _kind(value: object) -> str:
    names = {list: "list", str: "text", int: "number", float: "number", bool: "truth value", type(None): "null"}
    return names.get(type(value), "object")


def _refuse_p(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    # Well-formed ones were taken out before: see `take_blocked`.
    if values:
        raise click.BadParameter(f"{values[0]!r} is not no:NAME. For example: -p no:checkpoint", context, parameter)
    return values
