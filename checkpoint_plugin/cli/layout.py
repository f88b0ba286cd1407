"""The commands `workflow db current` and `workflow db upgrade`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from checkpoint_plugin.cli.listing import print_listing
from checkpoint_plugin.cli.options import read_store, store_options

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["current", "upgrade"]


@click.command()
@store_options
def current(url: str | None, as_json: bool, quiet: bool) -> None:
    """Tell of which layout the tables of a store are, and whether this program would upgrade them. Touches nothing.

    \b
    Example:
      workflow db current --url postgresql://localhost/runs
    """

    async def work(store: Store) -> dict[str, Any]:
        version, newest = await store.layout()
        return {"store": store.location.shown, "version": version, "newest": newest, "current": version == newest}

    document = read_store(url, work)
    print_listing(document, [document], ("version", "newest", "current"), as_json, quiet)


@click.command()
@store_options
def upgrade(url: str | None, as_json: bool, quiet: bool) -> None:
    """Bring the tables of a store up to date, in one transaction. Of several that do it at once one does, the others wait.

    A store on SQLite is upgraded when it is opened; one on PostgreSQL by this command, with the right to alter its tables,
    best when programs of the older version no longer use it.

    \b
    Example:
      workflow db upgrade --url postgresql://owner:password@localhost/runs
    """

    async def work(store: Store) -> dict[str, Any]:
        before, after = await store.upgrade()
        return {"store": store.location.shown, "before": before, "after": after}

    document = read_store(url, work)
    print_listing(document, [document], ("before", "after"), as_json, quiet)
