"""The command group `workflow db`: what is done to a store as a whole."""

from __future__ import annotations

import click

from checkpoint_plugin.cli.check import check
from checkpoint_plugin.cli.keys import rotate_key
from checkpoint_plugin.cli.layout import current, upgrade
from checkpoint_plugin.cli.size import size

__all__ = ["db"]


@click.group()
def db() -> None:
    """Look after a store: whether it is whole, what takes its space, its layout, its keys."""


db.add_command(check)
db.add_command(current)
db.add_command(rotate_key)
db.add_command(size)
db.add_command(upgrade)
