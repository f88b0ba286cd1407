"""Who holds a run: a worker of a process of a host, and whether that process still exists."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
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
        """Whether it is surely no more: a process of this host, in the same boot, that does not exist."""
        if self.host is None or self.pid is None or self.host != _host() or "#" not in self.host:
            return False
        started = _started(self.pid)
        return started is None or (self.started is not None and started != self.started)

    def __str__(self) -> str:
        if self.pid is None or self.host is None:
            return f"worker {self.owner}"
        return f"worker {self.owner}, process {self.pid} on host {self.host.partition('#')[0]}"


@cache
def _this_process(pid: int) -> tuple[str, float | None]:
    """Its host and its start, which stay as they are; each run asks. By its number, as a fork has another one."""
    return _host(), _started(pid)


def _host() -> str:
    """The host, and the boot and the space of process numbers within which two processes can be compared."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return platform.node()  # without `/proc` a process that is gone is known by its lease alone
    return f"{platform.node()}#{hashlib.sha256(space.encode()).hexdigest()[:12]}"


def _started(pid: int) -> float | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in DEAD_STATES else float(fields[START_FIELD])
