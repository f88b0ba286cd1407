"""One attempt of one run from the command line: progress, signals, the report and the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from shlex import quote
from typing import Any, Final

from hookspecs import LeaseLost, WorkflowError, text_of
from workflow_runner.cli.progress import open_progress
from workflow_runner.cli.report import FAULT, RunReport, exit_code_of, explain, one_line, print_json, printable
from workflow_runner.cli.signals import StopSignals
from workflow_runner.cli.streams import printing_aside, settle
from workflow_runner.cli.waiting import waiting_line
from workflow_runner.errors import NodeFailed, RunnerError, RunStopped
from workflow_runner.events import CheckpointSaved, Event, RunStarted
from workflow_runner.runner import Result, WorkflowRunner

__all__ = ["Execution"]

DEGRADED: Final = 6
SUSPENDED: Final = 3
PATIENCE_SECONDS: Final = 5.0
"""How long after a signal the event loop may stay deaf."""

Start = Callable[[], Coroutine[Any, Any, Result]]


class Execution:
    """Drives a runner for `run` and `resume`.

    Args:
        run_id: of the run, known before it starts, so that every report names it.
        as_json: print the report as JSON; what nodes print goes to standard error.
        quiet: show no progress.
        supervised: as `StopSignals`.
        nodes: files or modules of node types, as they were given, which a resume needs, too.
    """

    def __init__(self, run_id: str, *, as_json: bool, quiet: bool, supervised: bool = False, nodes: Sequence[str] = ()) -> None:
        self.run_id = run_id
        self._resume = " ".join(("workflow resume", quote(run_id), *(f"--nodes {quote(source)}" for source in nodes)))
        self._supervised = supervised
        self._as_json = as_json
        self._quiet = quiet
        self._aside = ExitStack()
        self._streams = sys.stdout, sys.stderr

    def drive(self, runner: WorkflowRunner, start: Start) -> int:
        """Run to the end, and report.

        Args:
            runner: with the nodes and plugins of the run.
            start: calls `run` or `resume` of it.

        Returns:
            The exit code.
        """
        loops = asyncio.Runner()
        stopper = Stopper(runner, loops, give_up=lambda: self._give_up(signals))
        signals = StopSignals(stopper.stop, supervised=self._supervised)
        if self._as_json:
            self._aside.enter_context(printing_aside())
        with self._aside, open_progress(self._quiet) as show, signals:
            if show is not None:
                runner.subscribe(show)
            try:
                report, code = self._ended(loops.run(stopper.guard(start, hears_all=show is not None)))
            except (KeyboardInterrupt, SystemExit, asyncio.CancelledError, Exception) as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)) or stopper.is_left:
                    ended = stopper.finish(type(error).__name__)
                    report, code = self._ended(ended) if isinstance(ended, Result) else self._left(error, ended, signals)
                else:
                    if isinstance(error, NodeFailed) and stopper.durable:
                        error.add_note(f"Its checkpoints are stored. Mend the cause, then: {self._resume}")
                    report, code = self._failed(error, signals)
        self._print(report)
        if runner.abandoned or (code != 0 and _threads_are_left()):
            leave(code)
        try:
            loops.close()
        except KeyboardInterrupt:  # of who would not wait for threads that bodies have left; what was told stays true
            leave(code)
        return code

    def refuse(self, error: WorkflowError) -> int:
        """Report an error that kept the run from starting."""
        self._print(RunReport(self.run_id, "failed", error=error))
        return exit_code_of(error)

    def _ended(self, result: Result) -> tuple[RunReport, int]:
        """The run came to its end, or waits."""
        self._switch_on()
        code = 0
        if result.degraded is not None:
            code = DEGRADED
            stands = "is suspended" if result.suspensions else "completed"
            print(f"Warning: run {result.run_id!r} {stands}, but degraded: {one_line(result.degraded)}", file=sys.stderr)
        if result.suspensions:
            code = SUSPENDED  # also of a degraded run: it is not over
            if not self._quiet:
                print(self._waiting(result), file=sys.stderr)
        return RunReport(result.run_id, result.status, result.outputs, degraded=result.degraded), code

    def _waiting(self, result: Result) -> str:
        """What a suspended run waits for, and how it goes on."""
        lines = [f"Run {result.run_id!r} is suspended:"]
        for node_id, waits in sorted(result.suspensions.items()):
            lines.append(f"  {waiting_line(node_id, waits, f'{self._resume} --set', self._resume)}")
        return printable("\n".join(lines))

    def _failed(self, error: BaseException, signals: StopSignals) -> tuple[RunReport, int]:
        code = signals.exit_code
        if code is not None and isinstance(error, asyncio.CancelledError):
            # While the graph or the store was read.
            error = RunnerError(
                f"run {self.run_id!r} was stopped by a signal as it began. "
                f"Start it again, or `{self._resume}` if `workflow runs` shows it."
            )
            return RunReport(self.run_id, "paused", error=error), code
        if isinstance(error, asyncio.CancelledError):
            error = RunnerError(
                f"run {self.run_id!r} was cancelled by a node or a hook. Let it cancel no tasks but its own, then "
                f"start it again, or `{self._resume}` if `workflow runs` shows it."
            )
            return RunReport(self.run_id, "paused", error=error), exit_code_of(error)
        if code is not None and isinstance(error, RunStopped):
            return RunReport(self.run_id, "paused", error=error), code
        cancelled = isinstance(error, LeaseLost) and error.cancelled
        return RunReport(self.run_id, "cancelled" if cancelled else "failed", error=error), exit_code_of(error)

    def _left(self, error: BaseException, ended: BaseException | None, signals: StopSignals) -> tuple[RunReport, int]:
        """What ends a process was raised while the event loop ran.

        Args:
            error: what it was.
            ended: how the run ended that was stopped for it.
            signals: those that came meanwhile.
        """
        text = text_of(error)
        left = f"{type(error).__name__}{f': {text}' if text else ''}"
        if not isinstance(ended, WorkflowError):
            mend = "Let it raise an exception of its own."
            ended = RunnerError(f"run {self.run_id!r} was left by {left}, raised by a node or a hook. {mend}")
        elif not isinstance(ended, NodeFailed):
            ended.add_note(f"It was left by {left}, raised in a task or a callback that a node has made.")
        report, code = self._failed(ended, signals)
        if isinstance(ended, RunStopped):
            report = replace(report, status="paused")
        return report, 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else code

    def _give_up(self, signals: StopSignals) -> None:
        code = signals.exit_code or FAULT
        told = "a body kept the event loop busy, so no checkpoint was taken at the end. Let it await now and then."
        error = RunnerError(f"run {self.run_id!r} was left {PATIENCE_SECONDS:g} s after the signal: {told}")
        self._aside.close()
        self._print(RunReport(self.run_id, "paused", error=error))
        leave(code)

    def _switch_on(self) -> None:
        """Have streams again that a node has switched off, as `sys.stderr = None` does, for what is told now."""
        if sys.stdout is None:
            sys.stdout = self._streams[0]
        if sys.stderr is None:
            sys.stderr = self._streams[1]

    def _print(self, report: RunReport) -> None:
        self._switch_on()
        if report.error is not None:
            explain(report.error)
        if self._as_json:
            print_json(report.to_json())
        elif not self._quiet:
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # a node may have put its own stream there
            for line in report.lines():
                print(line.encode(encoding, "backslashreplace").decode(encoding))


class Stopper:
    """Stops the run of a runner, from a signal handler.

    Args:
        runner: of the run.
        loops: has the event loop of the run.
        give_up: ends the process; called when the event loop does not hear of the stop.
    """

    def __init__(self, runner: WorkflowRunner, loops: asyncio.Runner, give_up: Callable[[], None]) -> None:
        self._runner = runner
        self._loops = loops
        self._give_up = give_up
        self.durable = False
        self._task: asyncio.Task[Result] | None = None
        self._started = False
        self._wanted = False
        self._unsubscribe: Callable[[], None]

    def stop(self) -> None:
        """Have the run stopped by its event loop."""
        self._wanted = True
        if self._task is not None:
            watchdog = threading.Timer(PATIENCE_SECONDS, self._give_up)
            watchdog.daemon = True
            watchdog.start()
            self._loops.get_loop().call_soon_threadsafe(self._stop, watchdog)

    @property
    def is_left(self) -> bool:
        """Whether the event loop has ended before the run, as one that a node stops."""
        return self._task is not None and not self._task.done()

    def finish(self, reason: str) -> Result | BaseException | None:
        """Stop the run of an event loop that something has left, and let it save.

        Args:
            reason: for which it is stopped.

        Returns:
            How the run ended: what it gave, where it had come so far, or what it raised; `None` where it had not begun.
        """
        task = self._task
        if task is None:
            return None
        if self._started:
            self._runner.stop(reason)
        else:
            task.cancel()
        while not task.done():  # another task or callback of the kind may leave it again
            with suppress(BaseException):
                self._loops.get_loop().run_until_complete(task)
        return asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()

    async def guard(self, start: Start, *, hears_all: bool) -> Result:
        """The run.

        Args:
            start: begins it.
            hears_all: keep listening after its start, to know what was stored; it costs a little for each node.
        """
        self._task = asyncio.current_task()
        if self._wanted:
            raise asyncio.CancelledError
        self._unsubscribe = self._runner.subscribe(lambda event: self._hear(event, hears_all))
        return await start()

    def _hear(self, event: Event, hears_all: bool) -> None:
        if isinstance(event, RunStarted):
            self._started = True
            if not hears_all:
                self._loops.get_loop().call_soon(self._unsubscribe)
        elif isinstance(event, CheckpointSaved):
            self.durable = True

    def _stop(self, watchdog: threading.Timer) -> None:
        watchdog.cancel()
        if self._started:
            self._runner.stop("signal")
        elif self._task is not None:
            # The runner may not know of the run yet, while it reads the graph or the store.
            self._task.cancel()


def leave(code: int) -> None:
    """End the process without waiting for threads or tasks that do not end."""
    os._exit(settle(code))


def _threads_are_left() -> bool:
    """Whether a thread would hold the process: one of an executor, perhaps in the middle of a body that does not end."""
    return any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate())
