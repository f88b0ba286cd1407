"""`workflow plugins`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from hookspecs import PluginDescription, PluginHost, describe_plugins
from workflow_runner.cli.options import common_options
from workflow_runner.cli.report import print_json
from workflow_runner.cli.streams import printing_aside

__all__ = ["plugins"]


@click.command()
@common_options
@click.pass_obj
def plugins(host: PluginHost, as_json: bool, quiet: bool, blocked: tuple[str, ...]) -> int:
    """Import every installed plugin and tell what it is: version, hooks, blocked or broken and why.

    The hooks are those with default options. Nothing is opened or created.

    \b
    Examples:
      workflow plugins
      workflow plugins -p no:checkpoint
    """
    with printing_aside():  # a plugin may print when it is imported
        found = describe_plugins(host)
    if as_json:
        print_json({"plugins": [asdict(description) for description in found]})
    elif not quiet:
        for line in _lines(found):
            print(line)
    return 0


def _lines(found: Sequence[PluginDescription]) -> list[str]:
    if not found:
        return ["No plugins are installed. For checkpoints: pip install workflow-checkpoint"]
    lines = []
    for plugin in found:
        lines.append(f"{plugin.name}  {plugin.status}  ({plugin.distribution} {plugin.version})")
        for title, names in (
            ("hooks", plugin.hooks),
            ("stores", plugin.stores),
            ("commands", plugin.commands),
            ("nodes", plugin.nodes),
            ("codecs", plugin.codecs),
        ):
            if names:
                lines.append(f"    {title}: {', '.join(names)}")
        if plugin.error is not None:
            lines += [f"    {line}" for line in plugin.error.splitlines()]
    return lines
