"""Which store: its url, without touching it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from checkpoint_plugin.errors import StoreUrlInvalid

__all__ = ["DEFAULT_URL", "Location", "locate"]

DEFAULT_URL = "sqlite:///.workflow/checkpoints.db"
ENVIRONMENT = "WORKFLOW_CHECKPOINT_URL"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store is.

    Args:
        kind: of database.
        url: for SQLAlchemy; holds the password, so it is never shown.
        path: of the file, for SQLite.
        shown: for people, without the password.
    """

    kind: Literal["sqlite", "postgresql"]
    url: str
    path: Path | None
    shown: str

    def __repr__(self) -> str:
        return f"Location({self.shown!r})"


def locate(url: str | None) -> Location:
    """The store of a url; of `WORKFLOW_CHECKPOINT_URL`, or of the default file below the current folder, without one.

    Args:
        url: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db` or `postgresql://user:password@host/name`.

    Raises:
        StoreUrlInvalid: it is of another form.
    """
    url = url or os.environ.get(ENVIRONMENT) or DEFAULT_URL
    if not isinstance(url, str):
        raise StoreUrlInvalid(f"the url of a store is text, not {type(url).__name__}. Give one like {DEFAULT_URL}.")
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and len(rest) > 1 and rest[0] == "/" and rest != "/:memory:" and not {"?", "\0"} & set(rest):
        return Location("sqlite", url, Path(os.path.abspath(rest[1:])), url)
    if scheme in ("postgresql", "postgres", "postgresql+asyncpg") and _is_readable(f"postgresql://{rest}"):
        return Location("postgresql", f"postgresql://{rest}", None, _shown(url))
    raise StoreUrlInvalid(
        f"{_shown(url)!r} names no store. Give sqlite:///relative/path.db, sqlite:////absolute/path.db "
        "or postgresql://user:password@host/name."
    )


def _is_readable(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def _shown(url: str) -> str:
    """Host and name only, and not even these where a password with special characters may have become a part of them."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…" if "@" in url else url
    try:
        parts = urlsplit(f"//{rest}")
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:  # what stands where the port should is a part of the password, or there are several hosts
        return f"{scheme}://…"
    if parts.fragment or "@" in parts.path + parts.query:
        return f"{scheme}://…"
    return f"{scheme}://{parts.hostname or ''}{port}{parts.path}"
