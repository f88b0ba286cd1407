"""The command `workflow recover`."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import click

from checkpoint_plugin.cli.listing import one_line, print_listing
from checkpoint_plugin.cli.options import Seconds, store_options
from checkpoint_plugin.retention import LONGEST
from hookspecs import PluginHost

if TYPE_CHECKING:
    from checkpoint_plugin.recovery.resumption import RecoveryOutcome
    from hookspecs import StoreError

__all__ = ["recover"]

UNWELL: Final = frozenset({"failed", "refused", "died", "set_aside"})
STOPPING: Final = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else ()))
"""Besides SIGINT: asyncio cancels what it runs, and leaves at once at the second. Windows has no terminals that hang up."""


@click.command()
@click.option(
    "--nodes", multiple=True, metavar="PATH_OR_MODULE", help="A Python file or module with node types; may be repeated."
)
@click.option("--watch", is_flag=True, help="Go on looking until stopped; with --json, one object a line.")
@click.option(
    "--interval",
    type=Seconds(min=0.05),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks, with --watch.",
)
@click.option(
    "--max-age",
    type=Seconds(min=0, max=LONGEST),
    default=0.0,
    show_default=True,
    metavar="S",
    help="Leave alone a run that gave a sign of life within these seconds.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Set a run aside after N recoveries that came to no end.",
)
@click.option(
    "--at-once", type=click.IntRange(min=1), default=4, show_default=True, metavar="N", help="Execute N runs at the same time."
)
@click.option("--paused", is_flag=True, help="Also resume runs that were stopped, by a signal for example.")
@store_options
@click.make_pass_decorator(PluginHost, ensure=True)
def recover(
    host: PluginHost,
    nodes: Sequence[str],
    watch: bool,
    interval: float,
    max_age: float,
    max_attempts: int,
    at_once: int,
    paused: bool,
    url: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Resume every run whose process is gone, every suspended run whose time has come, and every one that was answered.

    Each is executed by a process of its own, as by `workflow resume`. Any number of these may run on any number of hosts:
    of several, one resumes a run.

    \b
    Examples:
      workflow recover --nodes mynodes.py
      workflow recover --nodes mynodes.py --watch --url postgresql://localhost/runs

    \b
    Exit codes:
      0 nothing was left, or all were resumed    1 some failed, could not be resumed, or were set aside
      5 the store cannot be used    129, 130, 143 stopped by a signal: what was executed was saved
    """
    from checkpoint_plugin.recovery.service import RecoveryService

    service = RecoveryService(url=url, nodes=nodes, max_attempts=max_attempts, blocked=host.blocked)
    told: list[str] = []
    found: list[dict[str, Any]] = []

    def trouble(error: StoreError) -> None:
        if told[-1:] != [str(error)]:  # the same again and again tells nothing
            told[:] = [str(error)]
            click.echo(f"Warning: {error}", err=True)

    async def main() -> int:
        task, loop, stopped = asyncio.current_task(), asyncio.get_running_loop(), list[int]()
        assert task is not None

        def stop(number: int) -> None:
            stopped.append(number)
            if not task.cancelling():  # told again, it waits all the same for its runs to be saved, and leaves them for the next
                task.cancel()

        # No handlers of the event loop: on Windows it has none.
        before = {
            number: signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(stop, number))
            for number in STOPPING
            if signal.getsignal(number) != signal.SIG_IGN  # as under `nohup`
        }
        seconds = interval if watch else None
        heard = trouble if watch else None
        outcomes = service.recover(max_age, at_once=at_once, paused=paused, watch_seconds=seconds, trouble=heard)
        try:
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    told.clear()
                    _tell(outcome, as_json and watch, quiet or as_json)
                    if not watch:
                        found.append(_document(outcome))
        except asyncio.CancelledError:
            return 128 + (stopped[0] if stopped else signal.SIGINT)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 1 if any(row["status"] in UNWELL for row in found) else 0

    code = asyncio.run(main())
    if as_json and not watch:
        print_listing({"runs": found}, found, (), as_json, quiet)
    return code


def _tell(outcome: RecoveryOutcome, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps(_document(outcome)))
    elif not quiet:
        why = f": {one_line(outcome.error)}" if outcome.error else ""
        click.echo(f"run {one_line(outcome.run_id)}: {outcome.status.replace('_', ' ')}{why}")


def _document(outcome: RecoveryOutcome) -> dict[str, Any]:
    return {"run_id": outcome.run_id, "status": outcome.status, "error": outcome.error}
