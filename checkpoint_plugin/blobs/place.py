"""A place where large values lie as files: what a folder (`folder.py`) and a url (`url.py`) have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["BlobFile", "BlobPlace"]


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A file that lies in a place.

    Args:
        folder: of the run.
        file: its name there.
        size: bytes.
    """

    folder: str
    file: str
    size: int


class BlobPlace(Protocol):
    """Keeps files in folders, one folder a run. Every method blocks, and raises `BlobsUnusable` where the place refuses."""

    def write(self, folder: str, file: str, data: bytes) -> None:
        """Write a new file; what is written is durable when `settle` returns. Where it fails nothing is left."""

    def settle(self, folder: str) -> None:
        """Make durable that the files which were written to a folder are there."""

    def read(self, folder: str, file: str, size: int) -> bytes | None:
        """The bytes of a file, `None` where there is none.

        Args:
            folder: of the run.
            file: its name.
            size: that it must have; not much more than that is read.

        Raises:
            MalformedValue: it has another size.
        """

    def remove(self, files: Iterable[tuple[str, str]]) -> None:
        """Delete files, by folder and name, and folders that are empty then; harmless for what is gone."""

    def files(self, folders: Collection[str] | None) -> list[BlobFile]:
        """The files of these folders, of all without; what has not the form of our names is left alone."""

    def age(self, found: BlobFile) -> float | None:
        """Seconds since a file was written; `None` when it is gone, or nobody can tell."""
