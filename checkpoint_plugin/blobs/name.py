"""What the file of a large value is called: made here, and read only in exactly this form, for a row may be a forger's."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

from checkpoint_plugin.bounds import LARGEST_VALUE
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.stored_bytes.digests import text_bytes

__all__ = ["BESIDE", "URL", "BlobName", "folder_of", "is_file", "is_folder", "make_name", "read_name", "size_of"]

BESIDE: Final = "beside"
"""The place beside the database."""
URL: Final = "url"
"""The place that a url names; which, no row says: what opens a connection comes from the user alone."""
RANDOM_BYTES: Final = 16
SEAL_BYTES: Final = 64
"""Encryption adds less than that to a value."""
FOLDER: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
FILE: Final = re.compile(r"[0-9a-f]{32}\.(0|[1-9][0-9]{0,11})", re.ASCII)
FORM: Final = re.compile(rf"({BESIDE}|{URL})/({FOLDER.pattern})/({FILE.pattern})", re.ASCII)


@dataclass(frozen=True, slots=True)
class BlobName:
    """The name of a file, as a row keeps it: `beside/FOLDER/FILE`.

    Args:
        place: `beside` or `url`.
        folder: of the run.
        file: 128 random bits, so that no name is used twice, and the bytes of the file, so that one that was cut short or
            replaced by something huge is not read.
    """

    place: str
    folder: str
    file: str

    def __str__(self) -> str:
        return f"{self.place}/{self.folder}/{self.file}"

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return size_of(self.file)


def folder_of(run_id: str) -> str:
    """The folder of a run: an id may hold anything, a digest of it is a name."""
    return hashlib.blake2b(text_bytes(run_id), digest_size=16).hexdigest()


def make_name(place: str, run_id: str, size: int) -> BlobName:
    """A name that was never used.

    Args:
        place: `BESIDE` or `URL`.
        run_id: the run.
        size: bytes of the file.
    """
    return BlobName(place, folder_of(run_id), f"{secrets.token_hex(RANDOM_BYTES)}.{size}")


def read_name(text: str, run_id: str) -> BlobName:
    """The name that a row of a run keeps.

    Raises:
        MalformedValue: it has another form, or is that of another run.
    """
    found = FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[2] != folder_of(run_id):
        raise MalformedValue(f"{str(text)[:100]!r} is no name of a file of this run")
    name = BlobName(found[1], found[2], found[3])
    if name.size > LARGEST_VALUE + SEAL_BYTES:
        raise MalformedValue(f"{text!r} is the name of a file that is larger than any value")
    return name


def is_folder(name: str) -> bool:
    """Whether a folder can be that of a run."""
    return FOLDER.fullmatch(name) is not None


def is_file(name: str) -> bool:
    """Whether a file can be that of a value."""
    return FILE.fullmatch(name) is not None


def size_of(file: str) -> int:
    """Bytes of a file, by its name."""
    return int(file.partition(".")[2])
