"""A stored run, read by the plugin that has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
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
    """

    plugin: str
    loader: RunLoader
    stored: StoredRun

    async def read_outputs(self) -> None:
        """Read it again, with the outputs that a completed run collected."""
        self.stored = await _load(self.plugin, self.loader, self.stored.run_id, outputs=True)


@asynccontextmanager
async def open_run(
    host: PluginHost, run_id: str, enable: Mapping[str, Any], url: str | None, pool: ResourcePool | None, *, outputs: bool
) -> AsyncIterator[LoadedRun]:
    """Read a run; its loader is closed after the body of the statement.

    Args:
        host: knows the plugins.
        run_id: which.
        enable: what the caller switches on, by plugin name: of several with a store the one that is named is asked.
        url: where the store is; `None` for where the options in `enable` say, or the default place.
        pool: of an open runner.
        outputs: read those of a completed run, too.

    Raises:
        RunNotFound, StoreError: the store has no such run, is missing or damaged.
        PluginMissing, PluginConflict: no plugin, or more than one, could be asked.
        HookError: the loader failed.
    """
    name, factory = host.store_factory(host.store_named(enable))
    options = enable.get(name)
    if url is None and isinstance(options, Mapping):
        url = options.get("url")
    loader = factory(url)
    if isinstance(loader, CodecLoader):
        loader.learn(host.teacher())
    if isinstance(loader, OptionLoader) and isinstance(options, Mapping):
        loader.use(options)
    if isinstance(loader, PoolLoader) and pool is not None:
        loader.share(pool)
    try:
        yield LoadedRun(name, loader, await _load(name, loader, run_id, outputs=outputs))
    finally:
        await loader.close()


async def _load(plugin: str, loader: RunLoader, run_id: str, *, outputs: bool) -> StoredRun:
    try:
        stored = await loader.load(run_id, outputs=outputs)
        if not isinstance(stored, StoredRun):
            raise TypeError(f"it gave {type(stored).__name__}. Return a StoredRun, or raise RunNotFound")
    except WorkflowError:
        raise
    except Exception as error:
        raise HookError(plugin, "load", error) from error
    return stored
