"""A fork: another run, which begins where a run stood in one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import select

from checkpoint_plugin.bounds import LARGEST_VALUE
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import FieldInvalid, NotForkable, StoreUnreachable
from checkpoint_plugin.models import CHECKPOINT
from checkpoint_plugin.opening.witness import Witness
from checkpoint_plugin.policy import NAME
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.saving.completed import Tally
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.saving.rows import GraphPlaces
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.digests import cut_hash_of
from checkpoint_plugin.tables.definition import define
from checkpoint_plugin.tables.first_rows import FirstRows, make_run
from checkpoint_plugin.tables.lease import first_epoch
from hookspecs import RunExists, RunInfo, RunStatus, Snapshot, run_id_problem

__all__ = ["fork_run"]

KEPT: Final = ("user_id", "workflow_id", "job_type", "max_retries", "metadata_json")
"""What whoever began the run has said of it in its row."""


async def fork_run(
    run_id: str, new_id: str, checkpoint: int | None = None, *, url: str | None = None, store: Store | None = None
) -> int:
    """Make another run that begins where a run stood in a checkpoint; as `workflow fork`.

    The run itself stays as it is, and may be executed meanwhile. The new one has the same graph, inputs and options, what the row
    says of whose it is, all that was done up to the checkpoint, and one checkpoint; it is executed by a resume. It is another
    run: the idempotency keys of its steps are its own, and answers and cancellations reach one of the two.

    Args:
        run_id: the run.
        new_id: of the run that is made.
        checkpoint: the number of the checkpoint; the newest without.
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.

    Returns:
        The number of the checkpoint that it begins with in `run_id`.

    Raises:
        RunNotFound: there is no such run.
        RunExists: there is a run `new_id`.
        FieldInvalid: `new_id` cannot be the id of a run.
        NotForkable: it has no checkpoint, or was saved by hand; or the checkpoint is its end, after which there is nothing to do.
        ValueNotReadable: a value is of a type that nobody has registered here.
        StoreDamaged: what is stored is not what was written.
        StoreError: there is no such checkpoint, or the store cannot be used. In all of these cases nothing was written, but where
            the error says that it is not known.
    """
    if (problem := run_id_problem(new_id)) is not None:
        raise FieldInvalid(f"fork of run {run_id!r}", problem)
    async with StoreAccess(url, store).open(create=False) as opened:
        return await _fork(opened, run_id, new_id, checkpoint)


async def _fork(store: Store, run_id: str, new_id: str, checkpoint: int | None) -> int:
    job = await store.load_job(run_id)
    if not job.by_runner:
        raise NotForkable(run_id, "it was saved by hand, and a manager of another id can save what one of this id restores")
    old, witness = RunHistory(run_id, job.attempt), _witness(job.enable)
    found = await store.restore(old, checkpoint)
    if witness is not None and checkpoint is None:  # as a resume does
        noted = (0, None) if found is None else (old.number, cut_hash_of(old.total))
        await store.compute(partial(witness.check, run_id, *noted))
    if found is None:
        raise NotForkable(run_id, "it has no checkpoint yet")
    assert found.number is not None
    if found.status == "completed":
        why = f"checkpoint {found.number} is its end, and leaves nothing to do. Name an earlier one with --checkpoint"
        raise NotForkable(run_id, why)
    info = RunInfo(new_id, 1, job.graph, job.inputs, job.enable)
    codec = replace(store.codec, max_value_bytes=LARGEST_VALUE)  # all of it was stored: the run allows what it holds
    definition = await store.compute(partial(define, info, codec))
    epoch, row = first_epoch(), await JobRepository(store=store).get(run_id)
    rows, seal = store.first_rows(new_id, definition, None, 0.0, epoch, {name: getattr(row, name) for name in KEPT})
    history = RunHistory(new_id, 1, epoch, GraphPlaces(job.graph), tally=Tally(), seal=seal)
    reason = f"fork of {run_id}, {found.number}"
    blobs = store.blobs if store.blobs.writes else None
    cut = CutWriter(history, _beginning(found, new_id), reason, codec, blobs)
    first = _FirstCut(rows, cut)
    try:
        written = await store.write(first)
    except StoreUnreachable as error:
        if error.undone:
            raise
        written = await store.write(first)  # which finds out whether it was
    if not written:
        await store.compute(cut.discard)
        raise RunExists(new_id)
    store.keys.remember(new_id, seal)
    if witness is not None:
        await store.compute(partial(witness.forget, new_id))
    return found.number


def _beginning(found: Snapshot, new_id: str) -> Snapshot:
    """A cut as the first of another run, which nobody executes yet; one that waits for answers goes on to."""
    # "recovering": an answer that came while a recovery had claimed the run.
    status: RunStatus = "suspended" if found.status in ("suspended", "recovering") else "paused"
    return replace(found, run_id=new_id, attempt=1, status=status, taken_at=datetime.now(UTC), error=None, error_node_id=None)


def _witness(enable: Mapping[str, Any]) -> Witness | None:
    """Where the run notes its checkpoints; what is noted there under the new id is of a run that was deleted."""
    options = enable.get(NAME)
    folder = options.get("witness") if isinstance(options, Mapping) else None
    return None if folder is None else Witness(folder)


class _FirstCut:
    """The rows of a run and its first checkpoint: all of it, or nothing. A run without the checkpoint would begin anew.

    It can be tried again: a try that was done all the same is recognised.

    Args:
        rows: of the run.
        cut: the checkpoint.
    """

    def __init__(self, rows: FirstRows, cut: CutWriter) -> None:
        self._rows = rows
        self._cut = cut

    @property
    def run_id(self) -> str:
        """The new run."""
        return self._cut.run_id

    def encode(self) -> None:
        """Turn the cut into rows."""
        self._cut.encode()

    def write(self, connection: Connection) -> bool:
        """Write it.

        Returns:
            Whether it is written; without, there is another run of this id.
        """
        if not make_run(connection, self._rows).is_new:
            ours = CHECKPOINT.c.run_id == self.run_id, CHECKPOINT.c.digest == self._cut.rows.head["digest"]
            return connection.execute(select(CHECKPOINT.c.number).where(*ours)).first() is not None
        held = self._cut.write(connection)
        assert held, "nobody else has seen the run yet"
        return True
