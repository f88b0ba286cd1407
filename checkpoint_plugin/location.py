"""Which store: its url, without touching it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

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
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "sqlite" and rest.startswith("/") and len(rest) > 1 and "?" not in rest:
        path = Path(rest[1:])
        return Location("sqlite", url, Path(os.path.abspath(path)), url)
    if separator and scheme in ("postgresql", "postgres", "postgresql+asyncpg"):
        return Location("postgresql", f"postgresql+asyncpg://{rest}", None, _without_password(url))
    raise StoreUrlInvalid(
        f"{_without_password(url)!r} names no store. Give sqlite:///relative/path.db, sqlite:////absolute/path.db "
        "or postgresql://user:password@host/name."
    )


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url if "@" not in url else f"{parts.scheme}://…"
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))
    except ValueError:
        return f"{url.partition('://')[0]}://…"
