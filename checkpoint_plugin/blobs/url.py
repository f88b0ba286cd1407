"""Large values under a url, through fsspec: a bucket, a server. `file:` urls are folders, and need no fsspec."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from checkpoint_plugin.blobs.folder import FolderPlace
from checkpoint_plugin.blobs.name import is_file, is_folder
from checkpoint_plugin.blobs.place import BlobFile, BlobPlace
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.errors import BlobsUnusable, PolicyInvalid

__all__ = ["UrlPlace", "check_url", "open_url", "shown_url"]

LOCAL: Final = ("file", "local")
TIMES: Final = ("mtime", "LastModified", "last_modified", "updated", "modified")


def check_url(url: str) -> None:
    """Look at a url without opening anything.

    Raises:
        PolicyInvalid: it is none under which files can be kept.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _is_scheme(scheme) or not rest.strip("/") or "\0" in url:
        raise _invalid(url, "is no url")
    if "::" in url:  # chained: caches, which write later than they say, and archives, which are one file
        raise _invalid(url, "is a chain of urls")
    if scheme in LOCAL and not _local_path(url).is_absolute():
        raise _invalid(url, "is no path from the root of this machine")


def open_url(url: str, store_id: str) -> BlobPlace:
    """The place that a url names.

    Args:
        url: as `check_url` lets it pass.
        store_id: of the store, which keeps its files in a folder of this name: others may use the same url.

    Raises:
        BlobsUnusable: fsspec or what it needs for this kind of url is not installed, or does not know it.
    """
    if url.partition("://")[0] in LOCAL:
        return FolderPlace(_local_path(url) / store_id)
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise BlobsUnusable(
            "large values under a url need the extra blobs. Install it: pip install 'workflow-checkpoint[blobs]'"
        ) from error
    try:
        files, root = url_to_fs(url)
    except Exception as error:  # whatever a file system may raise: some connect here
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BlobsUnusable(
            f"{shown_url(url)}, where large values lie, cannot be opened: {why}. See that it can be reached, "
            "install what fsspec needs for it, or choose another place with the option blobs."
        ) from error
    return UrlPlace(files, f"{root.rstrip('/')}/{store_id}", shown_url(url))


class UrlPlace:
    """See `place.BlobPlace`. How long a request may take is a matter of the file system's own options.

    Args:
        files: a file system of fsspec.
        root: the folder of the store there.
        shown: the url for people.
    """

    def __init__(self, files: Any, root: str, shown: str) -> None:
        self._fs = files
        self._root = root
        self._shown = shown
        self._made: set[str] = set()

    def write(self, folder: str, file: str, data: bytes) -> None:
        with self._telling("written"):
            if folder not in self._made:
                self._fs.makedirs(f"{self._root}/{folder}", exist_ok=True)
                self._made.add(folder)
            self._fs.pipe_file(f"{self._root}/{folder}/{file}", data)

    def settle(self, folder: str) -> None:
        """Nothing: what such a place has acknowledged it keeps."""

    def read(self, folder: str, file: str, size: int) -> bytes | None:
        with self._telling("read"):
            try:
                data: bytes = self._fs.cat_file(f"{self._root}/{folder}/{file}", start=0, end=size + 1)
            except FileNotFoundError:
                return None
        if len(data) != size:
            raise MalformedValue(f"its file {folder}/{file} under {self._shown} has {len(data)} of {size} bytes, or more")
        return data

    def remove(self, files: Iterable[tuple[str, str]]) -> None:
        for folder, file in files:
            with self._telling("deleted"):
                try:
                    self._fs.rm_file(f"{self._root}/{folder}/{file}")
                except FileNotFoundError:
                    pass

    def files(self, folders: Collection[str] | None) -> list[BlobFile]:
        with self._telling("read"):
            self._fs.invalidate_cache()
            roots = [self._root] if folders is None else [f"{self._root}/{folder}" for folder in folders]
            return [found for root in roots for found in self._found(root)]

    def age(self, found: BlobFile) -> float | None:
        with self._telling("read"):
            try:
                written = self._written(f"{self._root}/{found.folder}/{found.file}")
            except FileNotFoundError:
                return None
        return None if written is None else time.time() - written

    def _written(self, path: str) -> float | None:
        """When a file was written, as the file system tells it: not all have the method, and each has its own name for it."""
        try:
            found = self._fs.modified(path)
        except NotImplementedError:
            entry = self._fs.info(path)
            found = next((entry[name] for name in TIMES if entry.get(name) is not None), None)
        if isinstance(found, datetime):
            return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
        return float(found) if type(found) in (int, float) else None

    def _found(self, root: str) -> Iterator[BlobFile]:
        try:
            found = self._fs.find(root, detail=True)
        except FileNotFoundError:
            return
        for path, entry in found.items():
            *_, folder, file = ("", *str(path).split("/"))
            if is_folder(folder) and is_file(file):
                yield BlobFile(folder, file, int(entry.get("size") or 0))

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each file system has errors of its own, which have no root but this
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BlobsUnusable(
                f"{self._shown}, where large values lie, cannot be {what}: {type(error).__name__}: {told}. "
                "Give the right to it, or choose another place with the option blobs."
            ) from error


def shown_url(url: str) -> str:
    """A url without what may be secret: user, password, parameters; nothing of one that may be cut at the wrong place."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…" if any(sign in url for sign in "@:=") else url
    if not _is_scheme(scheme.replace("::", "")):
        return "…"
    place = re.split("[?#]", rest, maxsplit=1)[0]
    more = rest[len(place) :]
    return f"{scheme}://{'…' if '@' in more else place.rpartition('@')[2]}"


def _is_scheme(text: str) -> bool:
    return text.replace("+", "").replace("-", "").isalnum()


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    text = unquote(parts.path if parts.netloc in ("", "localhost") else parts.netloc + parts.path)
    below = Path(text.removeprefix("/"))
    return below if below.drive else Path(text)  # of Windows: file:///C:/folder


def _invalid(url: str, what: str) -> PolicyInvalid:
    return PolicyInvalid(
        f"checkpoint: option 'blobs': {shown_url(url)!r} {what}. Give true for a folder beside a SQLite database, or a url "
        "like file:///srv/blobs or s3://bucket/folder."
    )
