"""Who holds a run: a worker of a process of a host, and whether that process still exists."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Holder"]

PROC: Final = Path("/proc")
START_FIELD: Final = 19
"""Of `/proc/PID/stat`, counted behind the name of the program, which may hold anything: clock ticks since the boot."""
DEAD_STATES: Final = "ZXx"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a run.

    Args:
        owner: name of the worker.
        host: its host, and behind a `#` what tells one boot and one space of process numbers from another.
        pid: number of its process there.
        started: when that process started, in the host's own count; `None` where it cannot be told.
    """

    owner: str
    host: str | None = None
    pid: int | None = None
    started: float | None = None

    @classmethod
    def here(cls, worker_id: str | None = None) -> Holder:
        """This process.

        Args:
            worker_id: its name; default: the host, the process and something random.
        """
        pid = os.getpid()
        host, started = _this_process(pid)
        name = worker_id or f"{platform.node()}:{pid}:{uuid.uuid4().hex[:8]}"
        return cls(name, host, pid, started)

    @property
    def is_gone(self) -> bool:
        """Whether it is surely no more: a process of this host, in the same boot, that does not exist.

        Without the `/proc` of Linux nobody is surely gone, and a lease is over when it ends.
        """
        if self.host is None or self.pid is None or self.host != _host() or "#" not in self.host:
            return False
        try:
            started = _started(self.pid)
        except OSError:  # or `/proc` hides it from this user, see `hidepid` in proc(5)
            return not _exists(self.pid)
        return started is None or (self.started is not None and started != self.started)

    def __str__(self) -> str:
        if self.pid is None or self.host is None:
            return f"worker {self.owner}"
        return f"worker {self.owner}, process {self.pid} on host {self.host.partition('#')[0]}"


@cache
def _this_process(pid: int) -> tuple[str, float | None]:
    """Its host and its start, which stay as they are; each run asks. By its number, as a fork has another one."""
    try:
        return _host(), _started(pid)
    except OSError:
        return _host(), None


def _host() -> str:
    """The host; and where they can be told, what two processes must share to be compared: boot, numbers and clock."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        if os.readlink(PROC / "self") != str(os.getpid()):  # mounted in another space of process numbers
            return platform.node()
        space = f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return platform.node()
    with suppress(OSError):  # Linux before 5.6 has one clock; since then each space of time counts starts by its own
        space = f"{space} {os.readlink(PROC / 'self/ns/time')}"
    return f"{platform.node()}#{hashlib.sha256(space.encode()).hexdigest()[:12]}"


def _started(pid: int) -> float | None:
    """When a process started; `None` of one that has ended and is still listed.

    Raises:
        OSError: it is not listed.
    """
    fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return None if fields[0] in DEAD_STATES else float(fields[START_FIELD])


def _exists(pid: int) -> bool:
    """Whether there is a process of this number, of whatever user."""
    try:
        os.kill(pid, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
