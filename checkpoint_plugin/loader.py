"""Stored runs for `resume`: what the entry point of the store gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from checkpoint_plugin.policy import Policy
from hookspecs import ResourcePool, RunNotFound, RunStatus, StoredRun, TeachCodecs

if TYPE_CHECKING:
    from checkpoint_plugin.database.location import Location
    from checkpoint_plugin.opening.connections import Connections
    from checkpoint_plugin.restoring.reading import Seen
    from checkpoint_plugin.store import Store

__all__ = ["CheckpointLoader", "Taken", "open_loader"]

TOLD: Final = ("key_provider", "blobs", "blob_bytes", "auto_migrate")
"""Options of the plugin without which a run may not even be read."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a loader hands over to who goes on with the run.

    Args:
        connections: to the store; to be closed by who took them.
        seen: of the run's newest checkpoint.
    """

    connections: Connections
    seen: Seen | None


def open_loader(url: str | None) -> CheckpointLoader:
    """Make a loader; nothing is opened before the first run is asked for.

    Args:
        url: of the store; `None` for the default.
    """
    return CheckpointLoader(url)


class CheckpointLoader:
    """Reads stored runs; it creates nothing."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._store: Store | None = None
        self._teach: TeachCodecs | None = None
        self._policy = Policy()
        self._seen: dict[str, Seen | None] = {}
        self._pool: ResourcePool | None = None
        self._is_sound = False
        """Whether the last read went well."""

    def learn(self, teach: TeachCodecs) -> None:
        """Be told the types of stored values; see `CodecLoader`."""
        self._teach = teach

    def use(self, options: Mapping[str, Any]) -> None:
        """Be told where the keys of a run are, and its large values; see `OptionLoader`."""
        self._policy = Policy.from_options({name: options[name] for name in TOLD if name in options})

    def share(self, pool: ResourcePool) -> None:
        """Be told where connections are kept for later runs; see `PoolLoader`."""
        self._pool = pool

    async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
        """Read one run.

        Args:
            run_id: which.
            outputs: read those of a completed run, too.

        Raises:
            StoreMissing: there is no store.
            RunNotFound: it has no such run.
            NotResumable: the run was saved by hand.
            StoreDamaged: the run's row, or the outputs of a completed run, are not what was written.
        """
        from checkpoint_plugin.blobs.files import Blobs
        from checkpoint_plugin.codec import Codec
        from checkpoint_plugin.database.location import locate
        from checkpoint_plugin.errors import NotResumable, StoreDamaged
        from checkpoint_plugin.opening.connections import Connections
        from checkpoint_plugin.store import RunHistory, Store
        from checkpoint_plugin.stored_bytes.encryption import KeyRing

        if self._store is None:
            policy, location = self._policy, locate(self._url)
            codec = Codec.taught(self._teach) if self._teach is not None else None
            ring = KeyRing.from_environment(policy.key_provider)
            blobs = Blobs(location, policy.blobs, policy.blob_bytes)
            self._store = Store(
                location,
                create=False,
                codec=codec,
                ring=ring,
                auto_migrate=policy.auto_migrate,
                blobs=blobs,
                connections=await Connections.take(self._pool, location, create=False),
            )
        self._is_sound = False
        try:
            job = await self._store.load_job(run_id)
        except RunNotFound:
            self._is_sound = True
            raise
        if not job.by_runner:
            raise NotResumable(
                run_id,
                "it was saved by hand, not by a runner: what is on its edges is not stored. "
                "Go on with it by CheckpointManager.restore_checkpoint, or by a RecoveryService with a function `execute`",
            )
        over = frozenset() if job.seen is None else job.seen.over
        self._seen[run_id] = job.seen
        found: dict[str, Sequence[Any]] | None = None
        if outputs and job.status == "completed":
            cut = await self._store.restore(RunHistory(run_id, job.attempt), None, brief=True, seen=job.seen)
            if cut is None or cut.status != "completed":
                now = await self._store.load_job(run_id)
                if (now.attempt, now.status) != (job.attempt, job.status):  # somebody has gone back to a checkpoint since
                    return await self.load(run_id)
                raise StoreDamaged(run_id, "it is marked as completed, and its last checkpoint is not there")
            collected = {node.node_id: node.collected for node in cut.nodes}
            found = {name: collected.get(node_id, ()) for name, node_id in _outputs(job.graph).items()}
        self._is_sound = True
        return StoredRun(run_id, job.attempt, cast("RunStatus", job.status), job.graph, job.inputs, job.enable, found, over)

    async def take(self, location: Location, run_id: str) -> Taken | None:
        """Hand over the connections to a store, and what was read of a run, to who goes on with it.

        Args:
            location: of the store that is wanted.
            run_id: the run.

        Returns:
            `None` when it is another store, or none was opened.
        """
        store = self._store
        if store is None or store.location != location:
            return None
        self._store = None
        return Taken(store.leave(), self._seen.get(run_id))

    async def close(self) -> None:
        """Close the store, or keep its connections for a later run, unless it was taken."""
        store, self._store = self._store, None
        if store is None:
            return
        await store.leave().give(self._pool, is_sound=self._is_sound)


def _outputs(graph: Mapping[str, Any]) -> dict[str, str]:
    """The output nodes of a document by the name of their output."""
    nodes = [node for node in graph["nodes"] if node["type"] == "workflow.Output"]
    return {(node["data"].get("name") or node["id"]): node["id"] for node in nodes}
