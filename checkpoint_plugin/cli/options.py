"""The flags of every command here, and how a command opens the store: it never creates one."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from checkpoint_plugin.codec import Codec
    from checkpoint_plugin.store import Store

__all__ = ["DAMAGED", "Seconds", "blobs_option", "read_store", "store_options"]

DAMAGED: Final = 5
"""The exit code where something stored is damaged."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A number of seconds in a range; `nan` is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds that a text says."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


def blobs_option(command: F) -> F:
    """Add `--blobs`, for commands that go to the files of large values."""
    told = "Where large values lie; default: WORKFLOW_CHECKPOINT_BLOBS, or beside the store."
    return click.option("--blobs", metavar="URL", help=told)(command)


def store_options(command: F) -> F:
    """Add the flags of every command here: `--url`, `--json`, `--quiet`."""
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


def read_store(url: str | None, work: Callable[[Store], Awaitable[T]], blobs: str | None = None, codec: Codec | None = None) -> T:
    """Open the store, never creating it, and read.

    Args:
        url: of the store, as the command was given it.
        work: reads.
        blobs: the url under which large values lie, where they do.
        codec: reads values; default: with the types of installed packages.
    """
    from checkpoint_plugin.blobs.files import Blobs
    from checkpoint_plugin.database.location import locate
    from checkpoint_plugin.store import Store

    async def main() -> T:
        location = locate(url)
        store = Store(location, create=False, codec=codec, blobs=Blobs(location, blobs))
        try:
            return await work(store)
        finally:
            await store.close()

    with redirect_stdout(sys.stderr):  # a package whose types are met may print when it is imported
        return asyncio.run(main())
