"""What was written to the files of a folder, and what was synced, in order."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = [
    "Acknowledged",
    "Created",
    "FolderMade",
    "FolderSynced",
    "Operation",
    "Removed",
    "Renamed",
    "Synced",
    "Trace",
    "Truncated",
    "Written",
]


@dataclass(frozen=True, slots=True)
class Created:
    """A new name for a new, empty file."""

    path: Path
    file: int


@dataclass(frozen=True, slots=True)
class FolderMade:
    """A new folder."""

    path: Path


@dataclass(frozen=True, slots=True)
class Removed:
    """A file or an empty folder lost its name."""

    path: Path


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file took another name, in one step."""

    old: Path
    new: Path
    file: int


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of a file, not yet safe."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file was made shorter, or longer by zeros."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything that was done to a file before a position of the trace is on the disk."""

    file: int
    before: int


@dataclass(frozen=True, slots=True)
class FolderSynced:
    """Every name that was given or taken in a folder before a position of the trace is on the disk."""

    path: Path
    before: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The program was told that something is durable."""

    what: str
    number: int


Operation: TypeAlias = Created | FolderMade | Removed | Renamed | Written | Truncated | Synced | FolderSynced | Acknowledged


@dataclass
class Trace:
    """The operations below a folder, from any thread.

    Args:
        root: the folder; it is durable itself, and so is what is in it when the recording begins.
    """

    root: Path
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        self._lock = threading.Lock()
        there = sorted(path for path in self.root.rglob("*") if self.covers(path))
        self.folders = tuple(path for path in there if path.is_dir())
        """Those that were there before."""
        self._names = {path: number for number, path in enumerate(filter(Path.is_file, there))}
        self.files = {number: (path, path.read_bytes()) for path, number in self._names.items()}
        """Those that were there before, by number, and what they held."""
        self._next = len(self.files)

    @property
    def position(self) -> int:
        """How many operations there are."""
        return len(self.operations)

    def covers(self, path: Path) -> bool:
        """Whether a path is of interest: below the folder, and no `-shm`, which is memory that no disk must keep."""
        return self.root in path.parents and not path.name.endswith("-shm")

    def acknowledge(self, what: str, number: int = 0) -> None:
        """Note that the program was told of something durable."""
        self._add(Acknowledged(what, number))

    def opened(self, path: Path, *, new: bool) -> int:
        """A file was opened, and made if it was not there; its number."""
        with self._lock:
            if new:
                self._names[path] = self._next
                self._next += 1
                self.operations.append(Created(path, self._names[path]))
            return self._names[path]

    def made(self, path: Path) -> None:
        """A folder was made."""
        self._add(FolderMade(path))

    def removed(self, path: Path) -> None:
        """A file or folder was removed."""
        with self._lock:
            self._names.pop(path, None)
            self.operations.append(Removed(path))

    def renamed(self, old: Path, new: Path) -> None:
        """A file was renamed."""
        with self._lock:
            self._names[new] = self._names.pop(old)
            self.operations.append(Renamed(old, new, self._names[new]))

    def written(self, file: int, offset: int, data: bytes) -> None:
        """Bytes were written."""
        self._add(Written(file, offset, data))

    def truncated(self, file: int, size: int) -> None:
        """A file has another length."""
        self._add(Truncated(file, size))

    def synced(self, file: int, before: int) -> None:
        """What was done to a file before a position is on the disk."""
        self._add(Synced(file, before))

    def folder_synced(self, path: Path, before: int) -> None:
        """What was done to the names in a folder before a position is on the disk."""
        self._add(FolderSynced(path, before))

    def _add(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)
