"""Large values of a store as files: which place, and the way of one save's values there and back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from checkpoint_plugin.blobs.folder import FolderPlace
from checkpoint_plugin.blobs.name import BESIDE, URL, BlobName, folder_of, is_folder, make_name, read_name
from checkpoint_plugin.blobs.place import BlobPlace
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.location import Location
from checkpoint_plugin.errors import BlobsUnusable, PolicyInvalid

__all__ = ["BLOB_BYTES", "ENVIRONMENT", "BlobMissing", "BlobWriter", "Blobs"]

BLOB_BYTES: Final = 1 << 20
"""Bytes from which on an encoded value becomes a file."""
ENVIRONMENT: Final = "WORKFLOW_CHECKPOINT_BLOBS"
SUFFIX: Final = ".blobs"


class BlobMissing(MalformedValue):
    """Raised when a file is gone.

    Args:
        name: as its row keeps it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"its file {name} is missing")
        self.name = name


class Blobs:
    """The places of one store's files. Both are read, whatever is written: the row of a value says where it lies.

    Args:
        location: of the store.
        option: as `Policy.blobs`; `None` for what `WORKFLOW_CHECKPOINT_BLOBS` says.
        limit: bytes from which on a value becomes a file.

    Raises:
        PolicyInvalid: it names no place, or one that this store cannot have.
    """

    def __init__(self, location: Location, option: bool | str | None = None, limit: int = BLOB_BYTES) -> None:
        if option is None:
            option = _from_environment()
        if option is True and location.path is None:
            raise PolicyInvalid(
                "checkpoint: option 'blobs': true keeps files beside a SQLite database, and this store is PostgreSQL. "
                "Give a url, like file:///srv/blobs or s3://bucket/folder."
            )
        self.limit = limit
        self.store_id: str | None = None
        self._writes_to = URL if isinstance(option, str) else BESIDE if option else None
        self._url = option if isinstance(option, str) else None
        self._beside = None if location.path is None else FolderPlace(Path(f"{location.path}{SUFFIX}"))
        self._at_url: BlobPlace | None = None
        if self._url is not None:
            from checkpoint_plugin.blobs.url import check_url

            check_url(self._url)

    @property
    def writes(self) -> bool:
        """Whether large values become files."""
        return self._writes_to is not None

    @property
    def has_url(self) -> bool:
        """Whether a url is given: its files lie under the store's own name, `store_id`."""
        return self._url is not None

    def write(self, run_id: str, data: bytes) -> BlobName:
        """Write the bytes of a value under a new name. They are durable when `settle` returns.

        Raises:
            BlobsUnusable: the place refuses; nothing is left there.
        """
        assert self._writes_to is not None
        name = make_name(self._writes_to, run_id, len(data))
        self._place(name.place).write(name.folder, name.file, data)
        return name

    def settle(self, run_id: str) -> None:
        """Make the files of a run durable.

        Raises:
            BlobsUnusable: the place refuses.
        """
        assert self._writes_to is not None
        self._place(self._writes_to).settle(folder_of(run_id))

    def read(self, run_id: str, text: str) -> bytes:
        """The bytes of a value.

        Args:
            run_id: the run.
            text: the name, as a row keeps it.

        Raises:
            MalformedValue: the row names no file of the run, or the file is missing, or is not the one that was written.
            BlobsUnusable: the place is not known, or refuses.
        """
        name = read_name(text, run_id)
        data = self._place(name.place).read(name.folder, name.file, name.size)
        if data is None:
            raise BlobMissing(str(name))
        return data

    def check(self, names: Iterable[BlobName]) -> None:
        """Look whether the places of these files are known, without opening them.

        Raises:
            BlobsUnusable: one is not.
        """
        if self._url is None and any(name.place == URL for name in names):
            raise _unknown_url()

    def remove(self, names: Iterable[BlobName]) -> None:
        """Delete files; harmless for those that are gone.

        Raises:
            BlobsUnusable: a place is not known, or refuses.
        """
        by_place: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            by_place.setdefault(name.place, []).append((name.folder, name.file))
        for place, files in by_place.items():
            self._place(place).remove(files)

    def places(self) -> Iterator[tuple[str, BlobPlace]]:
        """Those where files may lie, as far as they are known; opened, which may take long."""
        if self._beside is not None and self._beside.root.is_dir():
            yield BESIDE, self._beside
        if self._url is not None:
            yield URL, self._place(URL)

    def _place(self, kind: str) -> BlobPlace:
        if kind == BESIDE:
            if self._beside is None:
                raise MalformedValue("it is said to lie beside a database that is no file")
            return self._beside
        if self._url is None:
            raise _unknown_url()
        if self._at_url is None:
            from checkpoint_plugin.blobs.url import open_url

            if self.store_id is None or not is_folder(self.store_id):
                raise BlobsUnusable("this store has no name under which it keeps files. Restore its table checkpoint_schema.")
            self._at_url = open_url(self._url, self.store_id)
        return self._at_url


class BlobWriter:
    """The files of one save.

    Args:
        blobs: where.
        run_id: the run.
    """

    def __init__(self, blobs: Blobs, run_id: str) -> None:
        self.limit = blobs.limit
        self._blobs = blobs
        self._run_id = run_id
        self._names: list[BlobName] = []

    def write(self, data: bytes) -> str:
        """Write a value.

        Args:
            data: its bytes as they are stored.

        Returns:
            The name, for its row.

        Raises:
            BlobsUnusable: the place refuses.
        """
        self._names.append(self._blobs.write(self._run_id, data))
        return str(self._names[-1])

    def settle(self) -> None:
        """Make durable what was written; before any row mentions it.

        Raises:
            BlobsUnusable: the place refuses.
        """
        if self._names:
            self._blobs.settle(self._run_id)

    def undo(self) -> None:
        """Delete what was written, of which no row mentions anything; what cannot be deleted is swept later."""
        names, self._names = self._names, []
        with suppress(BlobsUnusable):
            self._blobs.remove(names)


def _unknown_url() -> BlobsUnusable:
    return BlobsUnusable(
        f"large values of this store lie under a url, which is not stored. Give it with the option blobs, or in {ENVIRONMENT}."
    )


def _from_environment() -> bool | str:
    found = os.environ.get(ENVIRONMENT, "").strip()
    return found.lower() in ("1", "true") if found.lower() in ("", "0", "false", "1", "true") else found
