"""What a hook learns of the run and the node it is called for, and how it asks for checkpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from hookspecs.codecs import TeachCodecs
from hookspecs.errors import WorkflowError
from hookspecs.pool import ResourcePool
from hookspecs.snapshot import CheckpointRef, RunStatus

__all__ = ["CodecLoader", "NodeInfo", "OptionLoader", "PoolLoader", "RunControl", "RunInfo", "RunLoader", "StoredRun"]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One attempt of one run.

    Args:
        run_id: 1 to 200 characters.
        attempt: 1 for a new run, one more at each resume.
        graph: the workflow's document (`nodes`, `edges`), with Python values in `data`; a dict, or, of a graph that was compiled
            and of a run that is resumed, `GraphColumns` that equal it, of which `dict` makes one.
        inputs: the values given for `workflow.Input` nodes, by input name.
        enable: the options of the enabled plugins, by plugin name. What a plugin stores of them must not hold a url.
        teach: has everybody register their types with a registry (hook `register_codecs`); `None` without a runner.
        steal: take a run that is resumed from another worker that still holds it.
        loader: of a run that is resumed, what read it; open until the run is over, so that its plugin can go on with what it
            holds instead of opening the store once more.
        pool: what plugins keep open between runs; `None` where the runner is not open, and nothing is kept.
    """

    run_id: str
    attempt: int
    graph: Mapping[str, Any]
    inputs: Mapping[str, Any]
    enable: Mapping[str, Any]
    teach: TeachCodecs | None = field(default=None, repr=False, compare=False)
    steal: bool = False
    loader: RunLoader | None = field(default=None, repr=False, compare=False)
    pool: ResourcePool | None = field(default=None, repr=False, compare=False)

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt of this run is stored."""
        return self.attempt > 1


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One firing of one node.

    Args:
        node_id: the node.
        type: its type's name.
        firing: which firing of the node, from 1; of a lane the number of its item.
        attempt: how often this step was begun, from 1.
    """

    node_id: str
    type: str
    firing: int
    attempt: int


class RunControl(Protocol):
    """What the runner lets a plugin steer; valid from `before_run` until `after_run` returns."""

    def request(self, reason: str) -> Awaitable[CheckpointRef | None]:
        """Ask for a checkpoint.

        Requests that arrive while a save is under way share the next cut.

        Args:
            reason: stored with the checkpoint.

        Returns:
            An awaitable for the durable checkpoint; nobody has to await it. `None` when nothing is stored. In `before_run`,
            `save_checkpoint` and `checkpoint_saved` to await it raises: the next cut is taken when they have returned.
            When the run is over it is the last one; it is cancelled where the run ends without one.
        """

    def hold_outputs(self, reason: str) -> None:
        """From now on an emission leaves its node only when a cut that holds it is durable (`every_firing`).

        Args:
            reason: stored with the checkpoints that this asks for.
        """

    def follow_outputs(self, reason: str, max_steps: int, max_bytes: int) -> None:
        """From now on every emission asks for a checkpoint and nobody waits for it (`every_firing` written behind).

        A cut is taken when the one before is durable, and holds all that was done meanwhile; the runner may leave as much time
        between two as the first of them took, at most 20 ms. Who is further ahead of the last durable cut than the bounds allow
        waits until it is durable.

        Args:
            reason: stored with the checkpoints that this asks for.
            max_steps: emissions that may be ahead of the last durable cut.
            max_bytes: bytes of checkpoint that may be ahead, as the last checkpoint's size lets expect; no bound where the
                store tells none (`bytes` in `CheckpointRef.details`).
        """

    def degrade(self, reason: str) -> None:
        """Tell that the run goes on without the durability it was promised; it is told with the run's result.

        Args:
            reason: for people; the first one counts.
        """

    def fail(self, error: WorkflowError) -> None:
        """Stop the run at once, with this error: no last cut is taken, and nothing more leaves a node.

        Where plugins still open the run it ends when they have, or after the grace period that bodies have.

        Args:
            error: what the run ends with; nothing happens when it is already over.
        """

    def save_at(self, *moments: str) -> None:
        """Choose at which ends of a run the runner takes a last cut by itself.

        Args:
            moments: of `"error"`, `"signal"` (any stop from outside), `"cancel"`; none before this is called. The end of a run
                that is completed or suspended is always saved; `"end"` and `"suspend"` may be named all the same.

        Raises:
            ValueError: a moment is none of these.
        """


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as a store has it, enough to begin the next attempt.

    Args:
        run_id: the run.
        attempt: the newest attempt that began.
        status: of the run.
        graph: the workflow's document, as in `RunInfo`; `GraphColumns` are looked through in a fraction of the time.
        inputs: as in `RunInfo`.
        enable: as in `RunInfo`.
        outputs: the collected items by output name when the run is completed, else `None`.
        over: nodes that seem to have completed, so that a runner need not prepare them; the restored cut says whether they have.
    """

    run_id: str
    attempt: int
    status: RunStatus
    graph: Mapping[str, Any]
    inputs: Mapping[str, Any]
    enable: Mapping[str, Any]
    outputs: Mapping[str, Sequence[Any]] | None = None
    over: frozenset[str] = frozenset()


class RunLoader(Protocol):
    """Reads stored runs for `resume`; what an entry of `workflow_runner.stores` makes from a url.

    The entry is `factory(url: str | None) -> RunLoader`; `None` means the default place. Making one opens nothing.
    """

    async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
        """Read one run.

        Args:
            run_id: which.
            outputs: read those of a completed run, too.

        Raises:
            RunNotFound: the store has no such run.
            StoreError: the store is missing, damaged or cannot be read.
        """

    async def close(self) -> None:
        """Let go of the store, but for what a plugin took over (`RunInfo.loader`); called when the run is over."""


@runtime_checkable
class CodecLoader(RunLoader, Protocol):
    """A loader that wants to know the types of the values that it reads."""

    def learn(self, teach: TeachCodecs) -> None:
        """Be told before the first run is read.

        Args:
            teach: to be called with the loader's registry.
        """


@runtime_checkable
class OptionLoader(RunLoader, Protocol):
    """A loader that needs more than a url to read a run: keys, for example, or where parts of it lie."""

    def use(self, options: Mapping[str, Any]) -> None:
        """Be told before the first run is read what its caller gives the plugin of the loader's name.

        Args:
            options: without those that are stored with the run.

        Raises:
            PluginOptionsInvalid: one is unknown or has a wrong value.
        """


@runtime_checkable
class PoolLoader(RunLoader, Protocol):
    """A loader that keeps what it opens for later runs of an open runner."""

    def share(self, pool: ResourcePool) -> None:
        """Be told before the first run is read where such things are kept.

        Args:
            pool: as in `RunInfo`.
        """
