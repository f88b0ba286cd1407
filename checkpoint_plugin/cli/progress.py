"""What commands that may take long tell on standard error, now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import click

__all__ = ["telling"]

SILENT_SECONDS: Final = 2.0


def telling(done_word: str, quiet: bool) -> Callable[[int, int], None]:
    """What is to be called after every run with how many are done, and how many there are.

    Args:
        done_word: what is done with a run, as "checked".
        quiet: tell nothing.
    """
    told = time.monotonic()

    def tell(done: int, count: int) -> None:
        nonlocal told
        if not quiet and time.monotonic() - told >= SILENT_SECONDS:
            told = time.monotonic()
            click.echo(f"{done} of {count} runs are {done_word}", err=True)

    return tell
