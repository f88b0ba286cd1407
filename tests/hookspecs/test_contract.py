from __future__ import annotations

import gc
import types
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hookspecs import (
    HOOK_ARGUMENTS,
    CodecRegistry,
    Outcome,
    PluginHost,
    PluginInvalid,
    RunInfo,
    RunLifeHooks,
    check_plugin,
    hookimpl,
)


def refused(plugin: object) -> str:
    with pytest.raises(PluginInvalid) as caught:
        PluginHost().register(plugin, "mine")
    assert caught.value.plugin == "mine"
    assert caught.value.exit_code == 2
    return str(caught.value)


def plugin_with(**methods: Callable[..., Any]) -> object:
    return type("Plugin", (), {name: hookimpl(method) for name, method in methods.items()})()


def test_the_nine_hooks_and_their_arguments() -> None:
    assert HOOK_ARGUMENTS == {
        "before_run": ("run", "control"),
        "after_run": ("run", "outcome"),
        "before_node": ("run", "node", "inputs"),
        "after_node": ("run", "node", "outcome"),
        "restore_checkpoint": ("run", "checkpoint_id"),
        "save_checkpoint": ("run", "snapshot", "reason"),
        "checkpoint_saved": ("run", "ref"),
        "fetch_answers": ("run",),
        "register_codecs": ("registry",),
    }


def test_a_class_instead_of_an_instance() -> None:
    class Plugin:
        @hookimpl
        async def after_run(self, run: RunInfo) -> None: ...

    assert "Give an instance" in refused(Plugin) and "Plugin()" in refused(Plugin)


def test_a_hook_that_is_not_marked() -> None:
    class Forgotten:
        async def after_run(self, run: RunInfo) -> None: ...

    class Marked:
        @hookimpl
        async def after_run(self, run: RunInfo) -> None: ...

    class Override(Marked):
        async def after_run(self, run: RunInfo) -> None: ...

    class Off(Marked):
        after_run = None  # type: ignore[assignment]

    class Typed(RunLifeHooks):  # `before_run` is that of the specification
        @hookimpl
        async def after_run(self, run: RunInfo, outcome: Outcome) -> None: ...

    for plugin in (Forgotten(), Override()):
        with pytest.raises(PluginInvalid, match=r"hook 'after_run': it is not marked.*Write @hookimpl above it"):
            check_plugin(plugin, "p")
    check_plugin(Marked(), "p")
    check_plugin(Off(), "p")
    check_plugin(Typed(), "p")
    module = types.ModuleType("package")
    module.__dict__["register_codecs"] = lambda registry: None  # of an entry point
    check_plugin(module, "p")


def test_a_class_that_was_looked_at_is_looked_at_again_where_its_hooks_are_others() -> None:
    class Plugin:
        @hookimpl
        async def before_run(self, run: RunInfo) -> None: ...

    async def unmarked(self: object, run: RunInfo) -> None: ...

    check_plugin(Plugin(), "p")
    check_plugin(Plugin(), "p")
    own = Plugin()
    own.after_run = types.MethodType(unmarked, own)  # type: ignore[attr-defined]
    with pytest.raises(PluginInvalid, match="hook 'after_run': it is not marked"):
        check_plugin(own, "p")
    other = Plugin()
    other.later = hookimpl(lambda run: None)  # type: ignore[attr-defined]
    with pytest.raises(PluginInvalid, match="hook 'later': there is no hook of this name"):
        check_plugin(other, "p")
    Plugin.before_run = unmarked  # type: ignore[method-assign]
    with pytest.raises(PluginInvalid, match="hook 'before_run': it is not marked"):
        check_plugin(Plugin(), "p")


def test_the_wrong_colour() -> None:
    def before_run(self: object, run: RunInfo) -> None: ...

    message = refused(plugin_with(before_run=before_run))
    assert "plugin 'mine', hook 'before_run'" in message
    assert "\n  def before_run(self: 'object', run: 'RunInfo') -> 'None'\n" in message
    assert "Write it as `async def before_run`" in message


def test_a_plain_hook_that_is_async() -> None:
    async def register_codecs(self: object, registry: CodecRegistry) -> None: ...

    message = refused(plugin_with(register_codecs=register_codecs))
    assert "it is async, and the hook is not awaited" in message
    assert "Write it as `def register_codecs`" in message


def test_a_generator_in_place_of_a_coroutine() -> None:
    async def after_run(self: object, run: RunInfo) -> AsyncIterator[None]:
        yield

    assert "Write it without yield" in refused(plugin_with(after_run=after_run))


def test_an_unknown_hook_names_the_nearest() -> None:
    async def before_rum(self: object, run: RunInfo) -> None: ...

    assert "Did you mean 'before_run'?" in refused(plugin_with(before_rum=before_rum))


def test_a_hook_that_is_marked_optional_may_be_unknown() -> None:
    class Plugin:
        @hookimpl(optionalhook=True)
        async def of_a_later_version(self, thing: object) -> None: ...

    check_plugin(Plugin(), "mine")


def test_a_specname_counts_as_the_hook() -> None:
    class Plugin:
        @hookimpl(specname="before_run")
        def other_name(self, run: RunInfo) -> None: ...

    assert "hook 'before_run'" in refused(Plugin())


@pytest.mark.parametrize("kind", ["wrapper", "hookwrapper"])
def test_a_wrapper_round_an_async_hook(kind: str) -> None:
    def before_run(self: object, run: RunInfo) -> Any:
        yield

    marked = hookimpl(**{kind: True})(before_run)  # type: ignore[call-overload]
    message = refused(type("Plugin", (), {"before_run": marked})())
    assert "without wrapper=True" in message


def test_an_argument_that_the_spec_does_not_have() -> None:
    async def after_run(self: object, run: RunInfo, outcom: Outcome) -> None: ...

    message = refused(plugin_with(after_run=after_run))
    assert "no argument 'outcom'" in message and "Did you mean 'outcome'?" in message


def test_an_argument_with_a_default() -> None:
    async def after_run(self: object, run: RunInfo, outcome: Outcome | None = None) -> None: ...

    assert "Remove the default" in refused(plugin_with(after_run=after_run))


def test_a_keyword_only_argument() -> None:
    async def after_run(self: object, *, run: RunInfo) -> None: ...

    assert "keyword-only" in refused(plugin_with(after_run=after_run))


@pytest.mark.parametrize("stars", ["*", "**"])
def test_open_arguments(stars: str) -> None:
    space: dict[str, Any] = {}
    exec(f"async def after_run(self, {stars}more): ...", space)
    assert "gets nothing" in refused(plugin_with(after_run=space["after_run"]))


def test_a_method_without_self() -> None:
    async def after_run(run: RunInfo, outcome: Outcome) -> None: ...

    assert "Write self first" in refused(plugin_with(after_run=after_run))


def test_an_inherited_method_without_self() -> None:
    class Parent:
        @hookimpl
        async def after_run(run: RunInfo, outcome: Outcome) -> None: ...  # type: ignore[misc]

    class Child(Parent): ...

    assert "Write self first" in refused(Child())


def test_a_function_that_the_object_holds_has_no_self() -> None:
    class Plugin:
        def __init__(self) -> None:
            async def after_run(run: RunInfo, outcome: Outcome) -> None: ...

            self.after_run = hookimpl(after_run)

    check_plugin(Plugin(), "mine")


def test_save_and_restore_come_from_one_plugin() -> None:
    async def save_checkpoint(self: object, run: RunInfo, snapshot: object, reason: str) -> None: ...
    async def restore_checkpoint(self: object, run: RunInfo) -> None: ...

    assert "not 'restore_checkpoint'" in refused(plugin_with(save_checkpoint=save_checkpoint))
    assert "not 'save_checkpoint'" in refused(plugin_with(restore_checkpoint=restore_checkpoint))
    check_plugin(plugin_with(save_checkpoint=save_checkpoint, restore_checkpoint=restore_checkpoint), "both")


@pytest.mark.parametrize("thing", [None, types.SimpleNamespace(__await__=None)])
def test_what_is_no_plugin(thing: object) -> None:
    if thing is None:
        assert "Let the factory" in refused(thing)
    else:
        check_plugin(thing, "an object without hooks is one")


def test_what_an_async_factory_gives() -> None:
    async def factory() -> object:
        return object()

    coroutine = factory()
    assert "a plain function" in refused(coroutine)
    coroutine.close()


def test_fewer_arguments_static_methods_and_modules_are_fine() -> None:
    class Plugin:
        @staticmethod
        @hookimpl
        async def after_run(outcome: Outcome) -> None: ...

        @hookimpl
        async def before_run(self) -> None: ...

    check_plugin(Plugin(), "static")

    module = types.ModuleType("plugin_module")

    @hookimpl
    async def before_node(node: object, run: RunInfo) -> None: ...

    module.before_node = before_node  # type: ignore[attr-defined]
    check_plugin(module, "module")


def test_a_class_that_was_looked_at_is_not_kept() -> None:
    """A factory may make one for each run, and functions hold the class that they name."""

    def made() -> weakref.ref[type]:
        class Plugin:
            @hookimpl
            async def after_run(self) -> None:
                assert isinstance(self, Plugin)

            @classmethod
            @hookimpl
            async def before_run(cls) -> None: ...

        check_plugin(Plugin(), "mine")
        return weakref.ref(Plugin)

    found = made()
    gc.collect()
    assert found() is None


def test_properties_of_a_plugin_are_not_run() -> None:
    class Plugin:
        @property
        def expensive(self) -> object:
            raise AssertionError("was run")

    check_plugin(Plugin(), "mine")
