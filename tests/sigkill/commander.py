"""A process that has imported everything, and forks a child for each command line, to be killed while it works."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.sigkill.nursery import reap
from workflow_runner.cli.main import main

__all__ = ["Commander"]

READY = (
    "checkpoint_plugin.space.sweep",
    "checkpoint_plugin.cli.keys",
    "checkpoint_plugin.cli.prune",
    "checkpoint_plugin.stored_bytes.encryption",
    "checkpoint_plugin.runs.key_rotation",
    "checkpoint_plugin.database.postgresql",
    "checkpoint_plugin.space.pruning",
    "checkpoint_plugin.database.sqlite",
    "checkpoint_plugin.store",
    "cryptography.hazmat.primitives.ciphers.aead",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)


class Commander:
    """A commander in a process of its own.

    Args:
        messages: where the commands print.
    """

    def __init__(self, messages: Path) -> None:
        self._messages = messages
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sigkill.commander"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Commander:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def run(
        self,
        arguments: Sequence[str],
        kill_after_seconds: float | None = None,
        *,
        kill_at: tuple[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
        patches: Mapping[str, int] | None = None,
    ) -> int:
        """Run `workflow` to its end, or to its kill; its exit code, negative for a signal.

        Args:
            arguments: of the command line.
            kill_after_seconds: from its start; `None` for never.
            kill_at: a function, as `module:name.name`, and at which of its calls.
            environment: is added.
            patches: numbers that it sets in modules, as `module:NAME`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "arguments": arguments,
            "kill_after_seconds": kill_after_seconds,
            "kill_at": kill_at,
            "environment": environment or {},
            "patches": patches or {},
            "messages": str(self._messages),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve() -> None:
    """Take orders from standard input, and answer each with an exit code."""
    for name in READY:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_obey(order))
        print(reap(child, order["kill_after_seconds"]), flush=True)


def _obey(order: Mapping[str, Any]) -> int:
    with open(order["messages"], "a", encoding="utf-8") as messages:
        os.dup2(messages.fileno(), 1)
        os.dup2(messages.fileno(), 2)
    os.environ.update(order["environment"])
    for name, value in order["patches"].items():
        owner, attribute = _place(name)
        getattr(owner, attribute)  # else it would be patched where nobody looks
        setattr(owner, attribute, value)
    if order["kill_at"] is not None:
        name, call = order["kill_at"]
        owner, attribute = _place(name)
        setattr(owner, attribute, _mortal(getattr(owner, attribute), call))
    try:
        code = main(order["arguments"])
    except BaseException:  # this is the child's last stop: nothing may return into the commander
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _place(name: str) -> tuple[Any, str]:
    module, _, path = name.partition(":")
    *owners, attribute = path.split(".")
    return reduce(getattr, owners, importlib.import_module(module)), attribute


def _mortal(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls = count(1)

    def mortal(*arguments: Any, **more: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)

    return mortal


if __name__ == "__main__":
    serve()
