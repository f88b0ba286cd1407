"""Which store: its url, without touching it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from checkpoint_plugin.database.limits import DEFAULT_LIMITS, LimitInvalid, Limits
from checkpoint_plugin.errors import StoreUrlInvalid

__all__ = ["DEFAULT_URL", "Location", "locate"]

DEFAULT_URL = "sqlite:///.workflow/checkpoints.db"
ENVIRONMENT = "WORKFLOW_CHECKPOINT_URL"
SCHEMA_NAME: Final = re.compile(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,62}")
SWITCH: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store is.

    Args:
        kind: of database.
        url: as it was given, to open the same store elsewhere; holds the password, so it is never shown.
        path: of the file, for SQLite.
        shown: for people, without the password.
        dsn: for the driver of PostgreSQL: the url without what is meant for us.
        limits: of every wait, and of connections.
        schema: of PostgreSQL that holds the tables; `None` for that of the connection.
        pooled: a pooler may give each transaction another connection to the server.
        environment: what the driver takes from it where the url does not say it, the server for example; never shown.
    """

    kind: Literal["sqlite", "postgresql"]
    url: str
    path: Path | None
    shown: str
    dsn: str | None = None
    limits: Limits = DEFAULT_LIMITS
    schema: str | None = None
    pooled: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Location({self.shown!r})"


def locate(url: str | None) -> Location:
    """The store of a url; of `WORKFLOW_CHECKPOINT_URL`, or of the default file below the current folder, without one.

    Args:
        url: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db` or `postgresql://user:password@host/name`. Behind a
            `?` it may name limits: `connections`; `busy_seconds` for SQLite; `connect_seconds`, `statement_seconds`,
            `lock_seconds` and `reconnect_seconds` for PostgreSQL, and there `schema`, `pgbouncer=1` and whatever its own
            programs know.

    Raises:
        StoreUrlInvalid: it is of another form.
    """
    if url == "":
        raise StoreUrlInvalid(f"the url of a store is empty. Give one like {DEFAULT_URL}, or none for the default.")
    url = url or os.environ.get(ENVIRONMENT) or DEFAULT_URL
    if not isinstance(url, str):
        raise StoreUrlInvalid(f"the url of a store is text, not {type(url).__name__}. Give one like {DEFAULT_URL}.")
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    try:
        if scheme == "sqlite" and len(place) > 1 and place[0] == "/" and place != "/:memory:" and "\0" not in rest:
            return _sqlite(url, place, _parameters(url, query))
        if scheme in ("postgresql", "postgres", "postgresql+asyncpg") and _is_readable(f"postgresql://{rest}"):
            return _postgresql(url, f"postgresql://{rest}")
    except LimitInvalid as error:
        raise StoreUrlInvalid(f"{_shown(url)!r}: {error}. Write it like ?{error.example}.") from None
    raise StoreUrlInvalid(
        f"{_shown(url)!r} names no store. Give sqlite:///relative/path.db, sqlite:////absolute/path.db "
        "or postgresql://user:password@host/name."
    )


def _sqlite(url: str, place: str, query: dict[str, str]) -> Location:
    limits = Limits.take(query)
    if query:
        name = next(iter(query))
        near = get_close_matches(name, ["busy_seconds", "connections"], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else " Leave it out; busy_seconds and connections are known."
        raise StoreUrlInvalid(f"{_shown(url)!r} names no store: SQLite has no parameter {name!r}.{hint}")
    shown = f"sqlite://{place}"
    try:
        path = Path(os.path.abspath(place[1:]))
    except FileNotFoundError:
        raise StoreUrlInvalid(
            f"{shown!r} names a file in the current folder, which was deleted. Go to another one, or give the whole path."
        ) from None
    return Location("sqlite", url, path, shown, limits=limits)


def _postgresql(url: str, dsn: str) -> Location:
    parts = urlsplit(dsn)
    query = _parameters(url, parts.query)
    limits = Limits.take(query)
    schema = query.pop("schema", None)
    shown = _shown(url)
    if schema is not None:
        if not SCHEMA_NAME.fullmatch(schema):
            raise StoreUrlInvalid(
                f"{shown!r}: schema is a name of at most 63 letters, digits and underscores that does not begin with pg_. "
                "Write it like ?schema=runs."
            )
        shown = shown if shown.endswith("…") else f"{shown}?schema={schema}"
    pooled = SWITCH.get(query.pop("pgbouncer", "0").lower())
    if pooled is None:
        raise StoreUrlInvalid(f"{shown!r}: pgbouncer is 1 or 0. Write ?pgbouncer=1 for one in transaction mode.")
    environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("PG")))
    driver = urlunsplit(parts._replace(query=urlencode(query)))
    return Location("postgresql", dsn, None, shown, driver, limits, schema, pooled, environment)


def _parameters(url: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in found:
            raise StoreUrlInvalid(f"{_shown(url)!r}: the parameter {name!r} is given twice. Give it once.")
        found[name] = value
    return found


def _is_readable(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def _shown(url: str) -> str:
    """Host and name only, and not even these where a password with special characters may have become a part of them."""
    scheme, separator, rest = url.partition("://")
    if not separator:  # a file's name may be shown; "host=h password=…", as other programs take it, may not
        return "…" if any(sign in url for sign in "@:=") else url
    try:
        parts = urlsplit(f"//{rest}")
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:  # what stands where the port should is a part of the password, or there are several hosts
        return f"{scheme}://…"
    if parts.fragment or "@" in parts.path + parts.query or ";" in parts.path:
        return f"{scheme}://…"
    return f"{scheme}://{parts.hostname or ''}{port}{parts.path}"
