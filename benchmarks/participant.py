"""The other end of a worker: starts it when it is first asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.request import Request

__all__ = ["Participant"]

ROOT = Path(__file__).parents[1]


class Participant:
    """One of those who are compared, in a process of its own.

    Args:
        name: one of `worker.MODULES`.
        log: where its standard error goes.
    """

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log.open("ab")
        self._process: subprocess.Popen[str] | None = None
        self._compiled = tempfile.TemporaryDirectory(prefix="compiled-")

    def __enter__(self) -> Participant:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if (process := self._process) is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._log.close()
        self._compiled.cleanup()

    def ask(self, request: Request) -> dict[str, Any]:
        """Have it do something.

        Returns:
            What `worker.answer` gives.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                self._command(),
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(request.to_line(), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._process = None
            return {"error": f"its process ended with {code}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def ask_fresh(self, request: Request) -> dict[str, Any]:
        """Have a new process do it; its metric `seconds` is the whole life of that process."""
        started = time.perf_counter()
        ended = subprocess.run(
            [*self._command(), "--once", request.to_line()],
            cwd=ROOT,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        seconds = time.perf_counter() - started
        if not ended.stdout.strip():
            return {"error": f"its process ended with {ended.returncode}"}
        found: dict[str, Any] = json.loads(ended.stdout)
        if "metrics" in found:
            found["metrics"]["seconds"] = seconds
        return found

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.worker", self.name]

    def _environment(self) -> dict[str, str]:
        # What is imported is compiled once, as an installation does it, also where this environment says not to.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        quiet = {"DO_NOT_TRACK": "1", "LANGSMITH_TRACING": "false", "KEDRO_DISABLE_TELEMETRY": "1"}
        return {**kept, **quiet, "PYTHONPYCACHEPREFIX": self._compiled.name}
