"""`workflow answer RUN NODE=JSON`: bring what suspended nodes wait for, without going on with their run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from checkpoint_plugin.cli.options import read_store, store_options

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["answer"]

EXAMPLES: Final = """approve=true, or 'name="Ada"', or report=@report.json"""
EXAMPLE_TIME: Final = "2027-01-01T12:00:00+00:00"


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("answers", metavar="NODE=JSON...", nargs=-1, required=True)
@click.option(
    "--since",
    metavar="NODE=TIME",
    multiple=True,
    help="Answer NODE only if it has waited since TIME, as `workflow suspended` tells it: where somebody else was faster, and it "
    "waits for something else by now, nothing is changed; may be repeated.",
)
@store_options
def answer(run_id: str, answers: Sequence[str], since: Sequence[str], url: str | None, as_json: bool, quiet: bool) -> None:
    """Answer what nodes of a stored run wait for, all of them or none; NODE=@FILE reads a file.

    The answers are durable when this returns. A process that executes the run, because other nodes do not need these, takes them
    within about a second. Without one the run goes on when it is resumed, which `workflow recover --watch` does by itself.

    \b
    Examples:
      workflow answer order-17 approve=true
      workflow answer order-17 approve=true --since approve=2027-01-01T12:00:00.000007+00:00

    \b
    Exit codes:
      0 they are answered      2 a node waits for no answer, or for another one; nothing was changed
      4 somebody else writes the run all the time; nothing was changed
      5 there is no such run, or the store cannot be used
    """
    given = {node_id: _read(node_id, text) for node_id, text in _parts(answers, "NODE=JSON", EXAMPLES)}
    asked = {node_id: _read_time(node_id, text) for node_id, text in _parts(since, "NODE=TIME", f"approve={EXAMPLE_TIME}")}
    if other := sorted(asked.keys() - given.keys()):
        raise click.BadParameter(f"node {other[0]!r} is given no answer. Give it one, or leave it out.", param_hint="--since")

    async def work(store: Store) -> str | None:
        from checkpoint_plugin.runs.answers import answer_nodes

        return await answer_nodes(store, run_id, given, since=asked)

    executes = read_store(url, work)
    if as_json:
        click.echo(json.dumps({"run_id": run_id, "answered": list(given), "executed_by": executes}))
    elif not quiet:
        named = ", ".join(given)
        if executes is None:
            click.echo(f"{named}: answered. Go on with the run: workflow resume {quote(run_id)}")
        else:
            click.echo(f"{named}: answered. The run goes on with it where it is executed, by {executes}.")


def _parts(texts: Iterable[str], shape: str, example: str) -> Iterator[tuple[str, str]]:
    """What stands before the first equals sign of each, and what after it."""
    seen: set[str] = set()
    for text in texts:
        node_id, equals, value = text.partition("=")
        if not node_id or not equals:
            raise click.BadParameter(f"{text!r} is not {shape}. For example: {example}")
        if node_id in seen:
            raise click.BadParameter(f"node {node_id!r} is given twice. Give it once.")
        seen.add(node_id)
        yield node_id, value


def _read(node_id: str, text: str) -> Any:
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise click.BadParameter(f"node {node_id!r}: the file {text[1:]!r} cannot be read: {reason}.") from error
        return _loads(text, f"node {node_id!r}: the file is not JSON")
    quoted = quote(f"{node_id}={json.dumps(text)}")
    return _loads(text, f"node {node_id!r}: {text!r} is not JSON. Text needs quotes: {quoted}")


def _loads(text: str, complaint: str) -> Any:
    def refuse(token: str) -> NoReturn:
        raise ValueError(f"{token} is not a JSON value")

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{complaint} ({error})") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key of an object is there twice")
    return found


def _read_time(node_id: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.utcoffset() is None:
        example = f"--since {quote(node_id)}={EXAMPLE_TIME}"
        raise click.BadParameter(f"{text!r} is no time with a zone. For example: {example}", param_hint="--since")
    return moment
