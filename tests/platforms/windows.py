"""The `workflow` command with what Python has on Windows, as far as that can be had elsewhere.

Called as `python -m tests.platforms.windows ARGUMENTS [, ARGUMENTS]…`: several commands of one process. Prints their exit codes.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any, Final

BINARY: Final = 0x8000
"""`O_BINARY` of Windows: without it what is written is changed at the ends of lines."""
UNIX_ONLY: Final = {
    os: "fork forkpty register_at_fork getuid geteuid getgid getegid setsid killpg mkfifo statvfs fstatvfs fchmod fchown chown "
    "fdatasync sync pread pwrite set_blocking get_blocking O_CLOEXEC O_NONBLOCK O_NOFOLLOW O_DIRECTORY O_SYNC O_DSYNC "
    "sched_getaffinity getloadavg confstr nice ttyname ctermid",
    signal: "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGPIPE SIGALRM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGQUIT pthread_kill "
    "pthread_sigmask sigwait setitimer alarm pause siginterrupt",
    select: "poll epoll POLLERR POLLHUP POLLIN",
}
MODULES: Final = ("fcntl", "grp", "pwd", "pty", "resource", "syslog", "termios", "tty")
LOOP: Final = ("add_signal_handler", "remove_signal_handler", "add_reader", "remove_reader", "add_writer", "remove_writer")


def become_windows() -> None:
    """Take away what is of Unix alone, and do with files what Windows does."""
    for module, names in UNIX_ONLY.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in LOOP:
        setattr(asyncio.SelectorEventLoop, name, _not_implemented)
    _take_files()


def _not_implemented(*arguments: Any) -> Any:
    raise NotImplementedError


def _take_files() -> None:
    real_open, real_write, real_close = os.open, os.write, os.close
    real_unlink, real_replace = os.unlink, os.replace
    files: dict[int, tuple[str, bool]] = {}
    """What is open, by number: its path, and whether it is a text to Windows."""

    def on_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        number = real_open(path, flags & ~BINARY, mode, dir_fd=dir_fd)
        files[number] = os.path.realpath(path), not flags & BINARY
        return number

    def on_write(number: int, data: Any) -> int:
        if number not in files or not files[number][1]:
            return real_write(number, data)
        real_write(number, bytes(data).replace(b"\n", b"\r\n"))
        return len(data)

    def on_close(number: int) -> None:
        files.pop(number, None)
        real_close(number)

    def refuse_open(path: Any) -> None:
        if os.path.realpath(path) in {held for held, _ in files.values()}:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process", str(path))

    def on_unlink(path: Any, **more: Any) -> None:
        refuse_open(path)
        real_unlink(path, **more)

    def on_replace(old: Any, new: Any, **more: Any) -> None:
        refuse_open(old)
        refuse_open(new)
        real_replace(old, new, **more)

    changed = {"open": on_open, "write": on_write, "close": on_close, "unlink": on_unlink, "remove": on_unlink}
    for name, value in {**changed, "replace": on_replace, "rename": on_replace, "O_BINARY": BINARY}.items():
        setattr(os, name, value)


def run_commands(arguments: list[str]) -> list[int]:
    """Run the commands that stand between commas, one after the other."""
    from checkpoint_plugin.tables import holder
    from workflow_runner.cli.main import main

    holder.PROC = Path("/none")  # type: ignore[misc]
    codes, command = [], list[str]()
    for argument in (*arguments, ","):
        if argument != ",":
            command.append(argument)
            continue
        codes.append(main(command))
        command = []
    return codes


if __name__ == "__main__":
    become_windows()
    print(run_commands(sys.argv[1:]))
