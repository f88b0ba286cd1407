"""`workflow fork RUN NEW`: another run from a checkpoint of a run."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import click

from checkpoint_plugin.cli.listing import print_listing
from checkpoint_plugin.cli.options import blobs_option, read_store, store_options

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["fork"]


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("new_id", metavar="NEW")
@click.option(
    "--checkpoint",
    "number",
    type=click.IntRange(min=1),
    metavar="N",
    help="Begin at this checkpoint, not at the newest.",
)
@blobs_option
@store_options
def fork(run_id: str, new_id: str, number: int | None, blobs: str | None, url: str | None, as_json: bool, quiet: bool) -> None:
    """Make another run, NEW, that begins where a run stood in one of its checkpoints. RUN stays as it is.

    NEW has the same graph, inputs and options, and all that was done up to the checkpoint; `workflow resume NEW` goes on
    with it. Its steps have idempotency keys of their own: what RUN has done outside since the checkpoint is done again.

    \b
    Examples:
      workflow fork nightly nightly-again --checkpoint 12
      workflow resume nightly-again --nodes mynodes.py

    \b
    Exit codes:
      0 done    2 NEW is taken, or no id; RUN has no checkpoint to go on from, or values of types of your own
      5 there is no such run or checkpoint, its rows are damaged, or the store cannot be used
    """

    async def work(store: Store) -> int:
        from checkpoint_plugin.errors import NotForkable, ValueNotReadable
        from checkpoint_plugin.runs.forking import fork_run

        try:
            return await fork_run(run_id, new_id, number, store=store)
        except ValueNotReadable as error:  # its advice is for commands that load nodes
            why = f"{error.place or 'a value'} needs a type or library that is not there for this command"
            raise NotForkable(
                run_id, f"{why}. In Python import the module of the type, and call checkpoint_plugin.fork_run"
            ) from error

    found = read_store(url, work, blobs)
    document = {"run_id": new_id, "of": run_id, "checkpoint": found}
    print_listing(document, [document], ("run_id", "of", "checkpoint"), as_json, quiet)
    if not as_json and not quiet:
        click.echo(f"go on with it: workflow resume {quote(new_id)}")
