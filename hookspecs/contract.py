"""What a plugin must keep to, checked before it is registered: pluggy itself accepts nearly all of these mistakes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary, ref

from hookspecs.errors import PluginInvalid
from hookspecs.markers import PROJECT
from hookspecs.specs import CheckpointHooks, CodecHooks, NodeHooks, RunLifeHooks

__all__ = ["HOOK_ARGUMENTS", "SPEC_CLASSES", "check_plugin", "hooks_of", "marked"]

SPEC_CLASSES: Final = (RunLifeHooks, NodeHooks, CheckpointHooks, CodecHooks)
"""Every class of hook specs."""

HOOK_ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(inspect.signature(spec).parameters)[1:]
    for specs in SPEC_CLASSES
    for name, spec in vars(specs).items()
    if hasattr(spec, f"{PROJECT}_spec")
}
"""The names of the arguments of every hook."""

PLAIN: Final = frozenset(
    name
    for specs in SPEC_CLASSES
    for name in HOOK_ARGUMENTS
    if name in vars(specs) and not inspect.iscoroutinefunction(vars(specs)[name])
)
"""The hooks that are a plain `def`."""

MARK: Final = f"{PROJECT}_impl"
"""What the marker leaves on a function."""

SPEC_MARK: Final = f"{PROJECT}_spec"
"""What a specification has: a plugin that derives from its class, for type checkers, inherits those it does not need."""

PAIR: Final = ("save_checkpoint", "restore_checkpoint")

_SOUND: Final[WeakKeyDictionary[type, tuple[object, ...]]] = WeakKeyDictionary()
"""Classes whose plugins keep to all this, and their hooks as they were then."""


def check_plugin(plugin: object, name: str) -> None:
    """Refuse a plugin that would not be called as its author thinks.

    Args:
        plugin: an object, or a module, with methods marked `@hookimpl`.
        name: under which it will be registered.

    Raises:
        PluginInvalid: naming plugin, hook and signature, and how to mend it.
    """
    kind, own = type(plugin), _holds_hooks(plugin)
    hooks = tuple(_known(getattr(kind, hook, None)) for hook in HOOK_ARGUMENTS)
    if own or _SOUND.get(kind) != hooks:  # a factory makes one a run: one like it was nearly always looked at
        _check(plugin, name)
        if not own:
            _SOUND[kind] = hooks


def _check(plugin: object, name: str) -> None:
    if inspect.isclass(plugin):
        raise PluginInvalid(
            name,
            f"plugin {name!r} is the class {plugin.__qualname__}, so its hooks have no self. "
            f"Give an instance: {plugin.__qualname__}().",
        )
    if plugin is None or inspect.isawaitable(plugin):
        raise PluginInvalid(
            name,
            f"plugin {name!r} is {type(plugin).__name__}, not a plugin object. "
            "Let the factory, a plain function, return an object with methods marked @hookimpl.",
        )
    attributes = _attributes(plugin)
    for hook in HOOK_ARGUMENTS:
        written = getattr(attributes.get(hook), "__func__", attributes.get(hook))
        if inspect.ismodule(plugin) and hook in PLAIN:
            continue  # it may be what an entry of `workflow_runner.codecs` names
        if inspect.isfunction(written) and not (hasattr(written, MARK) or hasattr(written, SPEC_MARK)):
            raise PluginInvalid(
                name,
                f"plugin {name!r}, hook {hook!r}: it is not marked, and would never be called. Write @hookimpl above it, also "
                "where it takes the place of one that is marked; or give it another name.",
            )
    hooks = set()
    for attribute, function, options in _implementations(plugin):
        hook = options["specname"] or attribute
        if hook not in HOOK_ARGUMENTS and options["optionalhook"]:
            continue
        _check_implementation(plugin, name, hook, attribute, function, options)
        hooks.add(hook)
    if len(hooks.intersection(PAIR)) == 1:
        has, lacks = PAIR if PAIR[0] in hooks else PAIR[::-1]
        raise PluginInvalid(
            name,
            f"plugin {name!r} implements {has!r} but not {lacks!r}: what one plugin saves, only itself can restore. "
            f"Implement {lacks!r} too.",
        )


def _known(hook: object) -> object:
    """What is remembered of a hook of a class; not the function itself, which may hold its class and keep it for ever."""
    written = getattr(hook, "__func__", hook)
    return ref(written) if inspect.isfunction(written) else written


def _holds_hooks(plugin: object) -> bool:
    """Whether it has hooks that its class has not."""
    own = getattr(plugin, "__dict__", {})
    return any(attribute in HOOK_ARGUMENTS or _mark_of(value) is not None for attribute, value in own.items())


def hooks_of(plugin: object) -> tuple[str, ...]:
    """The names of the hooks that a plugin implements, in the order of the specs."""
    found = {options["specname"] or attribute for attribute, options in marked(plugin).items()}
    return tuple(hook for hook in HOOK_ARGUMENTS if hook in found)


def marked(plugin: object) -> dict[str, Mapping[str, Any]]:
    """The attributes of a plugin that are marked `@hookimpl`, by name, and how; none of its properties is run.

    Every run asks this of its plugins. `inspect.getattr_static` for each attribute takes ten times as long.
    """
    attributes = _attributes(plugin)
    found: dict[str, Mapping[str, Any]] = {}
    for name in sorted(attributes):
        options = _mark_of(attributes[name])
        if options is not None:
            found[name] = options
    return found


def _mark_of(attribute: object) -> Mapping[str, Any] | None:
    options = getattr(getattr(attribute, "__func__", attribute), MARK, None)
    return options if isinstance(options, dict) else None


def _attributes(plugin: object) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for owner in reversed(type(plugin).__mro__):
        found.update(vars(owner))
    found.update(getattr(plugin, "__dict__", {}))
    return found


def _implementations(plugin: object) -> Iterator[tuple[str, Callable[..., Any], Mapping[str, Any]]]:
    for attribute, options in marked(plugin).items():
        yield attribute, getattr(plugin, attribute), options


def _check_implementation(
    plugin: object, name: str, hook: str, attribute: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> None:
    def refuse(problem: str, mend: str) -> NoReturn:
        colour = "async def" if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else "def"
        written = getattr(function, "__func__", function)  # with its self, or the lack of it
        shown = f"{colour} {attribute}{inspect.signature(written)}"
        raise PluginInvalid(name, f"plugin {name!r}, hook {hook!r}: {problem}.\n  {shown}\n{mend}")

    if hook not in HOOK_ARGUMENTS:
        near = get_close_matches(hook, HOOK_ARGUMENTS, n=1)
        known = f"Did you mean {near[0]!r}?" if near else f"The hooks are {', '.join(HOOK_ARGUMENTS)}."
        refuse("there is no hook of this name", known)
    if options["wrapper"] or options["hookwrapper"]:
        refuse(
            "a wrapper sees a coroutine, not what the hook gives",
            "Implement the before_ and after_ hooks instead, without wrapper=True or hookwrapper=True.",
        )
    if inspect.isasyncgenfunction(function):
        refuse("it yields, and a hook is awaited once", "Write it without yield.")
    if inspect.iscoroutinefunction(function) and hook in PLAIN:
        refuse("it is async, and the hook is not awaited", f"Write it as `def {attribute}`.")
    if not inspect.iscoroutinefunction(function) and hook not in PLAIN:
        refuse("it is not async, and the hook is awaited", f"Write it as `async def {attribute}`.")
    wanted = HOOK_ARGUMENTS[hook]
    if _lacks_self(plugin, attribute, wanted):
        refuse("the first parameter takes the place of self", "Write self first.")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            refuse(f"{parameter} gets nothing", f"Name the arguments that it needs, of {', '.join(wanted)}.")
        if parameter.kind is parameter.KEYWORD_ONLY:
            refuse(f"{parameter.name!r} is keyword-only, and arguments are given by position", "Remove the `*` before it.")
        if parameter.name not in wanted:
            near = get_close_matches(parameter.name, wanted, n=1)
            mean = f"Did you mean {near[0]!r}?" if near else ""
            refuse(f"there is no argument {parameter.name!r}", f"It may take any of {', '.join(wanted)}. {mean}".rstrip())
        if parameter.default is not parameter.empty:
            refuse(f"{parameter.name!r} has a default, and is always given", "Remove the default.")


def _lacks_self(plugin: object, attribute: str, wanted: tuple[str, ...]) -> bool:
    if attribute in getattr(plugin, "__dict__", ()):
        return False  # a function that the object itself holds is called as it is
    found = inspect.getattr_static(type(plugin), attribute, None)
    if not inspect.isfunction(found):
        return False
    first = next(iter(inspect.signature(found).parameters), None)
    return first is None or first in wanted
