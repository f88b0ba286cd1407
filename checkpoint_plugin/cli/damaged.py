"""What commands over many runs tell of those that are damaged: they are named, and the others are not hidden by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from checkpoint_plugin.cli.listing import one_line
from checkpoint_plugin.cli.options import DAMAGED

if TYPE_CHECKING:
    from checkpoint_plugin.errors import StoreDamaged

__all__ = ["damage_document", "end_with_damage"]


def damage_document(damaged: Sequence[StoreDamaged]) -> dict[str, Any]:
    """What the JSON of a command tells of them; nothing where there are none."""
    return {"damaged": [{"run_id": error.run_id, "what": error.what} for error in damaged]} if damaged else {}


def end_with_damage(damaged: Sequence[StoreDamaged]) -> None:
    """Name them on standard error, and end the command with exit code 5; harmless where there are none."""
    for error in damaged:
        click.echo(f"Error: {one_line(error)}", err=True)
    if damaged:
        click.get_current_context().exit(DAMAGED)
