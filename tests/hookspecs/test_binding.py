from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

import hookspecs
from hookspecs import (
    Cancelled,
    CheckpointRef,
    Completed,
    Failed,
    HookError,
    NodeInfo,
    Outcome,
    PluginConflict,
    PluginHost,
    RunControl,
    RunExists,
    RunHooks,
    RunInfo,
    Snapshot,
    hookimpl,
)

RUN = RunInfo("r", 1, {}, {}, {})
NODE = NodeInfo("n", "m.f", 1, 1)


class Control:
    """Writes down what the run is to end with."""

    def __init__(self) -> None:
        self.failed: list[BaseException] = []

    def fail(self, error: BaseException) -> None:
        self.failed.append(error)


CONTROL = cast(RunControl, Control())
REF = CheckpointRef("r", 1, "end", datetime.now(UTC))


class Recorder:
    """Writes down what it hears; raises what it is told to, by hook."""

    def __init__(self, name: str, heard: list[Any], **raises: BaseException) -> None:
        self.name = name
        self.heard = heard
        self.raises = raises

    def hear(self, hook: str, *more: object) -> None:
        self.heard.append((self.name, hook, *more))
        if hook in self.raises:
            raise self.raises[hook]

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        self.hear("before_run")

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        self.hear("after_run", outcome)

    @hookimpl
    async def before_node(self, run: RunInfo, node: NodeInfo) -> None:
        self.hear("before_node")

    @hookimpl
    async def after_node(self, outcome: Outcome, node: NodeInfo) -> None:
        self.hear("after_node", outcome, node)

    @hookimpl
    async def checkpoint_saved(self, ref: CheckpointRef) -> None:
        self.hear("checkpoint_saved", ref)


class Waiting(Recorder):
    """Waits in `before_run` for ever."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        await asyncio.sleep(3600)


async def cancelled(call: Coroutine[Any, Any, None]) -> None:
    """Cancel a call that waits, which must then end as cancelled."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Store:
    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        return REF

    @hookimpl
    async def restore_checkpoint(self) -> None:
        return None


def hooks_of(*plugins: object) -> RunHooks:
    host = PluginHost()
    for place, plugin in enumerate(plugins):
        host.register(plugin, getattr(plugin, "name", f"plugin{place}"))
    return host.bind({})


def trio(**raises: BaseException) -> tuple[RunHooks, list[Any]]:
    """Plugins a, b, c in the order in which they hear a before; b raises."""
    heard: list[Any] = []
    return hooks_of(Recorder("c", heard), Recorder("b", heard, **raises), Recorder("a", heard)), heard


def test_nobody_is_none() -> None:
    hooks = hooks_of(Store())
    bound = {field.name for field in fields(hooks) if getattr(hooks, field.name) is not None}
    assert bound == {"save_checkpoint", "restore_checkpoint"}


async def test_a_provider_gives_its_answer() -> None:
    hooks = hooks_of(Store())
    assert hooks.save_checkpoint is not None and hooks.restore_checkpoint is not None
    assert await hooks.save_checkpoint(RUN, cast(Snapshot, None), "end") is REF
    assert await hooks.restore_checkpoint(RUN, None) is None


class Careless:
    """Gives what it is not asked for."""

    @hookimpl
    async def save_checkpoint(self) -> int:
        return 1

    @hookimpl
    async def restore_checkpoint(self) -> dict[str, int]:
        return {}


async def test_a_provider_that_gives_something_else_fails_by_name() -> None:
    hooks = hooks_of(Careless())
    assert hooks.save_checkpoint is not None and hooks.restore_checkpoint is not None
    with pytest.raises(HookError, match=r"'plugin0' failed in hook 'save_checkpoint': .* it gave int. Return a CheckpointRef"):
        await hooks.save_checkpoint(RUN, cast(Snapshot, None), "end")
    with pytest.raises(HookError, match=r"'plugin0' failed in hook 'restore_checkpoint': .* it gave dict. Return a Snapshot"):
        await hooks.restore_checkpoint(RUN, None)


class Confused:
    """Gives what belongs to another run."""

    @hookimpl
    async def save_checkpoint(self) -> CheckpointRef:
        return CheckpointRef("other", 1, "end", datetime.now(UTC))

    @hookimpl
    async def restore_checkpoint(self) -> Snapshot:
        return Snapshot("other", 1, "running", (), datetime.now(UTC))


async def test_a_provider_that_gives_the_work_of_another_run_fails_by_name() -> None:
    hooks = hooks_of(Confused())
    assert hooks.save_checkpoint is not None and hooks.restore_checkpoint is not None
    with pytest.raises(HookError, match=r"'plugin0' failed in hook 'save_checkpoint': .* it gave a CheckpointRef of run 'other'"):
        await hooks.save_checkpoint(RUN, cast(Snapshot, None), "end")
    with pytest.raises(HookError, match=r"'plugin0' failed in hook 'restore_checkpoint': .* it gave a Snapshot of run 'other'"):
        await hooks.restore_checkpoint(RUN, None)


def test_two_providers_conflict_and_both_are_named() -> None:
    with pytest.raises(PluginConflict, match=r"'plugin1' and 'plugin0' both answer"):
        hooks_of(Store(), Store())


async def test_before_in_pluggy_order_after_in_reverse() -> None:
    hooks, heard = trio()
    assert hooks.before_run is not None and hooks.after_run is not None and hooks.checkpoint_saved is not None
    await hooks.before_run(RUN, CONTROL)
    await hooks.after_run(RUN, Completed())
    assert hooks.before_node is not None and hooks.after_node is not None
    await hooks.before_node(RUN, NODE, {})
    await hooks.after_node(RUN, NODE, Completed())
    await hooks.checkpoint_saved(RUN, REF)
    assert [(name, hook) for name, hook, *_ in heard] == [
        *(("a", "before_run"), ("b", "before_run"), ("c", "before_run")),
        *(("c", "after_run"), ("b", "after_run"), ("a", "after_run")),
        *(("a", "before_node"), ("b", "before_node"), ("c", "before_node")),
        *(("c", "after_node"), ("b", "after_node"), ("a", "after_node")),
        *(("a", "checkpoint_saved"), ("b", "checkpoint_saved"), ("c", "checkpoint_saved")),
    ]


async def test_tryfirst_and_trylast_count() -> None:
    heard: list[str] = []

    class First:
        @hookimpl(tryfirst=True)
        async def before_run(self) -> None:
            heard.append("first")

    class Last:
        @hookimpl(trylast=True)
        async def before_run(self) -> None:
            heard.append("last")

    class Middle:
        @hookimpl
        async def before_run(self) -> None:
            heard.append("middle")

    hooks = hooks_of(First(), Middle(), Last())
    assert hooks.before_run is not None
    await hooks.before_run(RUN, CONTROL)
    assert heard == ["first", "middle", "last"]


async def test_fewer_arguments_in_another_order_arrive_at_their_names() -> None:
    heard: list[Any] = []
    hooks = hooks_of(Recorder("a", heard))
    assert hooks.after_node is not None
    outcome = Completed({"output": 1})
    await hooks.after_node(RUN, NODE, outcome)
    assert heard == [("a", "after_node", outcome, NODE)]


@pytest.mark.parametrize("phase", ["run", "node"])
async def test_a_before_that_raises_ends_those_before_it(phase: str) -> None:
    error = ValueError("no")
    hooks, heard = trio(**{f"before_{phase}": error})
    before = getattr(hooks, f"before_{phase}")
    with pytest.raises(HookError) as caught:
        await before(RUN, CONTROL) if phase == "run" else await before(RUN, NODE, {})
    assert (caught.value.plugin, caught.value.hook, caught.value.__cause__) == ("b", f"before_{phase}", error)
    assert [(name, hook) for name, hook, *_ in heard] == [
        ("a", f"before_{phase}"),
        ("b", f"before_{phase}"),
        ("a", f"after_{phase}"),
    ]
    assert heard[-1][2] == Failed(caught.value)


async def test_those_that_had_begun_end_in_reverse_and_all_of_them() -> None:
    heard: list[Any] = []
    third = Recorder("c", heard, before_run=ValueError("no"))
    hooks = hooks_of(third, Recorder("b", heard, after_run=asyncio.CancelledError()), Recorder("a", heard))
    assert hooks.before_run is not None
    with pytest.raises(HookError, match="no"):
        await hooks.before_run(RUN, CONTROL)
    assert [(name, hook) for name, hook, *_ in heard[3:]] == [("b", "after_run"), ("a", "after_run")]


async def test_a_cancellation_during_an_after_does_not_keep_the_news_from_the_others() -> None:
    heard: list[Any] = []
    waits = asyncio.Event()

    class Slow:
        @hookimpl
        async def after_run(self) -> None:
            waits.set()
            await asyncio.Event().wait()

    hooks = hooks_of(Slow(), Recorder("a", heard))  # after_* in reverse: the one registered first hears it first
    assert hooks.after_run is not None
    task = asyncio.ensure_future(hooks.after_run(RUN, Completed()))
    await waits.wait()
    assert heard == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == [("a", "after_run", Completed())]


async def test_a_plugin_without_a_before_hears_no_after_of_what_never_began() -> None:
    heard: list[Any] = []

    class OnlyAfter:
        @hookimpl
        async def after_run(self) -> None:
            heard.append("only after")

    hooks = hooks_of(OnlyAfter(), Recorder("b", heard, before_run=ValueError()), Recorder("a", heard))
    assert hooks.before_run is not None
    with pytest.raises(HookError):
        await hooks.before_run(RUN, CONTROL)
    assert "only after" not in heard


async def test_a_before_that_is_cancelled_ends_those_before_it_as_cancelled() -> None:
    heard: list[Any] = []
    hooks = hooks_of(Recorder("c", heard), Waiting("b", heard), Recorder("a", heard))
    assert hooks.before_run is not None
    await cancelled(hooks.before_run(RUN, CONTROL))
    assert heard[-1] == ("a", "after_run", Cancelled())


async def test_every_after_is_called_and_the_first_error_wins() -> None:
    heard: list[Any] = []
    hooks = hooks_of(
        Recorder("c", heard, after_run=ValueError("of c")), Recorder("b", heard, after_run=KeyError("of b")), Recorder("a", heard)
    )
    assert hooks.after_run is not None
    with pytest.raises(HookError) as caught:
        await hooks.after_run(RUN, Completed())
    assert caught.value.plugin == "c"
    assert caught.value.__notes__ == [
        "and then HookError: plugin 'b' failed in hook 'after_run': KeyError: 'of b'. "
        "Mend the plugin, or run without it: --disable b"
    ]
    assert [name for name, *_ in heard] == ["c", "b", "a"]


async def test_an_error_of_a_before_wins_over_those_of_the_afters_that_it_causes() -> None:
    heard: list[Any] = []
    hooks = hooks_of(Recorder("b", heard, before_run=ValueError("first")), Recorder("a", heard, after_run=ValueError("second")))
    assert hooks.before_run is not None
    with pytest.raises(HookError, match="first") as caught:
        await hooks.before_run(RUN, CONTROL)
    assert "second" in caught.value.__notes__[0]


@pytest.mark.parametrize("plugins", [1, 2])
async def test_a_refusal_rises_as_it_is(plugins: int) -> None:
    for error in (RunExists("r"), KeyboardInterrupt()):
        heard: list[Any] = []
        hooks = hooks_of(*(Recorder(f"p{n}", heard, before_run=error, after_run=error) for n in range(plugins)))
        assert hooks.before_run is not None and hooks.after_run is not None
        for call in (hooks.before_run(RUN, CONTROL), hooks.after_run(RUN, Completed())):
            with pytest.raises(type(error)) as caught:
                await call
            assert caught.value is error


@pytest.mark.parametrize("plugins", [1, 2])
async def test_a_cancellation_rises_as_it_is(plugins: int) -> None:
    hooks = hooks_of(*(Waiting(f"p{n}", []) for n in range(plugins)))
    assert hooks.before_run is not None
    await cancelled(hooks.before_run(RUN, CONTROL))


async def test_a_cancellation_of_what_a_hook_waits_for_is_its_error() -> None:
    hooks, _ = trio(before_run=asyncio.CancelledError(), checkpoint_saved=asyncio.CancelledError())
    assert hooks.before_run is not None and hooks.checkpoint_saved is not None
    with pytest.raises(HookError, match="'b' failed in hook 'before_run': CancelledError"):
        await hooks.before_run(RUN, CONTROL)
    with pytest.raises(HookError, match="'b' failed in hook 'checkpoint_saved': CancelledError"):
        await hooks.checkpoint_saved(RUN, REF)


@pytest.mark.parametrize("hook", ["before_run", "checkpoint_saved", "after_run"])
async def test_what_is_no_exception_is_an_error_of_its_hook_and_the_others_hear_of_it(hook: str) -> None:
    class Other(BaseException):
        """As `pytest.fail` raises."""

    hooks, heard = trio(**{hook: Other("no")})
    arguments = {"before_run": (RUN, CONTROL), "checkpoint_saved": (RUN, REF), "after_run": (RUN, Completed())}
    with pytest.raises(HookError, match=f"'b' failed in hook '{hook}': Other: no"):
        await getattr(hooks, hook)(*arguments[hook])
    told = [name for name, heard_hook, *_ in heard if heard_hook == ("after_run" if hook == "before_run" else hook)]
    assert sorted(told) == (["a"] if hook == "before_run" else ["a", "b", "c"])


async def test_a_hook_error_raised_by_a_hook_names_the_outer_plugin() -> None:
    inner = HookError("other", "after_run", ValueError())
    hooks = hooks_of(Recorder("a", [], after_run=inner))
    assert hooks.after_run is not None
    with pytest.raises(HookError) as caught:
        await hooks.after_run(RUN, Completed())
    assert (caught.value.plugin, caught.value.__cause__) == ("a", inner)


def test_the_binding_is_frozen() -> None:
    with pytest.raises(AttributeError):
        hooks_of().before_run = None  # type: ignore[misc]
    assert not hasattr(hooks_of(), "__dict__")


def test_one_file_asks_pluggy_who_answers() -> None:
    root = Path(hookspecs.__file__).parents[1]
    callers = [
        path.relative_to(root).as_posix()
        for package in ("hookspecs", "workflow_runner", "checkpoint_plugin")
        for path in (root / package).rglob("*.py")
        if re.search(r"\bmanager\.hook\b|\bpm\.hook\b|get_hookimpls|subset_hook_caller", path.read_text())
    ]
    assert callers == ["hookspecs/binding.py"]
