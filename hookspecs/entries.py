"""Entry points of installed distributions: found without importing, loaded one at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hookspecs.errors import PluginBlocked, PluginConflict, PluginLoadFailed, text_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "CODECS",
    "COMMANDS",
    "DISABLE_VARIABLE",
    "GROUPS",
    "NODES",
    "PLUGINS",
    "STORES",
    "PluginEntry",
    "find_entries",
    "names_blocked_by_environment",
]

PLUGINS: Final = "workflow_runner"
STORES: Final = "workflow_runner.stores"
COMMANDS: Final = "workflow_runner.commands"
NODES: Final = "workflow_runner.nodes"
CODECS: Final = "workflow_runner.codecs"
GROUPS: Final = (PLUGINS, STORES, COMMANDS, NODES, CODECS)

DISABLE_VARIABLE: Final = "WORKFLOW_DISABLE_PLUGINS"
"""Names of plugins that are kept out, separated by commas."""


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """One name that one distribution gives to one group.

    Args:
        name: of the entry.
        group: of the entry.
        distribution: that has it.
        version: of the distribution.
        blocked_by: the name that keeps it out, `None` when nothing does.
        rivals: other distributions that claim the same name.
        point: what loads it.
    """

    name: str
    group: str
    distribution: str
    version: str
    blocked_by: str | None
    rivals: tuple[str, ...]
    point: EntryPoint

    def load(self) -> Any:
        """Import what the entry names.

        Raises:
            PluginBlocked: it is kept out; nothing was imported.
            PluginConflict: another distribution claims the same name; nothing was imported.
            PluginLoadFailed: it cannot be imported.
        """
        if self.blocked_by is not None:
            raise PluginBlocked(
                self.name,
                f"{self.name!r} of {self.distribution} is blocked by `-p no:{self.blocked_by}` or {DISABLE_VARIABLE}. "
                "Leave the block out, or do not ask for what it blocks.",
            )
        if self.rivals:
            claims = " and ".join((self.distribution, *self.rivals))
            raise PluginConflict(
                self.name,
                f"{claims} both bring {self.name!r} to {self.group!r}. Uninstall one of them: pip uninstall {self.distribution}",
            )
        try:
            return self.point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of `sys.exit`, or of another that is no Exception
            raise PluginLoadFailed(
                self.name,
                f"{self.name!r} ({self.point.value}) of {self.distribution} {self.version} cannot be imported: "
                f"{type(error).__name__}: {text_of(error)}. Repair the installation, or go on without it: -p no:{self.name}",
            ) from error


def find_entries(group: str, blocked: Iterable[str]) -> dict[str, PluginEntry]:
    """Every entry of one group, by name. Imports nothing of them.

    Args:
        group: of the entries.
        blocked: names of plugins. A command or a store is blocked with the plugin that its distribution brings, unless
            it bears the name of another plugin of that distribution; node types and codecs only by their own name.
    """
    blocks = {name: name for name in blocked}
    by_distribution: dict[str, str] = {}
    others: set[tuple[str, str]] = set()
    if blocks and group in (COMMANDS, STORES):
        plugins = _installed(PLUGINS)
        by_distribution = {found.distribution: found.point.name for found in plugins if found.point.name in blocks}
        others = {(found.distribution, found.point.name) for found in plugins if found.point.name not in blocks}
    claims: dict[str, list[_Found]] = {}
    for found in _installed(group):
        claims.setdefault(found.point.name, []).append(found)
    return {
        name: PluginEntry(
            name,
            group,
            found.distribution,
            found.version,
            blocks.get(name, None if (found.distribution, name) in others else by_distribution.get(found.distribution)),
            tuple(rival.distribution for rival in rivals),
            found.point,
        )
        for name, (found, *rivals) in claims.items()
    }


class _Found(NamedTuple):
    """An entry, and what brings it: the name and version of a distribution are parsed anew whenever they are asked for."""

    point: EntryPoint
    distribution: str
    version: str


def _installed(group: str) -> Sequence[_Found]:
    """The entries of one group; read again once anything was installed, or is looked for elsewhere."""
    from importlib.metadata import entry_points  # a twentieth of a second, for runs that enable something

    return _read(entry_points, group, tuple((path, _changed_at(path)) for path in sys.path), tuple(map(id, sys.meta_path)))


@lru_cache(maxsize=4 * len(GROUPS))
def _read(
    read: Callable[..., Iterable[EntryPoint]], group: str, places: Sequence[tuple[str, int]], finders: Sequence[int]
) -> Sequence[_Found]:
    """Every run asks for several groups, and for each the entries of all distributions are read: 2 ms with fifty of them."""
    return tuple(map(_find, read(group=group)))


def _find(point: EntryPoint) -> _Found:
    if point.dist is None:
        return _Found(point, "unknown", "unknown")
    return _Found(point, point.dist.name or "unknown", point.dist.version or "unknown")


def _changed_at(path: str) -> int:
    """When something last came into a folder or went, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(path or os.curdir).st_mtime_ns
    except OSError:
        return 0


def names_blocked_by_environment(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The names in WORKFLOW_DISABLE_PLUGINS, separated by commas."""
    return frozenset(name.strip() for name in environment.get(DISABLE_VARIABLE, "").split(",") if name.strip())
