"""Commands about stored runs: `workflow runs`, `workflow show RUN`, `workflow checkpoints RUN`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["checkpoints", "runs", "show"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _common(command: F) -> F:
    """The flags of every command here."""
    for option in (
        click.option("--quiet", is_flag=True, help="Print nothing but errors (and the JSON, with --json)."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--url",
            metavar="URL",
            help="The store; default: WORKFLOW_CHECKPOINT_URL, else sqlite:///.workflow/checkpoints.db.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@_common
def runs(url: str | None, as_json: bool, quiet: bool) -> None:
    """List stored runs, newest first.

    \b
    Example:
      workflow runs --json
    """
    from checkpoint_plugin.errors import StoreMissing

    try:
        rows = _read(url, lambda store: store.jobs())
    except StoreMissing:
        rows = []
    listed = [_run(row) for row in rows]
    _print({"runs": listed}, listed, ("run_id", "status", "attempt", "created_at", "updated_at"), as_json, quiet)


@click.command()
@click.argument("run_id", metavar="RUN")
@_common
def show(run_id: str, url: str | None, as_json: bool, quiet: bool) -> None:
    """Show a stored run: its status and where each of its nodes stands.

    \b
    Example:
      workflow show 019c0d3e-7c1a-7d22-b7e7-3f1c5d0e9a55
    """

    async def read(store: Store) -> tuple[Any, Any, Sequence[Any], Sequence[Any]]:
        return (
            await store.job(run_id),
            await store.load_job(run_id),
            await store.node_states(run_id),
            await store.checkpoints(run_id),
        )

    row, job, states, saved = _read(url, read)
    known = {state.node_id: state for state in states}
    nodes = [_node(node, known.get(node["id"])) for node in job.graph["nodes"]]
    document = {**_run(row), "checkpoints": len(saved), "last_checkpoint": _time(saved[-1].created_at) if saved else None}
    if not as_json and not quiet:
        click.echo("\n".join(f"{key:16} {_line(value)}" for key, value in document.items() if value is not None) + "\n")
    _print({**document, "nodes": nodes}, nodes, ("node_id", "type", "status", "attempt"), as_json, quiet)


@click.command()
@click.argument("run_id", metavar="RUN")
@_common
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
            "created_at": _time(row.created_at),
            "nodes": row.nodes,
            "bytes": row.size_bytes,
            "attempt": row.attempt,
        }
        for row in _read(url, read)
    ]
    document = {"run_id": run_id, "checkpoints": listed}
    _print(document, listed, ("number", "reason", "created_at", "nodes", "bytes"), as_json, quiet)


def _read(url: str | None, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open the store, never creating it, and read."""
    from checkpoint_plugin.location import locate
    from checkpoint_plugin.store import Store

    async def main() -> T:
        store = Store(locate(url), create=False)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def _run(row: Any) -> dict[str, Any]:
    return {
        "run_id": row.id,
        "status": row.status,
        "attempt": row.attempt,
        "created_at": _time(row.created_at),
        "updated_at": _time(row.updated_at),
        "finished_at": _time(row.finished_at),
        "error": row.error,
    }


def _node(node: Mapping[str, Any], state: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"node_id": node["id"], "type": node["type"], "status": "idle", "attempt": 1}
    if state is not None:
        found.update(
            status=state.status,
            attempt=state.attempt,
            started_at=_time(state.started_at),
            completed_at=_time(state.completed_at),
            error=state.last_error,
        )
    return found


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _line(value: object) -> str:
    """A value on one line of a terminal: ids and errors may hold line breaks and escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def _print(
    document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool, quiet: bool
) -> None:
    if as_json:
        click.echo(json.dumps(document))
    elif not quiet:
        table = [columns, *([_line(row[name]) for name in columns] for row in rows)]
        widths = [max(len(row[place]) for row in table) for place in range(len(columns))]
        for row in table:
            click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
