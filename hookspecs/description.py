"""What is installed, for people: the only place that imports every plugin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hookspecs.contract import hooks_of
from hookspecs.entries import CODECS, COMMANDS, NODES, PLUGINS, STORES, PluginEntry
from hookspecs.errors import PluginBlocked, PluginOptionsInvalid, WorkflowError
from hookspecs.host import PluginHost

__all__ = ["PluginDescription", "describe_plugins"]


@dataclass(frozen=True, slots=True)
class PluginDescription:
    """A plugin, or a distribution that brings none but something else.

    Args:
        name: by which a workflow enables it; of a distribution without a plugin, the distribution's.
        distribution: that brings it; `None` for one registered in code.
        version: of the distribution.
        status: `blocked` means that nothing of it was imported; `broken`, that it cannot be used, or something else that its
            distribution brings.
        hooks: that it implements with its default options.
        error: why it is broken, what blocks it, or which options its hooks depend on; then what else is broken.
        stores: names of its distribution's entries in that group.
        commands: likewise.
        nodes: likewise.
        codecs: likewise.
    """

    name: str
    distribution: str | None
    version: str | None
    status: Literal["ok", "blocked", "broken"]
    hooks: tuple[str, ...] = ()
    error: str | None = None
    stores: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    codecs: tuple[str, ...] = ()


def describe_plugins(host: PluginHost) -> list[PluginDescription]:
    """Import everything that is installed and not blocked, and tell what it is. Opens nothing."""
    descriptions = [
        PluginDescription(name, None, None, "blocked" if host.blocks(name) else "ok", hooks_of(plugin))
        for name, plugin in host.registered().items()
    ]
    plugins = host.entries(PLUGINS)
    descriptions += [_describe(host, name, entry) for name, entry in plugins.items()]
    with_plugin = {entry.distribution for entry in plugins.values()}
    others = {e.distribution: e for group in (STORES, COMMANDS, NODES, CODECS) for e in host.entries(group).values()}
    descriptions += [_describe(host, name, entry) for name, entry in others.items() if name not in with_plugin]
    return descriptions


def _describe(host: PluginHost, name: str, entry: PluginEntry) -> PluginDescription:
    status: Literal["ok", "blocked", "broken"] = "ok"
    told: list[str] = []
    hooks: tuple[str, ...] = ()
    companions = {
        group: [e for e in host.entries(group).values() if e.distribution == entry.distribution]
        for group in (STORES, COMMANDS, NODES, CODECS)
    }
    try:
        if entry.group == PLUGINS:
            hooks = hooks_of(host.make(name, {}))
    except PluginBlocked as refused:
        status, told = "blocked", [str(refused)]
    except PluginOptionsInvalid as needed:
        told.append(str(needed))  # it works, but not without options
    except WorkflowError as broken:
        status, told = "broken", [str(broken)]
    for companion in (e for group in companions.values() for e in group if e.blocked_by is None and status != "blocked"):
        try:
            companion.load()
        except WorkflowError as broken:
            status = "broken"
            told.append(str(broken))
    stores, commands, nodes, codecs = (tuple(e.name for e in group) for group in companions.values())
    error = "\n".join(told) or None
    return PluginDescription(name, entry.distribution, entry.version, status, hooks, error, stores, commands, nodes, codecs)
