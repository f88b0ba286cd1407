from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hookspecs import (
    COMMANDS,
    NO_HOOKS,
    PluginBlocked,
    PluginConflict,
    PluginError,
    PluginHost,
    PluginInvalid,
    PluginLoadFailed,
    PluginMissing,
    PluginOptionsInvalid,
    RunInfo,
    describe_plugins,
    hookimpl,
)
from tests.distribution import install_distribution

RUN = RunInfo("r", 1, {}, {}, {})
PLUGIN = """
    from hookspecs import PluginOptionsInvalid, hookimpl

    class Plugin:
        def __init__(self, options):
            self.options = options

        @hookimpl
        async def before_run(self, run):
            run.enable["heard"].append(self.options)

    def make(options):
        if "bad" in options:
            raise PluginOptionsInvalid("sample", "unknown option 'bad'. Known is: good.")
        if "crash" in options:
            raise RuntimeError("no room")
        return Plugin(options)

    def make_store(url):
        return ("store", url)

    def nothing(options):
        return None
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts distributions on `sys.path`; what they import is forgotten afterwards."""
    before = set(sys.modules)

    def install(
        name: str, entries: dict[str, dict[str, str]], modules: dict[str, str] | None = None, version: str = "1.0"
    ) -> None:
        folder = tmp_path / name
        install_distribution(folder, name, entries=entries, modules=modules, version=version)
        monkeypatch.syspath_prepend(folder)

    yield install
    for module in set(sys.modules) - before:
        if (getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[module]


@pytest.fixture
def sample(install: Install) -> None:
    install(
        "sample-plugin",
        {
            "workflow_runner": {"sample": "sample_plugin:make"},
            "workflow_runner.stores": {"sample": "sample_plugin:make_store"},
            "workflow_runner.commands": {"look": "sample_plugin:make"},
        },
        {"sample_plugin": PLUGIN},
        "2.5",
    )


def only_installed(name: str, host: PluginHost) -> Any:
    return next(description for description in describe_plugins(host) if description.name == name)


async def test_an_enabled_plugin_is_made_with_its_options(sample: None) -> None:
    heard: list[Any] = []
    for wanted, options in ((True, {}), ({}, {}), ({"good": 1}, {"good": 1})):
        hooks = PluginHost().bind({"sample": wanted})
        assert hooks.before_run is not None
        await hooks.before_run(RunInfo("r", 1, {}, {}, {"heard": heard}), None)  # type: ignore[arg-type]
        assert heard.pop() == options


def test_two_runs_get_two_plugins(sample: None) -> None:
    host = PluginHost()
    assert host.bind({"sample": True}).before_run is not host.bind({"sample": True}).before_run


@pytest.mark.parametrize("enable", [{}, {"sample": False}, {"sample": None}, {"unheard of": False}])
def test_off_means_off(sample: None, enable: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("entry points were looked up")

    monkeypatch.setattr("importlib.metadata.entry_points", refuse)
    assert PluginHost().bind(enable) is NO_HOOKS
    assert "sample_plugin" not in sys.modules


def test_the_names_of_commands_are_known_without_an_import(sample: None) -> None:
    entry = PluginHost().entries(COMMANDS)["look"]
    assert (entry.distribution, entry.version, entry.blocked_by) == ("sample-plugin", "2.5", None)
    assert "sample_plugin" not in sys.modules


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_blocked_plugin_is_not_imported(sample: None, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "environment":
        monkeypatch.setenv("WORKFLOW_DISABLE_PLUGINS", "checkpoint, sample,")
    host = PluginHost(blocked=["checkpoint", "sample"] if way == "argument" else ())
    with pytest.raises(PluginBlocked) as caught:
        host.bind({"sample": True})
    assert caught.value.exit_code == 2
    with pytest.raises(PluginBlocked):
        host.store_factory()
    assert host.entries(COMMANDS)["look"].blocked_by == "sample"
    with pytest.raises(PluginBlocked, match="no:sample"):
        host.entries(COMMANDS)["look"].load()
    assert only_installed("sample", host).status == "blocked"
    assert host.bind({"sample": False}) is NO_HOOKS
    assert host.blocked == {"checkpoint", "sample"}
    assert "sample_plugin" not in sys.modules


def test_a_broken_plugin_is_fatal_only_for_a_run_that_needs_it(sample: None, install: Install) -> None:
    install("broken-plugin", {"workflow_runner": {"broken": "broken_plugin:make"}}, {"broken_plugin": "import not_there"}, "0.9")
    assert PluginHost().bind({"sample": True}).before_run is not None
    with pytest.raises(PluginLoadFailed, match=r"'broken' .* of broken-plugin 0\.9 .*not_there"):
        PluginHost().bind({"broken": True})
    assert only_installed("sample", PluginHost()).status == "ok"


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "raise BaseException", "1 / 0", "make = 5", "x = 1", "def make("])
def test_every_way_to_be_broken_is_named(install: Install, source: str) -> None:
    install("broken-plugin", {"workflow_runner": {"broken": "broken_plugin:make"}}, {"broken_plugin": source})
    with pytest.raises(PluginError, match="'broken'"):
        PluginHost().bind({"broken": True})
    description = only_installed("broken", PluginHost())
    assert (description.status, description.distribution, description.version) == ("broken", "broken-plugin", "1.0")
    assert "broken" in description.error


def test_a_factory_that_fails_is_named_and_its_refusals_rise(sample: None) -> None:
    with pytest.raises(PluginLoadFailed, match="RuntimeError: no room") as caught:
        PluginHost().bind({"sample": {"crash": 1}})
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(PluginOptionsInvalid, match="Known is: good"):
        PluginHost().bind({"sample": {"bad": 1}})


def test_a_factory_that_gives_nothing(install: Install) -> None:
    install("empty-plugin", {"workflow_runner": {"empty": "empty_plugin:nothing"}}, {"empty_plugin": PLUGIN})
    with pytest.raises(PluginInvalid, match="return an object"):
        PluginHost().bind({"empty": True})


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("sampel", "Did you mean 'sample'?"),
        ("zzz", "installed plugins: .*sample"),
    ],
)
def test_a_plugin_that_is_not_installed_says_what_to_do(sample: None, name: str, mend: str) -> None:
    with pytest.raises(PluginMissing, match=mend) as caught:
        PluginHost().bind({name: True})
    assert caught.value.plugin == name


def test_a_missing_checkpoint_plugin_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    with pytest.raises(PluginMissing, match="pip install workflow-checkpoint"):
        PluginHost().bind({"checkpoint": {}})
    with pytest.raises(PluginMissing, match="pip install workflow-checkpoint"):
        PluginHost().store_factory()


def test_options_that_are_no_object(sample: None) -> None:
    with pytest.raises(PluginOptionsInvalid, match="not 5"):
        PluginHost().bind({"sample": 5})


def test_two_distributions_of_one_name_conflict_where_it_is_needed(sample: None, install: Install) -> None:
    install("rival", {"workflow_runner": {"sample": "sample_plugin:make"}})
    with pytest.raises(PluginConflict, match=r"rival and sample-plugin|sample-plugin and rival"):
        PluginHost().bind({"sample": True})
    assert PluginHost().bind({}) is NO_HOOKS
    assert only_installed("sample", PluginHost()).status == "broken"


def test_the_one_store_is_found(sample: None) -> None:
    name, factory = PluginHost(blocked=["checkpoint"]).store_factory()
    loader: object = factory("sqlite:///x")
    assert (name, loader) == ("sample", ("store", "sqlite:///x"))


def test_several_stores_are_an_error_that_names_them(sample: None, install: Install) -> None:
    install("second", {"workflow_runner.stores": {"second": "sample_plugin:make_store"}})
    host = PluginHost(blocked=["checkpoint"])
    with pytest.raises(PluginConflict, match="sample, second"):
        host.store_factory()
    assert host.store_factory("second")[0] == "second"
    assert PluginHost(blocked=["second", "checkpoint"]).store_factory()[0] == "sample"


def test_the_store_that_a_caller_names_is_told(sample: None, install: Install) -> None:
    install("second", {"workflow_runner.stores": {"second": "sample_plugin:make_store"}})
    host = PluginHost()
    assert host.store_named({"second": True, "checkpoint": False, "other": True}) == "second"
    assert host.store_named({"sample": {}, "second": True}) is None
    assert host.store_named({}) is None
    host.register(InCode(), "mine", store=lambda url: url)  # type: ignore[arg-type, return-value]
    host.register(InCode(), "second")
    assert host.store_named({"mine": True, "sample": True}) == "mine"
    assert host.store_named({"second": True}) is None, "what is registered hides what is installed"


def test_node_modules_leave_out_the_broken_and_the_blocked(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install(
        "many-nodes",
        {"workflow_runner.nodes": {"good": "good_nodes", "bad": "bad_nodes", "kept_out": "kept_out_nodes"}},
        {"good_nodes": "x = 1", "bad_nodes": "1 / 0", "kept_out_nodes": "1 / 0"},
    )
    modules = PluginHost(blocked=["kept_out"]).node_modules()
    assert modules["good"].x == 1
    assert {"bad", "kept_out"}.isdisjoint(modules)
    assert "many-nodes" in caplog.text and "ZeroDivisionError" in caplog.text
    assert "kept_out" not in caplog.text


def test_a_description_tells_all(sample: None) -> None:
    description = only_installed("sample", PluginHost())
    assert description.hooks == ("before_run",)
    assert (description.distribution, description.version, description.status, description.error) == (
        "sample-plugin",
        "2.5",
        "ok",
        None,
    )
    assert (description.stores, description.commands) == (("sample",), ("look",))


def test_a_description_names_all_that_is_broken_and_first_the_plugin_itself(install: Install) -> None:
    install(
        "half-plugin",
        {
            "workflow_runner": {"whole": "whole_plugin:make", "half": "whole_plugin:nothing"},
            "workflow_runner.commands": {"no_command": "no_command:main"},
            "workflow_runner.nodes": {"no_nodes": "no_nodes"},
        },
        {"whole_plugin": PLUGIN, "no_command": "1 / 0", "no_nodes": "1 / 0"},
    )
    whole, half = only_installed("whole", PluginHost()), only_installed("half", PluginHost())
    assert (whole.status, whole.hooks) == ("broken", ("before_run",))
    assert [line.partition(" ")[0] for line in whole.error.splitlines()] == ["'no_command'", "'no_nodes'"]
    assert (half.status, half.hooks) == ("broken", ())
    assert half.error.startswith("plugin 'half'") and half.error.endswith(whole.error)


def test_a_distribution_without_a_plugin_is_described_too(install: Install) -> None:
    install("just-nodes", {"workflow_runner.nodes": {"broken_nodes": "broken_nodes"}}, {"broken_nodes": "1 / 0"})
    description = only_installed("just-nodes", PluginHost())
    assert description.status == "broken" and description.nodes == ("broken_nodes",)


class InCode:
    @hookimpl
    async def before_run(self) -> None: ...


def test_a_plugin_made_in_code_is_on_unless_it_is_switched_off() -> None:
    host = PluginHost().register(InCode(), name="mine")
    assert host.bind({}).before_run is not None
    assert host.bind({"mine": True}).before_run is not None
    assert host.bind({"mine": False}) is NO_HOOKS
    with pytest.raises(PluginOptionsInvalid, match="registered in code"):
        host.bind({"mine": {"x": 1}})
    assert only_installed("mine", host).hooks == ("before_run",)


def test_a_blocked_plugin_made_in_code_is_off() -> None:
    host = PluginHost(blocked=["mine"]).register(InCode(), "mine")
    assert host.bind({}) is NO_HOOKS
    with pytest.raises(PluginBlocked):
        host.bind({"mine": True})
    assert only_installed("mine", host).status == "blocked"


def test_a_blocked_store_made_in_code_is_refused_as_blocked() -> None:
    host = PluginHost(blocked=["mine"]).register(InCode(), "mine", store=lambda url: url)  # type: ignore[arg-type, return-value]
    with pytest.raises(PluginBlocked, match="'mine' is blocked"):
        host.store_factory("mine")


def test_a_store_of_another_name_is_blocked_with_its_plugin(install: Install) -> None:
    install(
        "pair",
        {
            "workflow_runner": {"left": "pair_plugin:make", "right": "pair_plugin:make"},
            "workflow_runner.stores": {"archive": "pair_store:make_store", "right": "pair_store:make_store"},
        },
        {"pair_plugin": PLUGIN, "pair_store": PLUGIN},
    )
    host = PluginHost(blocked=["left", "checkpoint"])
    assert host.store_factory()[0] == "right"
    with pytest.raises(PluginBlocked, match="no:left"):
        host.store_factory("archive")


def test_a_plugin_that_cannot_do_without_options_is_not_broken(install: Install) -> None:
    source = """
        from hookspecs import PluginOptionsInvalid

        def make(options):
            raise PluginOptionsInvalid("strict", "plugin 'strict' needs the option 'path'. Give it.")
    """
    install("strict-plugin", {"workflow_runner": {"strict": "strict_plugin:make"}}, {"strict_plugin": source})
    description = only_installed("strict", PluginHost())
    assert (description.status, description.hooks) == ("ok", ())
    assert "needs the option 'path'" in description.error


def test_a_name_and_an_object_are_registered_once() -> None:
    plugin = InCode()
    host = PluginHost().register(plugin, "mine")
    with pytest.raises(PluginConflict, match="Choose another name"):
        host.register(InCode(), "mine")
    with pytest.raises(PluginConflict, match="already, as 'mine'"):
        host.register(plugin, "again")


def test_a_store_made_in_code_comes_first(sample: None) -> None:
    host = PluginHost().register(InCode(), "mine", store=lambda url: url)  # type: ignore[arg-type, return-value]
    assert host.store_factory()[0] == "mine"
    assert host.store_factory("sample")[0] == "sample"


def test_where_nothing_is_enabled_no_hooks_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(project: str) -> None:
        raise AssertionError("a manager of plugins was made for none")

    monkeypatch.setattr("hookspecs.host._Manager", refuse)
    host = PluginHost()
    assert host.bind({"checkpoint": False}) is NO_HOOKS
    registry: Any = object()
    host.teacher()(registry)
    with pytest.raises(AssertionError, match="for none"):
        host.register(object(), "mine").bind({})


def test_one_text_is_no_list_of_plugins_to_block() -> None:
    with pytest.raises(TypeError, match=r"Give \['checkpoint'\]"):
        PluginHost(blocked="checkpoint")
