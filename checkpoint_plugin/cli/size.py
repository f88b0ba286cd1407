"""The command `workflow db size`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from checkpoint_plugin.cli.listing import print_listing
from checkpoint_plugin.cli.options import read_store, store_options

if TYPE_CHECKING:
    from checkpoint_plugin.space.size import RunSize
    from checkpoint_plugin.store import Store

__all__ = ["size"]

SHOWN: Final = 20


@click.command()
@click.option("--run", "run_id", metavar="RUN", help="Only this run, node by node.")
@store_options
def size(run_id: str | None, url: str | None, as_json: bool, quiet: bool) -> None:
    """Tell what takes the space of a store, by run and node, the largest first, and how much is free inside.

    A value that several nodes hold counts once, for the node that had it first. Space that `workflow prune` frees is given
    back to the system.

    \b
    Examples:
      workflow db size
      workflow db size --run nightly
    """
    from checkpoint_plugin.space.size import PARTS, measure_store

    async def work(store: Store) -> dict[str, Any]:
        found = await measure_store(store, run_id)
        return {
            "store": store.location.shown,
            "bytes": sum(found.disk.values()),
            "free": found.free,
            "disk": dict(found.disk),
            "runs": [_run_document(run) for run in found.runs],
        }

    document = read_store(url, work)
    if as_json or quiet:
        print_listing(document, (), (), as_json, quiet)
        return
    runs = document["runs"]
    rows = runs[0]["nodes"] if run_id is not None else runs[:SHOWN]
    columns = ("node_id", "bytes", "values", "files", "rows", "items") if run_id is not None else ("run_id", "bytes", *PARTS)
    print_listing(document, rows, columns, as_json, quiet)
    if run_id is None and len(runs) > SHOWN:
        click.echo(f"… and {len(runs) - SHOWN} smaller runs, {sum(run['bytes'] for run in runs[SHOWN:])} bytes")
    free = "" if document["free"] is None else f", {document['free']} of them free"
    parts = ", ".join(f"{name} {taken}" for name, taken in document["disk"].items())
    click.echo(f"{document['bytes']} bytes on the disk{free}: {parts}")


def _run_document(run: RunSize) -> dict[str, Any]:
    nodes = [
        {
            "node_id": node.node_id,
            "bytes": node.total,
            **{part: node.parts.get(part, 0) for part in ("values", "files", "rows", "items")},
        }
        for node in run.nodes
    ]
    return {"run_id": run.run_id, "bytes": run.total, **run.parts, "nodes": nodes}
