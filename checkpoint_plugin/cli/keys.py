"""The command `workflow db rotate-key`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from checkpoint_plugin.cli.listing import print_listing
from checkpoint_plugin.cli.options import read_store, store_options

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["rotate_key"]


@click.command("rotate-key")
@store_options
def rotate_key(url: str | None, as_json: bool, quiet: bool) -> None:
    """Wrap the keys of all encrypted runs with a new master key; nothing else is written again.

    WORKFLOW_CHECKPOINT_KEY holds the new key and behind it the old one. When it is done, the old one is not needed any more.

    \b
    Example:
      WORKFLOW_CHECKPOINT_KEY="$NEW,$OLD" workflow db rotate-key
    """
    from checkpoint_plugin.errors import KeyMissing
    from checkpoint_plugin.runs.key_rotation import rotate_keys
    from checkpoint_plugin.stored_bytes.encryption import KeyRing

    ring = KeyRing.from_environment()
    if ring is None:
        raise KeyMissing("there is no key to rotate to. Set WORKFLOW_CHECKPOINT_KEY to the new key, then the old one.")

    async def work(store: Store) -> tuple[int, int]:
        return await rotate_keys(store, ring)

    changed, before = read_store(url, work)
    document = {"rewrapped": changed, "already": before}
    print_listing(document, [document], ("rewrapped", "already"), as_json, quiet)
