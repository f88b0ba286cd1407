"""`workflow cancel RUN`: nobody goes on with a run any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from checkpoint_plugin.cli.listing import print_listing
from checkpoint_plugin.cli.options import read_store, store_options

if TYPE_CHECKING:
    from checkpoint_plugin.models import Job
    from checkpoint_plugin.store import Store

__all__ = ["cancel"]


@click.command()
@click.argument("run_id", metavar="RUN")
@store_options
def cancel(run_id: str, url: str | None, as_json: bool, quiet: bool) -> None:
    """Cancel a stored run: no resume and no recovery goes on with it any more, and it takes no answers.

    One that is executed stops at its next sign of life, a third of its lease_seconds later. What was saved stays, and can
    be forked.

    \b
    Example:
      workflow cancel order-17

    \b
    Exit codes:
      0 it is cancelled, also where it was before    2 it is completed
      5 there is no such run, or the store cannot be used
    """

    async def work(store: Store) -> str:
        from checkpoint_plugin.runs.jobs import JobRepository

        return (await JobRepository(store=store).change(run_id, _cancelled)).status

    document = {"run_id": run_id, "status": read_store(url, work)}
    print_listing(document, [document], ("run_id", "status"), as_json, quiet)


def _cancelled(job: Job) -> None:
    if job.status != "cancelled":
        job.mark_cancelled()
