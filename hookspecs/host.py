"""`PluginHost`: where plugins are found and registered, and what one run gets of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import pluggy

from hookspecs.binding import NO_HOOKS, RunHooks, bind_hooks
from hookspecs.codecs import CodecRegistry, TeachCodecs
from hookspecs.contract import HOOK_ARGUMENTS, SPEC_CLASSES, check_plugin, marked
from hookspecs.entries import CODECS, NODES, PLUGINS, STORES, PluginEntry, find_entries, names_blocked_by_environment
from hookspecs.errors import (
    PluginBlocked,
    PluginConflict,
    PluginError,
    PluginInvalid,
    PluginLoadFailed,
    PluginMissing,
    PluginOptionsInvalid,
    WorkflowError,
    text_of,
)
from hookspecs.markers import PROJECT
from hookspecs.run import RunLoader

__all__ = ["PluginHost", "StoreFactory"]

logger = logging.getLogger("hookspecs")

StoreFactory = Callable[[str | None], RunLoader]

KNOWN_DISTRIBUTIONS: Final = {"checkpoint": "workflow-checkpoint"}
"""What to install for a plugin that is missing."""


@dataclass(frozen=True, slots=True)
class Registered:
    plugin: object
    store: StoreFactory | None


class PluginHost:
    """Finds plugins and binds them to runs. Making one imports and looks up nothing.

    Args:
        blocked: names of plugins that are not even imported; those in WORKFLOW_DISABLE_PLUGINS join them.

    Raises:
        TypeError: `blocked` is one text.
    """

    def __init__(self, blocked: Iterable[str] = ()) -> None:
        if isinstance(blocked, str):
            raise TypeError(f"blocked is a list of names, not the text {blocked!r}. Give [{blocked!r}].")
        self._blocked = frozenset(blocked) | names_blocked_by_environment()
        self._registered: dict[str, Registered] = {}
        self._found: dict[str, dict[str, PluginEntry]] = {}

    def register(self, plugin: object, name: str, *, store: StoreFactory | None = None) -> PluginHost:
        """Add a plugin made in code: every run hears it that does not switch it off.

        Args:
            plugin: an object with methods marked `@hookimpl`, shared by all runs of this host.
            name: must not be taken in this host; it hides an installed plugin of the same name.
            store: how its stored runs are read, as an entry of `workflow_runner.stores`.

        Returns:
            The host, so that calls can be chained.

        Raises:
            PluginInvalid: it breaks the contract of the hooks.
            PluginConflict: the name is taken, or the object is registered under another.
        """
        check_plugin(plugin, name)
        if name in self._registered:
            raise PluginConflict(name, f"a plugin {name!r} is registered already. Choose another name.")
        for other, registered in self._registered.items():
            if registered.plugin is plugin:
                raise PluginConflict(name, f"plugin {name!r} is registered already, as {other!r}. Register it once.")
        self._registered[name] = Registered(plugin, store)
        return self

    def bind(self, enable: Mapping[str, object]) -> RunHooks:
        """Make the plugins of one run and bind their hooks.

        Args:
            enable: by plugin name `True`, options, or `False` or `None` for off.

        Raises:
            PluginMissing: an enabled plugin is not installed.
            PluginBlocked: an enabled plugin is blocked.
            PluginLoadFailed: an enabled plugin cannot be imported or made.
            PluginOptionsInvalid: its options are refused.
            PluginInvalid: it breaks the contract of the hooks.
            PluginConflict: two distributions claim its name, or two plugins answer one provider hook.
        """
        if not enable and not self._registered:
            return NO_HOOKS
        plugins = {
            name: registered.plugin
            for name, registered in self._registered.items()
            if name not in self._blocked and _is_on(enable.get(name, True))
        }
        for name, wanted in enable.items():
            if not _is_on(wanted):
                continue
            options = _options(name, wanted)
            if name in self._registered:
                self._check_registered(name, options)
            else:
                plugins[name] = self.make(name, options)
        return _bind(plugins)

    def store_named(self, enable: Mapping[str, object]) -> str | None:
        """The plugin with a store of runs that a caller switches on, blocked or not; `None` for none, and for several.

        Args:
            enable: as in `bind`.
        """
        wanted = {name for name, options in enable.items() if _is_on(options)}
        own = {name for name in wanted if name in self._registered and self._registered[name].store is not None}
        others = wanted - self._registered.keys()
        named = own or (others and others & self.entries(STORES).keys())
        return next(iter(named)) if len(named) == 1 else None

    def store_factory(self, name: str | None = None) -> tuple[str, StoreFactory]:
        """The store from which runs are resumed.

        Args:
            name: of the plugin that brings it; `None` for the only one there is.

        Returns:
            The plugin's name, and what makes a loader from a url.

        Raises:
            PluginMissing: there is none.
            PluginConflict: there are several.
            PluginBlocked, PluginLoadFailed: it cannot be used.
        """
        own = {n: r.store for n, r in self._registered.items() if r.store is not None and n not in self._blocked}
        if (store := _only_store(own, name)) is not None:
            return store
        entries = self.entries(STORES)
        if name is not None and name not in entries and name in self._blocked:
            raise _blocked(name)
        usable = {n: e for n, e in entries.items() if n == name or (name is None and e.blocked_by is None)}
        if (entry := _only_store(usable, name)) is not None:
            return entry[0], entry[1].load()
        if name is None and (blocked := [entry for entry in entries.values() if entry.blocked_by is not None]):
            blocked[0].load()  # refuses, naming the block
        wanted = name or "checkpoint"
        raise PluginMissing(wanted, f"no plugin with a store of runs is installed. {_how_to_install(wanted, entries)}")

    def node_modules(self) -> dict[str, Any]:
        """Import the modules of node types that installed packages register, by entry name.

        One that is blocked is left out, and so is, with a warning, one that cannot be imported: a graph that needs
        none of its types runs, and in one that does the type is unknown.
        """
        modules: dict[str, Any] = {}
        for name, entry in self.entries(NODES).items():
            if entry.blocked_by is not None:
                continue
            try:
                modules[name] = entry.load()
            except PluginError as error:
                logger.warning("node types of %s are left out: %s", entry.distribution, error)
        return modules

    def teacher(self, hooks: RunHooks | None = None) -> TeachCodecs:
        """What teaches a registry the types of installed packages, then those of a run's plugins.

        An installed package that is blocked is left out, and so is, with a warning, one that is broken: where a value of
        its types is met, the error says that the type is not registered.

        Args:
            hooks: of the run; without them, the plugins registered in code that are not blocked.
        """

        def teach(registry: CodecRegistry) -> None:
            for entry in self.entries(CODECS).values():
                if entry.blocked_by is None:
                    _teach(entry, registry)
            bound = (
                _bind({n: r.plugin for n, r in self._registered.items() if n not in self._blocked}) if hooks is None else hooks
            )
            if bound.register_codecs is not None:
                bound.register_codecs(registry)

        return teach

    def registered(self) -> Mapping[str, object]:
        """The plugins made in code, by name, blocked ones too."""
        return {name: entry.plugin for name, entry in self._registered.items()}

    @property
    def blocked(self) -> frozenset[str]:
        """The names of plugins that are kept out, whether they are there or not."""
        return self._blocked

    def blocks(self, name: str) -> bool:
        """Whether a plugin of this name is kept out."""
        return name in self._blocked

    def entries(self, group: str) -> Mapping[str, PluginEntry]:
        """What installed distributions bring to a group, by name, blocked ones too. Imports nothing of them."""
        if group not in self._found:
            self._found[group] = find_entries(group, self._blocked)
        return self._found[group]

    def _check_registered(self, name: str, options: Mapping[str, Any]) -> None:
        if name in self._blocked:
            raise _blocked(name)
        if options:
            raise PluginOptionsInvalid(
                name, f"plugin {name!r} was registered in code and takes no options, got {', '.join(options)}. Give `true`."
            )

    def make(self, name: str, options: Mapping[str, Any]) -> object:
        """Call an installed plugin's factory.

        Raises:
            PluginError: it cannot be had; see `bind`.
        """
        entries = self.entries(PLUGINS)
        entry = entries.get(name)
        if entry is None and name in self._blocked:
            raise _blocked(name)
        if entry is None:
            raise PluginMissing(
                name, f"plugin {name!r} is enabled but not installed. {_how_to_install(name, {**entries, **self._registered})}"
            )
        factory = entry.load()
        if not callable(factory):
            raise PluginInvalid(
                name,
                f"plugin {name!r}: {entry.point.value} is not callable. Let the entry name a factory: options in, plugin out.",
            )
        try:
            plugin = factory(dict(options))
        except WorkflowError:
            raise
        except Exception as error:
            raise PluginLoadFailed(
                name,
                f"plugin {name!r} of {entry.distribution} {entry.version} could not be made by {entry.point.value}: "
                f"{type(error).__name__}: {text_of(error)}. Check its options, or --disable {name}.",
            ) from error
        check_plugin(plugin, name)
        return plugin


def _teach(entry: PluginEntry, registry: CodecRegistry) -> None:
    try:
        entry.load()(registry)
    except PluginError as error:
        logger.warning("value types of %s are left out: %s", entry.distribution, error)
    except Exception as error:  # it is anybody's function, and a run that needs none of its types can go on
        logger.warning("value types of %s are left out: %s: %s", entry.distribution, type(error).__name__, text_of(error))


class _Manager(pluggy.PluginManager):
    """Is told which attributes are hooks: pluggy looks at all that a plugin and `object` have, which takes longer."""

    def __init__(self, project_name: str) -> None:
        super().__init__(project_name)
        self._marked: tuple[object, Mapping[str, Any]] = (None, {})

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        return super().parse_hookspec_opts(module_or_class, name) if name in HOOK_ARGUMENTS else None

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        if self._marked[0] is not plugin:
            self._marked = plugin, marked(plugin)
        return super().parse_hookimpl_opts(plugin, name) if name in self._marked[1] else None


def _bind(plugins: Mapping[str, object]) -> RunHooks:
    if not plugins:
        return NO_HOOKS
    # A manager a run: runs cannot mix, and a policy pays for its own hooks only. It costs under a millisecond.
    manager = _Manager(PROJECT)
    for specs in SPEC_CLASSES:
        manager.add_hookspecs(specs)
    for name, plugin in plugins.items():
        try:
            manager.register(plugin, name)
        except (ValueError, pluggy.PluginValidationError) as error:
            raise PluginInvalid(name, f"plugin {name!r} cannot be registered: {error}") from error
    return bind_hooks(manager)


def _blocked(name: str) -> PluginBlocked:
    return PluginBlocked(
        name, f"plugin {name!r} is blocked, and this needs it. Leave the block out, or switch it off: --disable {name}"
    )


def _is_on(wanted: object) -> bool:
    return wanted is not None and wanted is not False


def _options(name: str, wanted: object) -> Mapping[str, Any]:
    if wanted is True:
        return {}
    if isinstance(wanted, Mapping):
        return wanted
    raise PluginOptionsInvalid(name, f"plugin {name!r}: enable it with true or an object of options, not {wanted!r}.")


def _only_store(stores: Mapping[str, Any], name: str | None) -> tuple[str, Any] | None:
    if name is not None:
        return (name, stores[name]) if name in stores else None
    if len(stores) > 1:
        names = ", ".join(sorted(stores))
        first = min(stores)
        raise PluginConflict(
            first, f"several plugins have a store of runs: {names}. Name the one that is asked, as in `--enable {first}`."
        )
    return next(iter(stores.items()), None)


def _how_to_install(name: str, known: Iterable[str]) -> str:
    if name in KNOWN_DISTRIBUTIONS:
        return f"Install it: pip install {KNOWN_DISTRIBUTIONS[name]}"
    if near := get_close_matches(name, [*known, *KNOWN_DISTRIBUTIONS], n=1):
        if near[0] in known:
            return f"Did you mean {near[0]!r}?"
        return f"Did you mean {near[0]!r}? Install it: pip install {KNOWN_DISTRIBUTIONS[near[0]]}"
    installed = ", ".join(sorted(known)) or "none"
    return f"Install the package that brings it, or take it out of `enable`; installed plugins: {installed}."
