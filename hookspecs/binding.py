"""From a run's plugins to typed callables, once a run: a call site tests for `None` and awaits.

This is the only file that asks pluggy who answers a hook.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Final

import pluggy

from hookspecs.codecs import CodecRegistry, TeachCodecs
from hookspecs.errors import HookError, PluginConflict, Refusal, WorkflowError, shorten
from hookspecs.outcome import Cancelled, Failed, Outcome
from hookspecs.run import NodeInfo, RunControl, RunInfo
from hookspecs.snapshot import Answer, CheckpointChoice, CheckpointRef, Snapshot

__all__ = ["NO_HOOKS", "RunHooks", "bind_hooks"]

AsyncCall = Callable[..., Coroutine[Any, Any, Any]]
TO_END: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends the process, or the coroutine from outside; it is nobody's error."""


@dataclass(frozen=True, slots=True)
class RunHooks:
    """The hooks of one run; `None` where nobody listens. The arguments are those of the specs, by position."""

    before_run: Callable[[RunInfo, RunControl], Coroutine[Any, Any, None]] | None = None
    after_run: Callable[[RunInfo, Outcome], Coroutine[Any, Any, None]] | None = None
    before_node: Callable[[RunInfo, NodeInfo, Mapping[str, Any]], Coroutine[Any, Any, None]] | None = None
    after_node: Callable[[RunInfo, NodeInfo, Outcome], Coroutine[Any, Any, None]] | None = None
    restore_checkpoint: Callable[[RunInfo, CheckpointChoice], Coroutine[Any, Any, Snapshot | None]] | None = None
    save_checkpoint: Callable[[RunInfo, Snapshot, str], Coroutine[Any, Any, CheckpointRef | None]] | None = None
    checkpoint_saved: Callable[[RunInfo, CheckpointRef], Coroutine[Any, Any, None]] | None = None
    fetch_answers: Callable[[RunInfo], Coroutine[Any, Any, Sequence[Answer] | None]] | None = None
    register_codecs: TeachCodecs | None = None


NO_HOOKS: Final = RunHooks()


@dataclass(frozen=True, slots=True)
class Implementation:
    """One plugin's implementation of one hook, called with the spec's arguments by position."""

    plugin: str
    call: AsyncCall


def bind_hooks(manager: pluggy.PluginManager) -> RunHooks:
    """Bind what the registered plugins implement.

    Args:
        manager: of one run, with the specs added and its plugins registered; what is registered later is not heard.

    Raises:
        PluginConflict: two plugins answer one provider hook.
    """
    return RunHooks(
        before_run=_before(_answers(manager, "before_run"), _answers(manager, "after_run"), _fail),
        after_run=_tell_all(_answers(manager, "after_run")[::-1]),
        before_node=_before(_answers(manager, "before_node"), _answers(manager, "after_node")),
        after_node=_tell_all(_answers(manager, "after_node")[::-1]),
        restore_checkpoint=_provider(manager, "restore_checkpoint", partial(_give, Snapshot)),
        save_checkpoint=_provider(manager, "save_checkpoint", partial(_give, CheckpointRef)),
        checkpoint_saved=_tell_all(_answers(manager, "checkpoint_saved")),
        fetch_answers=_provider(manager, "fetch_answers", _list_answers),
        register_codecs=_teach_all(_implementations(manager, "register_codecs")),
    )


def _answers(manager: pluggy.PluginManager, hook: str) -> list[Implementation]:
    """Who answers an awaited hook, in the order in which pluggy would call them."""
    return [Implementation(name, _guarded(name, hook, call)) for name, call in _implementations(manager, hook)]


def _implementations(manager: pluggy.PluginManager, hook: str) -> list[tuple[str, Callable[..., Any]]]:
    """The implementations of a hook by plugin, each taking the spec's arguments by position."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    assert caller.spec is not None
    wanted = tuple(caller.spec.argnames)
    return [(impl.plugin_name, _fitted(impl.function, tuple(impl.argnames), wanted)) for impl in reversed(caller.get_hookimpls())]


def _fitted(function: Callable[..., Any], takes: Sequence[str], given: Sequence[str]) -> Callable[..., Any]:
    """The function, called with all of the spec's arguments where it takes fewer or has them in another order."""
    if tuple(takes) == tuple(given):
        return function
    places = [given.index(name) for name in takes]
    if not places:
        return lambda *arguments: function()
    if len(places) == 1:
        place = places[0]
        return lambda *arguments: function(arguments[place])
    pick = itemgetter(*places)
    return lambda *arguments: function(*pick(arguments))


def _guarded(plugin: str, hook: str, function: AsyncCall) -> AsyncCall:
    async def call(*arguments: Any) -> Any:
        try:
            return await function(*arguments)
        except Refusal:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise HookError(plugin, hook, error) from error  # of something that the hook waited for: nobody cancelled the run
        except TO_END:
            raise
        except BaseException as error:  # `pytest.fail` raises one that is no Exception: the others must hear of it all the same
            raise HookError(plugin, hook, error) from error

    return call


def _provider(manager: pluggy.PluginManager, hook: str, check: Callable[[RunInfo, Any], Any]) -> AsyncCall | None:
    answers = _implementations(manager, hook)
    if len(answers) > 1:
        names = " and ".join(repr(plugin) for plugin, _ in answers)
        raise PluginConflict(
            answers[0][0],
            f"plugins {names} both answer {hook!r}, and a run has one. Disable all but one of them for this run.",
        )
    return _guarded(answers[0][0], hook, _checked(answers[0][1], check)) if answers else None


def _checked(function: AsyncCall, check: Callable[[RunInfo, Any], Any]) -> AsyncCall:
    """The function, refused where it gives what the hook does not: who took that would fail far from its plugin, or go on with
    the work of another run."""

    async def call(run: RunInfo, *arguments: Any) -> Any:
        return check(run, await function(run, *arguments))

    return call


def _give(kind: type[Snapshot] | type[CheckpointRef], run: RunInfo, given: Any) -> Any:
    """One of this kind, of the run, or `None`."""
    if given is None:
        return None
    if not isinstance(given, kind):
        raise TypeError(f"it gave {type(given).__name__}. Return a {kind.__name__}, or None.")
    if given.run_id != run.run_id:
        raise ValueError(f"it gave a {kind.__name__} of run {given.run_id!r}. Return one of run {run.run_id!r}, or None.")
    return given


def _list_answers(run: RunInfo, given: Any) -> Any:
    """Any number of answers, in a list or a tuple, or `None`."""
    is_list = isinstance(given, (list, tuple)) and all(isinstance(answer, Answer) for answer in given)
    if given is not None and not is_list:
        raise TypeError(f"it gave {shorten(given, 200)}. Return a list of Answer, or None.")
    return given


def _teach_all(teachers: list[tuple[str, Callable[..., Any]]]) -> TeachCodecs | None:
    """One after the other; the first error rises."""
    if not teachers:
        return None

    def teach_all(registry: CodecRegistry) -> None:
        for plugin, call in teachers:
            try:
                call(registry)
            except Refusal:
                raise
            except Exception as error:
                raise HookError(plugin, "register_codecs", error) from error

    return teach_all


def _tell_all(answers: list[Implementation]) -> AsyncCall | None:
    """One after the other; an error does not keep the news from the others, the first one rises."""
    if len(answers) < 2:
        return answers[0].call if answers else None
    calls = [answer.call for answer in answers]

    async def tell_all(*arguments: Any) -> None:
        first: BaseException | None = None
        for call in calls:
            try:
                await call(*arguments)
            except (Exception, asyncio.CancelledError) as error:
                if first is None:
                    first = error
                else:
                    first.add_note(f"and then {type(error).__name__}: {error}")
        if first is not None:
            raise first

    return tell_all


def _fail(error: WorkflowError, run: RunInfo, control: RunControl) -> None:
    """The run ends here: who waits for a checkpoint that was asked for in `before_run` must not wait in `after_run` for ever."""
    control.fail(error)


def _before(
    befores: list[Implementation], afters: list[Implementation], fail: Callable[..., None] | None = None
) -> AsyncCall | None:
    """One after the other; when one raises, those whose `before_*` had returned hear their `after_*` first.

    Args:
        befores: who is told.
        afters: who may have to be told.
        fail: called with the error and the arguments of the hook before the latter are.
    """
    if len(befores) < 2:
        return befores[0].call if befores else None

    async def before(*arguments: Any) -> None:
        begun: set[str] = set()
        for answer in befores:
            try:
                await answer.call(*arguments)
            except (Exception, asyncio.CancelledError) as error:
                outcome = Failed(error) if isinstance(error, Exception) else Cancelled()
                unwind = _tell_all([after for after in reversed(afters) if after.plugin in begun])
                if unwind is not None:
                    if fail is not None and isinstance(error, WorkflowError):
                        fail(error, *arguments)
                    try:
                        # A spec's last argument is what differs between before and after: (run, node, inputs | outcome).
                        await unwind(*arguments[:-1], outcome)
                    except (Exception, asyncio.CancelledError) as other:
                        error.add_note(f"and then {type(other).__name__}: {other}")
                raise
            begun.add(answer.plugin)

    return before
