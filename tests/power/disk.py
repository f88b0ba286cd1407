"""A disk that follows a trace up to a moment, and what it may hold when the power goes then.

What was synced is there. Of what was not, everything may have reached the disk or not, in any order: each write in whole, in some
of its sectors, or not at all; each name or not. Where a file grew and the data did not arrive, there are zeros or rubbish.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from tests.power.trace import (
    Acknowledged,
    Created,
    FolderMade,
    FolderSynced,
    Operation,
    Removed,
    Renamed,
    Synced,
    Trace,
    Truncated,
    Written,
)

__all__ = ["Disk", "Image"]

SECTOR: Final = 512
INDEX: Final = 32_768
"""The size of a small `-shm` file."""
LUCK: Final = (0.0, 0.1, 0.5, 0.9, 1.0)
"""How likely it is, on one disk, that something that was not synced is there."""

Naming: TypeAlias = Created | FolderMade | Removed | Renamed
Change: TypeAlias = Written | Truncated


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Change]] = field(default_factory=list)


@dataclass
class _Names:
    """What the folders say: files by their number, folders as `None`."""

    safe: dict[Path, int | None] = field(default_factory=dict)
    pending: list[tuple[int, Naming]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Image:
    """What is found after a power cut: folders, and files with what they hold."""

    folders: tuple[Path, ...]
    files: dict[Path, bytes]
    rubbish: bytes

    def write(self, old: Path, new: Path) -> None:
        """Put it into a new folder.

        Args:
            old: the root of the trace.
            new: what takes its place; made.
        """
        new.mkdir(parents=True)
        for path in sorted(self.folders):
            (new / path.relative_to(old)).mkdir()
        for path, data in self.files.items():
            (new / path.relative_to(old)).write_bytes(data)
            if path.suffix == ".db":
                # What was in memory is gone; a file system may show what lay there before.
                (new / path.relative_to(old)).with_name(f"{path.name}-shm").write_bytes(self.rubbish)


class Disk:
    """Everything that a trace did up to a position.

    Args:
        trace: what was recorded.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._files = {number: _File(bytearray(data)) for number, (_, data) in trace.files.items()}
        self._names = _Names({path: number for number, (path, _) in trace.files.items()})
        self._names.safe.update(dict.fromkeys(trace.folders))
        self._position = 0

    def follow(self, position: int) -> None:
        """Do what comes next, up to a position."""
        for operation in self._trace.operations[self._position : position]:
            self._do(operation)
            self._position += 1

    def _do(self, operation: Operation) -> None:
        match operation:
            case Created() | FolderMade() | Removed() | Renamed():
                self._names.pending.append((self._position, operation))
                if isinstance(operation, Created):
                    self._files[operation.file] = _File()
            case Written() | Truncated():
                self._files[operation.file].pending.append((self._position, operation))
            case Synced(number, before):
                file = self._files[number]
                for position, change in file.pending:
                    if position < before:
                        _apply(file.safe, change)
                file.pending = [item for item in file.pending if item[0] >= before]
            case FolderSynced(path, before):
                names = self._names
                for position, naming in names.pending:
                    if position < before and _folder_of(naming) == path:
                        _name(names.safe, naming)
                names.pending = [item for item in names.pending if item[0] >= before or _folder_of(item[1]) != path]
            case Acknowledged():
                pass

    def cut(self, random: Random) -> Image:
        """Cut the power now.

        Args:
            random: decides about what was not synced.
        """
        return self._image(random.choice(LUCK), random.choice(LUCK), random, random.randbytes(random.choice((0, 100, INDEX))))

    def whole(self) -> Image:
        """What is there without any power cut."""
        return self._image(1.0, 1.0, Random(0), b"")

    def _image(self, names_luck: float, luck: float, random: Random, rubbish: bytes) -> Image:
        names = dict(self._names.safe)
        for _, naming in self._names.pending:
            if random.random() < names_luck:
                _name(names, naming)
        folders = [path for path, number in names.items() if number is None and self._is_there(path, names)]
        found = {path: number for path, number in names.items() if number is not None and self._is_there(path, names)}
        files = {path: _survivor(self._files[number], luck, random) for path, number in found.items()}
        return Image(tuple(folders), files, rubbish)

    def _is_there(self, path: Path, names: dict[Path, int | None]) -> bool:
        above = path.parent
        return above == self._trace.root or (above in names and self._is_there(above, names))


def _folder_of(naming: Naming) -> Path:
    return naming.new.parent if isinstance(naming, Renamed) else naming.path.parent


def _name(names: dict[Path, int | None], naming: Naming) -> None:
    match naming:
        case Created(path, file):
            names[path] = file
        case FolderMade(path):
            names[path] = None
        case Removed(path):
            names.pop(path, None)
        case Renamed(old, new, file):
            names.pop(old, None)
            names[new] = file


def _apply(data: bytearray, change: Change) -> None:
    match change:
        case Truncated(_, size):
            if size < len(data):
                del data[size:]
            else:
                data.extend(bytes(size - len(data)))
        case Written(_, offset, written):
            if offset > len(data):
                data.extend(bytes(offset - len(data)))
            data[offset : offset + len(written)] = written


def _survivor(file: _File, luck: float, random: Random) -> bytes:
    data = bytearray(file.safe)
    rubbish = random.random() < 0.3
    for _, change in file.pending:
        if random.random() < luck:
            _apply(data, change)
        elif isinstance(change, Written) and luck and random.random() < 0.5:
            _tear(data, change, rubbish, random)
    return bytes(data)


def _tear(data: bytearray, written: Written, rubbish: bool, random: Random) -> None:
    """Only some sectors arrive; where the file grows, the others hold zeros or rubbish."""
    end = written.offset + len(written.data)
    if end > len(data) and random.random() < 0.8:  # else it has not grown but by the sectors that arrive
        missing = end - len(data)
        data.extend(random.randbytes(missing) if rubbish else bytes(missing))
    first = written.offset - written.offset % SECTOR
    for start in range(first, end, SECTOR):
        if random.random() < 0.5:
            low, high = max(start, written.offset), min(start + SECTOR, end)
            _apply(data, Written(written.file, low, written.data[low - written.offset : high - written.offset]))
