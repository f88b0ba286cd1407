"""Commands about stored runs: `workflow runs`, `workflow show RUN`, `workflow checkpoints RUN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import click

from checkpoint_plugin.bounds import LARGEST
from checkpoint_plugin.cli.damaged import damage_document, end_with_damage
from checkpoint_plugin.cli.listing import one_line, print_listing, shown_time
from checkpoint_plugin.cli.options import read_store, store_options
from hookspecs import RunStatus

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["checkpoints", "runs", "show"]


@click.command()
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(get_args(RunStatus)), help="Only of this status (repeatable)."
)
@click.option("--limit", type=click.IntRange(min=1, max=LARGEST), metavar="N", help="Only the newest N.")
@store_options
def runs(statuses: tuple[str, ...], limit: int | None, url: str | None, as_json: bool, quiet: bool) -> None:
    """List stored runs, newest first.

    Runs whose rows are damaged are named on standard error, and with --json in "damaged"; all others are listed.

    \b
    Example:
      workflow runs --status failed --status paused --json

    \b
    Exit codes:
      0 every run is listed    5 the row of some run is damaged, or the store cannot be used
    """
    from checkpoint_plugin.errors import StoreMissing

    try:
        rows, damaged = read_store(url, lambda store: store.readable_jobs(statuses, limit))
    except StoreMissing:
        rows, damaged = (), ()
    listed = [_run_document(row) for row in rows]
    document = {"runs": listed, **damage_document(damaged)}
    print_listing(document, listed, ("run_id", "status", "attempt", "created_at", "updated_at"), as_json, quiet)
    end_with_damage(damaged)


@click.command()
@click.argument("run_id", metavar="RUN")
@store_options
def show(run_id: str, url: str | None, as_json: bool, quiet: bool) -> None:
    """Show a stored run: its status and where each of its nodes stands.

    Of its checkpoints it tells the bytes that all of them wrote, how long the newest took from its cut to the database
    (save_seconds), and of a run that executes how old that cut is now (lag_seconds).

    \b
    Example:
      workflow show 019c0d3e-7c1a-7d22-b7e7-3f1c5d0e9a55
    """

    from checkpoint_plugin.codec import OutlineCodec

    async def read(store: Store) -> tuple[Any, Mapping[str, Any], Sequence[Any], Sequence[Any], Any]:
        return (
            await store.job(run_id),
            (await store.load_job(run_id)).graph,
            await store.node_states(run_id),
            await store.checkpoints(run_id),
            await store.holder(run_id),
        )

    row, graph, states, saved, held = read_store(url, read, codec=OutlineCodec())
    known = {state.node_id: state for state in states}
    nodes = [_node_document(node["id"], node["type"], known.pop(node["id"], None)) for node in graph["nodes"]]
    nodes += [_node_document(node_id, None, state) for node_id, state in sorted(known.items())]  # of a run without a graph
    document = {
        **_run_document(row),
        "completed_nodes": sum(node["status"] == "completed" for node in nodes),
        "checkpoints": len(saved),
        "bytes": sum(each.size_bytes for each in saved),
        "last_checkpoint": shown_time(saved[-1].created_at) if saved else None,
        "save_seconds": _seconds(saved[-1].created_at, saved[-1].written_at) if saved else None,
        "lag_seconds": _seconds(saved[-1].created_at, datetime.now(UTC)) if saved and row.status == "running" else None,
        "held_by": None if held is None else str(held[0]),
        "held_until": None if held is None else shown_time(held[1]),
    }
    if not as_json and not quiet:
        click.echo("\n".join(f"{key:16} {one_line(value)}" for key, value in document.items() if value is not None) + "\n")
    print_listing({**document, "nodes": nodes}, nodes, ("node_id", "type", "status", "attempt"), as_json, quiet)


@click.command()
@click.argument("run_id", metavar="RUN")
@store_options
def checkpoints(run_id: str, url: str | None, as_json: bool, quiet: bool) -> None:
    """List the checkpoints of a stored run, oldest first.

    \b
    Example:
      workflow checkpoints 019c0d3e-7c1a-7d22-b7e7-3f1c5d0e9a55 --json
    """

    async def read(store: Store) -> Sequence[Any]:
        await store.job(run_id)
        return await store.checkpoints(run_id)

    listed = [
        {
            "number": row.number,
            "reason": row.reason,
            "name": row.label,
            "created_at": shown_time(row.created_at),
            "nodes": row.nodes,
            "bytes": row.size_bytes,
            "seconds": _seconds(row.created_at, row.written_at),
            "attempt": row.attempt,
        }
        for row in read_store(url, read)
    ]
    document = {"run_id": run_id, "checkpoints": listed}
    shown = [{**each, "name": each["name"] or ""} for each in listed]
    print_listing(document, shown, ("number", "reason", "created_at", "nodes", "bytes", "name"), as_json, quiet)


def _run_document(row: Any) -> dict[str, Any]:
    return {
        "run_id": row.id,
        "status": row.status,
        "attempt": row.attempt,
        "created_at": shown_time(row.created_at),
        "updated_at": shown_time(row.updated_at),
        "finished_at": shown_time(row.finished_at),
        "error": row.error,
        "set_aside": row.set_aside,
        "degraded": row.degraded,
    }


def _seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else round(max(0.0, (end - start).total_seconds()), 3)


def _node_document(node_id: str, type_name: str | None, state: Any) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "type": type_name,
        "status": "idle" if state is None else state.status,
        "attempt": 1 if state is None else state.attempt,
        "started_at": None if state is None else shown_time(state.started_at),
        "completed_at": None if state is None else shown_time(state.completed_at),
        "error": None if state is None else state.last_error,
    }
