"""The hooks. All but `register_codecs` are `async def`; a plugin implements those it needs as methods marked `@hookimpl`.

*Provider*: at most one enabled plugin answers. *Listener*: any number hear it, one after the other in pluggy's order
(last registered first; `tryfirst` and `trylast` count), `after_*` in reverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hookspecs.codecs import CodecRegistry
from hookspecs.markers import hookspec
from hookspecs.outcome import Outcome
from hookspecs.run import NodeInfo, RunControl, RunInfo
from hookspecs.snapshot import Answer, CheckpointChoice, CheckpointRef, Snapshot

__all__ = ["CheckpointHooks", "CodecHooks", "NodeHooks", "RunLifeHooks"]


class RunLifeHooks:
    """The life of a run."""

    @hookspec
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        """A run is about to begin.

        When: the graph is validated, nothing has started. It is cancelled where a run that is stopped has waited for it
            for the grace period.
        Receives: the run; the control by which checkpoints are asked for.
        Returns: nothing.
        Raises: a `Refusal` (for example `RunExists`) to stop the run before it begins.
        Kind: listener.
        """

    @hookspec
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        """A run has ended.

        When: exactly once for every `before_run` that returned, shielded from the cancellation of the caller; no node runs any
            more.
        Receives: the run; how it ended.
        Returns: nothing.
        Raises: nothing on purpose.
        Kind: listener, in reverse order.
        """


class NodeHooks:
    """The firings of nodes."""

    @hookspec
    async def before_node(self, run: RunInfo, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        """A firing is about to begin.

        When: its arguments are complete, the body has not been called.
        Receives: the run; the node and which firing; the plain arguments by handle (do not change them).
        Returns: nothing.
        Raises: nothing on purpose; what it raises fails the run before the body is called.
        Kind: listener.
        """

    @hookspec
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        """A firing has ended.

        When: exactly once for every `before_node` that returned, also on failure and cancellation. After a plain
            body the outputs are already final (in any later cut) but not yet sent on. A run that is stopped waits for it
            for the grace period, also after its last node.
        Receives: the run; the node and which firing; how it ended.
        Returns: nothing.
        Raises: nothing on purpose.
        Kind: listener, in reverse order.
        """


class CheckpointHooks:
    """Cuts that become durable and come back."""

    @hookspec
    async def restore_checkpoint(self, run: RunInfo, checkpoint_id: CheckpointChoice) -> Snapshot | None:
        """Give back a cut to go on from.

        When: after `before_run` of a resumed run, before the first actor. It is cancelled as `before_run`.
        Receives: the run; the checkpoint's number, `None` for the newest, `"latest-intact"` for the newest that is not
            damaged. What is older than the newest becomes the newest with the next save, which is asked for before anything
            goes on, and those that came later stay.
        Returns: the cut with every node that had moved; `None` when the run has no checkpoint yet and starts from
            its stored inputs.
        Raises: `StoreError` when the cut is damaged, never another cut.
        Kind: provider, from the same plugin as `save_checkpoint`.
        """

    @hookspec
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        """Make a cut durable.

        When: a cut was taken; the next save of this run is not asked for before this one has returned.
        Receives: the run; the cut, holding the nodes that changed since the last save; why it was taken.
        Returns: the reference, once the cut is as durable as the mode promises; `None` when it could not be saved and
            the run shall go on all the same (`RunControl.degrade`): then the next save holds these nodes, too.
        Raises: `StoreError` when it cannot be saved, `LeaseLost` when another worker took the run over.
        Kind: provider, from the same plugin as `restore_checkpoint`.
        """
        raise NotImplementedError  # a spec is never called

    @hookspec
    async def checkpoint_saved(self, run: RunInfo, ref: CheckpointRef) -> None:
        """A cut is durable.

        When: after every `save_checkpoint` that gave a reference: a source may acknowledge upstream.
        Receives: the run; the reference.
        Returns: nothing.
        Raises: nothing on purpose.
        Kind: listener.
        """

    @hookspec
    async def fetch_answers(self, run: RunInfo) -> Sequence[Answer] | None:
        """Tell what people have brought for suspended nodes of a run that is executed.

        When: after `restore_checkpoint`, where a node of the newest cut waits; about once a second while a node waits and
            others go on; once it is durable that the time of a node has passed; and before the run ends as suspended. It is
            cancelled where a run that is stopped has waited for it for the grace period.
        Receives: the run.
        Returns: the answers that are kept for it; `None` where they cannot be read now, and nobody is woken by a time before
            they can. One whose node does not wait since then is passed over. The others are taken: the next cut, with reason
            `answer`, tells that their nodes are answered, and they go on when it is durable.
        Raises: `StoreError` after `restore_checkpoint`, where they cannot be read: the resume is refused.
        Kind: provider, from the same plugin as `save_checkpoint`.
        """
        raise NotImplementedError  # a spec is never called


class CodecHooks:
    """What a store learns before it reads or writes."""

    @hookspec
    def register_codecs(self, registry: CodecRegistry) -> None:
        """Teach a store your own types.

        When: a run's store opens, before anything is read or written; and when stored runs are read without their run,
            for plugins registered in code.
        Receives: the registry, of this run alone: call its `register` for each class.
        Returns: nothing.
        Raises: nothing on purpose.
        Kind: listener, a plain `def`.
        """
