"""The command `workflow events RUN`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from checkpoint_plugin.bounds import LARGEST
from checkpoint_plugin.cli.listing import one_line, print_listing, shown_time
from checkpoint_plugin.cli.options import read_store, store_options
from checkpoint_plugin.cli.unread import is_unread

if TYPE_CHECKING:
    from checkpoint_plugin.events.log import EventRecord
    from checkpoint_plugin.store import Store

__all__ = ["events"]

FOLLOW_SECONDS: Final = 0.25
ENABLING: Final = "--enable 'checkpoint={\"events\": true}'"
COLUMNS: Final = ("seq", "time", "kind", "node_id", "payload")


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only events of this kind; may be repeated.")
@click.option("--node", "node_id", metavar="NODE", help="Only events of this node.")
@click.option("--after", type=click.IntRange(max=LARGEST), metavar="SEQ", help="Only events with a higher number.")
@click.option("--follow", is_flag=True, help="Go on until the run has ended, or nobody reads; with --json, one object a line.")
@store_options
def events(
    run_id: str,
    kinds: Sequence[str],
    node_id: str | None,
    after: int | None,
    follow: bool,
    url: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show the event log of a run that was started with the option `events` of checkpoint.

    \b
    Example:
      workflow events 019c0d3e-7c1a-7d22-b7e7-3f1c5d0e9a55 --follow
    """
    output = sys.stdout

    async def read(store: Store) -> Sequence[EventRecord]:
        found = await _events(store, run_id, kinds, node_id, after)
        if not found:
            await _is_over(store, run_id)
        return found

    async def follow_run(store: Store) -> None:
        seen = after
        while True:
            over = await _is_over(store, run_id)
            for record in await _events(store, run_id, kinds, node_id, seen):
                seen = record.seq
                if as_json:
                    click.echo(json.dumps(_document(record)), file=output)
                elif not quiet:
                    click.echo("  ".join(one_line(value) for value in _row(record).values()), file=output)
            if over or is_unread(output):
                return
            await asyncio.sleep(FOLLOW_SECONDS)

    if follow:
        read_store(url, follow_run)
        return
    found = read_store(url, read)
    document = {"run_id": run_id, "events": [_document(record) for record in found]}
    print_listing(document, [_row(record) for record in found], COLUMNS, as_json, quiet)
    if not found and after is None and node_id is None and not (kinds or quiet or as_json):
        message = f"run {one_line(run_id)!r} has no events. It has a log if it is started with the option, as in {ENABLING}."
        click.echo(message, err=True)


async def _events(
    store: Store, run_id: str, kinds: Sequence[str], node_id: str | None, after: int | None
) -> Sequence[EventRecord]:
    from checkpoint_plugin.events.log import EventLogger

    return await EventLogger(run_id, store=store).events(kinds or None, node_id, after)


async def _is_over(store: Store, run_id: str) -> bool:
    """Whether nothing more happens; a run without a row may have a log all the same."""
    from checkpoint_plugin.events.log import EventLogger
    from hookspecs import RunNotFound

    try:
        job = await store.job(run_id)
    except RunNotFound:
        if not await EventLogger(run_id, store=store).events(limit=1):
            raise
        return False
    return job.status not in ("scheduled", "running", "recovering")


def _document(record: EventRecord) -> dict[str, Any]:
    from hookspecs import to_tagged

    return {
        "seq": record.seq,
        "kind": record.kind,
        "node_id": record.node_id,
        "time": shown_time(record.time),
        "payload": to_tagged(dict(record.payload)),
    }


def _row(record: EventRecord) -> Mapping[str, Any]:
    document = _document(record)
    shown = {name: "" if document[name] is None else document[name] for name in COLUMNS}
    return {**shown, "payload": json.dumps(document["payload"]) if document["payload"] else ""}
