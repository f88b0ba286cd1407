"""A stored run, read by the plugin that has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from hookspecs import (
    CodecLoader,
    HookError,
    OptionLoader,
    PluginHost,
    PoolLoader,
    ResourcePool,
    RunLoader,
    StoredRun,
    WorkflowError,
)

__all__ = ["LoadedRun", "open_run"]


@dataclass(slots=True)
class LoadedRun:
    """What a resume begins with.

    Args:
        plugin: the name of the one that stores runs.
        loader: reads them.
        stored: the run.
        url: of the store; `None` for the default place.
    """

    plugin: str
    loader: RunLoader
    stored: StoredRun
    url: str | None

    async def read_outputs(self) -> None:
        """Read it again, with the outputs that a completed run collected."""
        self.stored = await _load(self.plugin, self.loader, self.stored.run_id, outputs=True)


@asynccontextmanager
async def open_run(
    host: PluginHost,
    run_id: str,
    enable: Mapping[str, Any],
    url: str | None,
    pool: ResourcePool | None,
    *,
    outputs: bool,
    enabled_by_graph: Mapping[str, Any],
) -> AsyncIterator[LoadedRun]:
    """Read a run; its loader is closed after the body of the statement.

    Args:
        host: knows the plugins.
        run_id: which.
        enable: what the caller switches on, by plugin name: of several with a store the one that is named is asked.
        url: where the store is; `None` for where the options in `enable` say, then those of the graph, or the default place.
        pool: of an open runner.
        outputs: read those of a completed run, too.
        enabled_by_graph: what the caller's graph enables, which is where its runs were stored.

    Raises:
        RunNotFound, StoreError: the store has no such run, is missing or damaged.
        PluginMissing, PluginConflict: no plugin, or more than one, could be asked.
        HookError: the loader failed.
    """
    name, factory = host.store_factory(host.store_named(enable))
    options = enable.get(name)
    for places in (options, enabled_by_graph.get(name)):
        if url is None and isinstance(places, Mapping):
            url = places.get("url")
    with _named(name, "load"):
        loader = factory(url)
        if not all(callable(getattr(loader, method, None)) for method in ("load", "close")):
            raise TypeError(f"its entry gave {type(loader).__name__}. Return a RunLoader")
        if isinstance(loader, CodecLoader):
            loader.learn(host.teacher())
        if isinstance(loader, OptionLoader) and isinstance(options, Mapping):
            loader.use(options)
        if isinstance(loader, PoolLoader) and pool is not None:
            loader.share(pool)
    try:
        yield LoadedRun(name, loader, await _load(name, loader, run_id, outputs=outputs), url)
    except BaseException as error:
        await _close(name, loader, error)
        raise
    await _close(name, loader)


async def _load(plugin: str, loader: RunLoader, run_id: str, *, outputs: bool) -> StoredRun:
    with _named(plugin, "load"):
        stored = await loader.load(run_id, outputs=outputs)
        if not isinstance(stored, StoredRun):
            raise TypeError(f"it gave {type(stored).__name__}. Return a StoredRun, or raise RunNotFound")
    return stored


async def _close(plugin: str, loader: RunLoader, ended_by: BaseException | None = None) -> None:
    """Close a loader; what it raises hides no error that the run ended with."""
    try:
        with _named(plugin, "close"):
            await loader.close()
    except WorkflowError as error:
        if ended_by is None:
            raise
        ended_by.add_note(f"and then {type(error).__name__}: {error}")


@contextmanager
def _named(plugin: str, method: str) -> Iterator[None]:
    """Have what a loader raises name its plugin, but for what it raises on purpose."""
    try:
        yield
    except WorkflowError:
        raise
    except Exception as error:
        raise HookError(plugin, method, error) from error
