"""Commands about what is kept: `workflow prune`, `workflow savepoint RUN NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from checkpoint_plugin.cli.damaged import damage_document, end_with_damage
from checkpoint_plugin.cli.listing import print_listing
from checkpoint_plugin.cli.options import blobs_option, read_store, store_options
from checkpoint_plugin.cli.progress import telling
from checkpoint_plugin.retention import Retention, Thinning, read_duration

if TYPE_CHECKING:
    from checkpoint_plugin.space.housekeeping import PruneReport
    from checkpoint_plugin.store import Store

__all__ = ["prune", "savepoint"]


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A number of seconds, or text like 7d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return read_duration(float(value) if str(value).replace(".", "", 1).isdigit() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ThinRule(click.ParamType):  # type: ignore[type-arg]
    """Two durations: from which age on, and one of how long a time."""

    name = "thinning"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Thinning:
        if isinstance(value, Thinning):
            return value
        after, colon, every = str(value).partition(":")
        if not colon:
            self.fail(f"{value!r} is not AGE:TIME. For example: --thin 1d:1h", param, ctx)
        try:
            return Thinning(read_duration(after), read_duration(every))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the newest N checkpoints of each run.")
@click.option("--keep-for", type=Duration(), metavar="TIME", help="Keep checkpoints younger than this, like 12h or 7d.")
@click.option(
    "--thin",
    "thin",
    type=ThinRule(),
    multiple=True,
    metavar="AGE:TIME",
    help="Of checkpoints older than AGE keep the newest of every TIME, like 1d:1h; may be repeated.",
)
@click.option("--terminal-only", is_flag=True, help="Of finished runs keep only the end.")
@click.option("--drop-finished", type=Duration(), metavar="TIME", help="Delete runs that were finished longer ago than this.")
@blobs_option
@click.option("--dry-run", is_flag=True, help="Delete nothing; say what would be freed.")
@store_options
def prune(
    run_ids: Sequence[str],
    keep_last: int | None,
    keep_for: float | None,
    thin: tuple[Thinning, ...],
    terminal_only: bool,
    drop_finished: float | None,
    blobs: str | None,
    dry_run: bool,
    url: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Delete old checkpoints, of all runs or of those named, and give back the space.

    A checkpoint that any of the rules keeps stays, and always the newest of a run and its savepoints. It is safe while
    runs execute, and never takes what a kept checkpoint needs. Files of large values that a crash left over go, too, when
    they are older than an hour. Runs whose rows are damaged stay as they are, and are named on standard error, and with
    --json in "damaged".

    \b
    Examples:
      workflow prune --keep-last 10 --dry-run
      workflow prune --keep-for 7d --thin 1d:1h --drop-finished 30d

    \b
    Exit codes:
      0 done    5 the rows of some run are damaged, or the store cannot be used
    """
    rules = Retention(keep_last, keep_for, thin, terminal_only, drop_finished)
    if rules == Retention():
        raise click.UsageError("say what is kept: --keep-last, --keep-for, --thin, --terminal-only or --drop-finished.")

    async def work(store: Store) -> PruneReport:
        from checkpoint_plugin.space.housekeeping import prune

        tell = telling("looked at" if dry_run else "pruned", quiet)
        return await prune(rules, run_ids or None, store=store, dry_run=dry_run, tell=tell)

    report = read_store(url, work, blobs)
    listed = [
        {"run_id": found.run_id, "checkpoints": len(found.checkpoints), "dropped": found.dropped, "bytes": found.freed}
        for found in report.runs
    ]
    orphans = {"files": report.orphans.files, "bytes": report.orphans.size}
    document: dict[str, Any] = {
        "dry_run": dry_run,
        "runs": listed,
        "orphans": orphans,
        "bytes": report.freed,
        **damage_document(report.damaged),
    }
    print_listing(document, listed, ("run_id", "checkpoints", "dropped", "bytes"), as_json, quiet)
    if not as_json and not quiet:
        click.echo(f"{report.freed} bytes {'would be ' if dry_run else ''}freed")
    end_with_damage(report.damaged)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("name", metavar="NAME")
@click.option("--checkpoint", "number", type=click.IntRange(min=1), metavar="N", help="This checkpoint, not the newest.")
@click.option(
    "--remove", is_flag=True, help="Take the name away: the checkpoint may then get another, and retention may delete it."
)
@store_options
def savepoint(run_id: str, name: str, number: int | None, remove: bool, url: str | None, as_json: bool, quiet: bool) -> None:
    """Name a checkpoint of a run, so that retention never deletes it.

    One that has another name is refused until that is removed.

    \b
    Examples:
      workflow savepoint nightly before-migration
      workflow resume nightly --checkpoint 12
    """
    if remove and number is not None:
        raise click.UsageError("--remove takes the name away from the checkpoint that has it. Leave out --checkpoint.")

    async def work(store: Store) -> int:
        from checkpoint_plugin.space.savepoints import name_checkpoint, unname_checkpoint

        return await unname_checkpoint(store, run_id, name) if remove else await name_checkpoint(store, run_id, name, number)

    found = read_store(url, work)
    document = {"run_id": run_id, "name": None if remove else name, "number": found}
    print_listing(document, [document], ("run_id", "number", "name"), as_json, quiet)
