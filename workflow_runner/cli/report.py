"""How a command ends: what it prints, and its exit code."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import click

import hookspecs
from hookspecs import HookError, TaggedValueError, WorkflowError, text_of, to_tagged
from workflow_runner.errors import NodeFailed, NodeModuleError

__all__ = ["FAULT", "RunReport", "error_object", "exit_code_of", "explain", "one_line", "print_json", "printable"]

FAULT: Final = 70
"""The exit code for errors that nobody foresaw."""

OURS: Final = (
    "<frozen ",
    str(Path(importlib.__file__).parent),
    str(Path(__file__).parents[1]),
    str(Path(hookspecs.__file__).parent),
)
"""Where a frame says nothing of whose code failed."""

SHOWN_ITEMS: Final = 20
SHOWN_LENGTH: Final = 400
OBEYED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What a terminal does not show and does: control characters but line break and tab, and marks that turn the order of writing."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """What `run` and `resume` tell.

    Args:
        run_id: of the run; `None` when the command line was wrong.
        status: of the run: completed, failed, paused, suspended, cancelled.
        outputs: the items by output name; empty when the run did not complete.
        error: why it did not.
        degraded: why not everything was saved; `None` when it was.
    """

    run_id: str | None
    status: str
    outputs: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    error: BaseException | None = None
    degraded: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        outputs = {name: [_tagged(item) for item in items] for name, items in self.outputs.items()}
        error = None if self.error is None else error_object(self.error)
        told = {} if self.degraded is None else {"degraded": self.degraded}
        return {"run_id": self.run_id, "status": self.status, "outputs": outputs, "error": error, **told}

    def lines(self) -> Iterator[str]:
        """The outputs for people: a single item whole; of many the first few, a line each, the long ones cut."""
        for name, items in self.outputs.items():
            if not items and self.status == "suspended":  # what is to come
                continue
            if len(items) == 1:
                yield f"{one_line(name)}: {_shown(items[0])}"
                continue
            yield f"{one_line(name)}: {len(items)} items"
            for item in items[:SHOWN_ITEMS]:
                text = _shown(item)
                yield f"  {text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + '…'}"
            if len(items) > SHOWN_ITEMS:
                yield f"  … {len(items) - SHOWN_ITEMS} more; --json prints all"


def printable(text: str) -> str:
    """Text for a terminal: what it would obey is escaped. Names, reasons and errors may come from anybody."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """As `printable`, and without line breaks: a name in a line of ours."""
    return printable(text).replace("\n", "\\n")


def print_json(document: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print one object on one line of standard output."""
    print(json.dumps(document, allow_nan=False), file=stream or sys.stdout, flush=True)


def error_object(error: BaseException) -> dict[str, Any]:
    """An error in JSON. Of a node that failed, type and message are those of what the node raised."""
    if isinstance(error, click.ClickException):
        return {"type": "UsageError", "message": error.format_message(), "node_id": None}
    told = error.__cause__ if isinstance(error, NodeFailed) and error.__cause__ is not None else error
    message = text_of(told) or type(told).__name__
    return {"type": type(told).__name__, "message": message, "node_id": getattr(error, "node_id", None)}


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error leaves with."""
    return error.exit_code if isinstance(error, WorkflowError) else FAULT


def explain(error: BaseException) -> None:
    """Print an error for people on standard error; with its traceback when WORKFLOW_DEBUG is set."""
    if os.environ.get("WORKFLOW_DEBUG", "") not in ("", "0"):
        sys.stderr.write(printable("".join(traceback.format_exception(error))).encode("utf-8", "backslashreplace").decode())
    lines = [f"Error: {error}" if isinstance(error, WorkflowError) else _fault(error)]
    if isinstance(error, NodeFailed | NodeModuleError | HookError) and error.__cause__ is not None:
        lines += _place(error.__cause__)
        lines += getattr(error.__cause__, "__notes__", [])
    lines += getattr(error, "__notes__", [])
    sys.stderr.write(printable("\n".join(lines)).encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stderr.flush()


def _fault(error: BaseException) -> str:
    return (
        f"Error: a fault of this program, not of the workflow: {type(error).__name__}: {text_of(error)}\n"
        "Please report it with the traceback that WORKFLOW_DEBUG=1 shows."
    )


def _place(error: BaseException) -> list[str]:
    """Where in the user's code an error was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    return [f"  in {frame.name}, {frame.filename}, line {frame.lineno}" for frame in frames[-1:]]


def _tagged(item: object) -> Any:
    try:
        return to_tagged(item)
    except TaggedValueError as error:
        print(printable(f"Warning: an output is printed as its repr: {error}"), file=sys.stderr)
        return {"$type": "repr", "value": _repr(item)}


def _shown(item: object) -> str:
    try:
        return printable(json.dumps(to_tagged(item), ensure_ascii=False).encode("utf-8", "backslashreplace").decode())
    except TaggedValueError:
        text = printable(_repr(item))
        return text if len(text) <= SHOWN_LENGTH // 2 else text[: SHOWN_LENGTH // 2 - 1] + "…"


def _repr(item: object) -> str:
    """An item's repr: a run that has completed is not told as failed because its output cannot be written."""
    try:
        return repr(item)
    except Exception as error:
        return f"<{type(item).__name__}, whose repr fails: {type(error).__name__}>"
