"""The command `workflow db check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from checkpoint_plugin.cli.listing import one_line, print_listing
from checkpoint_plugin.cli.options import DAMAGED, blobs_option, read_store, store_options
from checkpoint_plugin.cli.progress import telling

if TYPE_CHECKING:
    from checkpoint_plugin.checking.finding import Finding, StoreReport
    from checkpoint_plugin.store import Store

__all__ = ["check"]


@click.command()
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option(
    "--witness",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Compare with the witness here; default: the folder that is stored with a run.",
)
@blobs_option
@store_options
def check(run_ids: Sequence[str], witness: Path | None, blobs: str | None, url: str | None, as_json: bool, quiet: bool) -> None:
    """Verify everything that is stored, of all runs or of those named. Changes nothing.

    Every digest, the hash of every checkpoint, every value, the tables for plain SQL, SQLite's own structure, and the
    witness where there is one. Of encrypted runs without their key, the rows but not the values; it says so.

    \b
    Examples:
      workflow db check
      workflow db check nightly --json

    \b
    Exit codes:
      0 nothing is damaged    5 something is, or the store is missing
    """
    from checkpoint_plugin.checking.store_check import check_store

    async def work(store: Store) -> StoreReport:
        return await check_store(store, run_ids, witness, telling("checked", quiet))

    report = read_store(url, work, blobs)
    findings = report.all_findings
    if not as_json and not quiet:
        for found in findings:
            click.echo(f"{_where(found)}: {one_line(found.what)}. {one_line(found.advice)}")
        for each in report.unverified:
            click.echo(f"Not verified: run {one_line(each.run_id)}: {one_line(each.what)}", err=True)
        count = sum(len(run.checkpoints) for run in report.runs)
        told = "nothing is damaged" if not findings else _counted(len(findings), "finding")
        click.echo(f"{_counted(len(report.runs), 'run')}, {_counted(count, 'checkpoint')}: {told}")
    print_listing(_document(report), (), (), as_json, quiet or not as_json)
    if findings:
        click.get_current_context().exit(DAMAGED)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _where(found: Finding) -> str:
    if found.run_id is None:
        return "the database"
    number = "" if found.number is None else f", checkpoint {found.number}"
    node = "" if found.node_id is None else f", node {one_line(found.node_id)}"
    return f"run {one_line(found.run_id)}{number}{node}"


def _document(report: StoreReport) -> dict[str, Any]:
    return {
        "intact": not report.all_findings,
        "runs": [
            {
                "run_id": run.run_id,
                "checkpoints": len(run.checkpoints),
                "damaged": sorted(run.damaged),
                "newest_intact": run.newest_intact,
            }
            for run in report.runs
        ],
        "findings": [
            {
                "run_id": found.run_id,
                "checkpoint": found.number,
                "node_id": found.node_id,
                "what": found.what,
                "advice": found.advice,
            }
            for found in report.all_findings
        ],
        "unverified": [{"run_id": each.run_id, "what": each.what} for each in report.unverified],
    }
