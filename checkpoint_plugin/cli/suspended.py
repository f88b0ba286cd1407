"""The command `workflow suspended`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from checkpoint_plugin.cli.listing import print_listing, shown_time
from checkpoint_plugin.cli.options import read_store, store_options
from hookspecs import to_tagged

if TYPE_CHECKING:
    from checkpoint_plugin.runs.suspended_nodes import SuspendedNode
    from checkpoint_plugin.store import Store

__all__ = ["suspended"]


@click.command()
@store_options
def suspended(url: str | None, as_json: bool, quiet: bool) -> None:
    """List the nodes that wait for an answer or a time, those that wait for the longest time first.

    \b
    Examples:
      workflow suspended
      workflow resume RUN --set NODE=JSON
    """
    from checkpoint_plugin.errors import StoreMissing

    async def read(store: Store) -> Sequence[SuspendedNode]:
        from checkpoint_plugin.runs.suspended_nodes import fetch_suspended_nodes

        return await fetch_suspended_nodes(store)

    try:
        found = read_store(url, read)
    except StoreMissing:
        found = []
    listed = [_document(node) for node in found]
    shown = [{**row, "metadata": json.dumps(row["metadata"]) if row["metadata"] else ""} for row in listed]
    shown = [{name: "" if value is None else value for name, value in row.items()} for row in shown]
    if as_json:
        print_listing({"suspended": listed}, listed, (), as_json, quiet)
    else:
        print_listing({}, shown, ("run_id", "node_id", "reason", "since", "wake_at", "metadata"), as_json, quiet)


def _document(node: SuspendedNode) -> dict[str, Any]:
    return {
        "run_id": node.run_id,
        "node_id": node.node_id,
        "reason": node.reason,
        "since": shown_time(node.since),
        "wake_at": shown_time(node.wake_at),
        "due": node.due,
        "metadata": to_tagged(node.metadata),
    }
