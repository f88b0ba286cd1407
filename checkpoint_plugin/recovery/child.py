"""A run that is resumed by a process of its own: one that takes its process along leaves the others alone."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Final, Self

from checkpoint_plugin.database.location import ENVIRONMENT
from checkpoint_plugin.errors import NotResumable
from checkpoint_plugin.policy import NAME
from hookspecs import DISABLE_VARIABLE

__all__ = ["ChildEnd", "resume_in_child"]

COMMAND: Final = (sys.executable, "-m", "workflow_runner.cli", "resume")
TOLD_BYTES: Final = 8_192
"""So much of what a process says at the end is kept; its nodes may print any amount."""
PIPE_BYTES: Final = 1 << 20
"""More than a pipe holds."""
MARK_BYTES: Final = 16
ERROR: Final = "Error: "
"""How the command begins the line that tells its error."""
GRACE_SECONDS: Final = 30.0
"""How long a process that was told to stop may take to save and leave."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a process ended.

    Args:
        code: its exit code; that of a signal is negative.
        told: its error, or else the last line that it said.
    """

    code: int
    told: str | None


async def resume_in_child(run_id: str, url: str, nodes: Sequence[str | Path], blocked: Collection[str] = ()) -> ChildEnd:
    """Run `workflow resume` to its end. A caller that is cancelled has it stopped, which saves, and waits for that.

    Args:
        run_id: the run.
        url: of the store; handed over where other users of the host do not see it.
        nodes: files or dotted names of modules of node types.
        blocked: names of plugins that it does not import, besides those that the environment keeps out.

    Raises:
        NotResumable: this program is no interpreter that could be started once more, or its event loop starts no processes.
        OSError: no process can be started.
    """
    _check_interpreter(run_id)
    kept_out = ",".join((os.environ.get(DISABLE_VARIABLE, ""), *sorted(blocked)))
    options = [part for path in nodes for part in ("--nodes", path)]
    with _Told() as told:
        try:
            process = await asyncio.create_subprocess_exec(
                COMMAND[0],
                *_folder_options(),
                *COMMAND[1:],
                *options,
                "--quiet",
                "--supervised",  # a service manager may tell it to stop besides: a second signal lets nothing be saved
                "--enable",
                NAME,  # with the options stored with the run; of several plugins with a store it is the one that is asked
                "--",
                run_id,
                env={**os.environ, ENVIRONMENT: url, DISABLE_VARIABLE: kept_out},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=told.end,
                start_new_session=True,  # nor does a key on the terminal reach it
            )
        except NotImplementedError:
            why = "that needs a process of its own, and this event loop starts none (on Windows only ProactorEventLoop does)"
            raise NotResumable(run_id, why) from None
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _stop(process)
            raise
        return ChildEnd(code, told.last())


def _check_interpreter(run_id: str) -> None:
    if not sys.executable or getattr(sys, "frozen", False):  # a program that brings Python along would start itself
        why = "that needs a process of its own, and this program is no Python interpreter that could be started for it"
        raise NotResumable(run_id, f"{why} (give the recovery `execute`, or let `workflow recover` do it)")


def _folder_options() -> Sequence[str]:
    """What keeps `-m` from looking for modules in the current folder, where this process does not look either.

    A file of nodes may be named like a module of Python's own there, and would be imported in its place.
    """
    looked_in = {""}
    with suppress(FileNotFoundError):  # of a folder that was deleted, as by a new version of the program
        looked_in.add(os.getcwd())
    return () if looked_in.intersection(sys.path) else ("-P",)


class _Told:
    """The last of what a process says, read while it runs.

    Through a pipe of our own: asyncio takes a process for running until its pipe is closed at the other end, too, and a program
    that a node leaves behind, a server for example, keeps that open for as long as it lives. In a thread: on Windows no event
    loop watches a pipe.
    """

    def __enter__(self) -> Self:
        self._pipe, self.end = os.pipe()
        self._kept = b""
        self._mark = os.urandom(MARK_BYTES)
        self._reader = Thread(target=self._read, name="workflow-recovery-reader", daemon=True)
        try:
            self._reader.start()
        except RuntimeError as error:  # as a process that cannot be started
            self._close()
            raise OSError(errno.EAGAIN, "no thread could be started") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._finish()
        self._close()

    def _close(self) -> None:
        os.close(self._pipe)
        os.close(self.end)

    def _read(self) -> None:
        mark = b""
        while not mark:
            self._kept, mark, _ = (self._kept[-TOLD_BYTES:] + os.read(self._pipe, PIPE_BYTES)).partition(self._mark)

    def _finish(self) -> None:
        """Have all read that is in the pipe: what stands behind the mark was written later."""
        if self._reader.is_alive():
            os.write(self.end, self._mark)
            self._reader.join()

    def last(self) -> str | None:
        """The error of a process that has ended, or else the last line that it said."""
        self._finish()
        lines = self._kept[-TOLD_BYTES:].decode(errors="replace").strip().splitlines()
        told = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
        last = told or lines
        return last[-1] if last else None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
