"""The lives of a run's row and of a node's row: what each step sets, and that only legal steps are made.

A step changes the object; `JobRepository` makes it durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from checkpoint_plugin.errors import IllegalTransition
from checkpoint_plugin.status import INCOMPLETE, NODE_STEPS, RUN_STEPS, can_be_resumed
from hookspecs import dumps_tagged, loads_tagged, text_of

__all__ = ["JobLife", "NodeLife"]


class _JobFields(Protocol):
    id: str
    status: str
    has_checkpoint: bool
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    completed_at: datetime | None
    failed_at: datetime | None
    error: str | None
    error_message: str | None
    suspended_node_id: str | None
    suspension_reason: str | None
    suspension_state_json: str | None
    suspension_metadata_json: str | None
    worker_id: str | None
    heartbeat_at: datetime | None
    retry_count: int
    max_retries: int


class _NodeFields(Protocol):
    run_id: str
    node_id: str
    status: str
    attempt: int
    scheduled_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    failed_at: datetime | None
    suspended_at: datetime | None
    wake_at: datetime | None
    updated_at: datetime
    last_error: str | None
    retryable: bool
    suspension_reason: str | None
    suspension_metadata_json: str | None
    resume_state_json: str | None
    outputs_json: str | None


class JobLife:
    """The steps of a run. Each raises `IllegalTransition` where it may not follow, and then changes nothing."""

    def mark_scheduled(self: _JobFields, *, at: datetime | None = None) -> None:
        """It waits to be run, for the first time or again."""
        _step_job(self, "scheduled", at)

    def mark_running(self: _JobFields, worker_id: str | None = None, *, at: datetime | None = None) -> None:
        """A worker executes it. A run that is running already may change its worker."""
        job, now = _step_job(self, "running", at, again=True)
        job.started_at = job.started_at or now
        job.worker_id = worker_id or job.worker_id
        job.heartbeat_at = now
        job.suspended_node_id = job.suspension_reason = None
        job.suspension_state_json = job.suspension_metadata_json = None

    def mark_completed(self: _JobFields, *, at: datetime | None = None) -> None:
        """It came to its end."""
        job, now = _step_job(self, "completed", at)
        job.completed_at = job.finished_at = now

    def mark_failed(self: _JobFields, error: str | BaseException, *, at: datetime | None = None) -> None:
        """It failed, and may be retried.

        Args:
            error: why, for people.
            at: when, aware; now by default.
        """
        job, now = _step_job(self, "failed", at)
        job.failed_at = job.finished_at = now
        job.error = job.error_message = _text(error)

    def mark_suspended(
        self: _JobFields,
        node_id: str | None = None,
        reason: str | None = None,
        state: Any = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        at: datetime | None = None,
    ) -> None:
        """It waits for something from outside, and holds no process.

        Args:
            node_id: the node that waits.
            reason: for what, for people.
            state: what the node keeps for when it goes on.
            metadata: anything for whoever answers.
            at: when, aware; now by default.

        Raises:
            TaggedValueError: state or metadata have no JSON form; nothing was changed.
        """
        kept = None if state is None else dumps_tagged(state)
        told = None if metadata is None else dumps_tagged(dict(metadata))
        job, _ = _step_job(self, "suspended", at)
        job.suspended_node_id, job.suspension_reason = node_id, reason
        job.suspension_state_json, job.suspension_metadata_json = kept, told

    def mark_paused(self: _JobFields, *, at: datetime | None = None) -> None:
        """It was stopped, to go on later."""
        job, now = _step_job(self, "paused", at)
        job.finished_at = now

    def mark_cancelled(self: _JobFields, *, at: datetime | None = None) -> None:
        """It was given up for good."""
        job, now = _step_job(self, "cancelled", at)
        job.finished_at = now

    def mark_recovering(self: _JobFields, worker_id: str | None = None, *, at: datetime | None = None) -> None:
        """A worker is about to go on with it."""
        job, now = _step_job(self, "recovering", at)
        job.worker_id = worker_id or job.worker_id
        job.heartbeat_at = now

    def mark_resuming(self: _JobFields, worker_id: str | None = None, *, at: datetime | None = None) -> None:
        """Another word for `mark_recovering`: a run has one status between waiting and running."""
        job, now = _step_job(self, "recovering", at)
        job.worker_id = worker_id or job.worker_id
        job.heartbeat_at = now

    @property
    def is_incomplete(self: _JobFields) -> bool:
        """Whether it has come to no end of any kind."""
        return self.status in INCOMPLETE

    @property
    def is_resumable(self: _JobFields) -> bool:
        """Whether it can be resumed: its status allows it and it has a checkpoint."""
        return can_be_resumed(self.status, self.has_checkpoint)

    @property
    def is_retryable(self: _JobFields) -> bool:
        """Whether it failed and has retries left."""
        return self.status == "failed" and self.retry_count < self.max_retries

    @property
    def is_finished(self: _JobFields) -> bool:
        """Whether it can never run again."""
        return not RUN_STEPS[self.status]

    @property
    def suspension_state(self: _JobFields) -> Any:
        """What the suspended node keeps."""
        return None if self.suspension_state_json is None else loads_tagged(self.suspension_state_json)

    @property
    def suspension_metadata(self: _JobFields) -> Any:
        """What the suspended node tells whoever answers."""
        return None if self.suspension_metadata_json is None else loads_tagged(self.suspension_metadata_json)


class NodeLife:
    """The steps of a node of a run. Each raises `IllegalTransition` where it may not follow, and then changes nothing."""

    def mark_scheduled(self: _NodeFields, attempt: int | None = None, *, at: datetime | None = None) -> None:
        """It waits to be run, for the first time or again.

        Args:
            attempt: which one this is to be; what it was by default.
            at: when, aware; now by default.
        """
        node, now = _step_node(self, "scheduled", at, again=True)
        node.scheduled_at = now
        node.attempt = node.attempt if attempt is None else attempt
        node.completed_at = node.failed_at = node.outputs_json = None

    def mark_running(self: _NodeFields, attempt: int | None = None, *, at: datetime | None = None) -> None:
        """Its body runs."""
        node, now = _step_node(self, "running", at, again=True)
        node.started_at, node.failed_at = now, None
        node.attempt = node.attempt if attempt is None else attempt

    def mark_completed(self: _NodeFields, outputs: Mapping[str, Any] | None = None, *, at: datetime | None = None) -> None:
        """It came to its end.

        Args:
            outputs: its values by handle.
            at: when, aware; now by default.

        Raises:
            TaggedValueError: an output has no JSON form; nothing was changed.
        """
        text = None if outputs is None else dumps_tagged(dict(outputs))
        node, now = _step_node(self, "completed", at)
        node.completed_at, node.outputs_json, node.last_error = now, text, None

    def mark_failed(self: _NodeFields, error: str | BaseException, retryable: bool = True, *, at: datetime | None = None) -> None:
        """It raised.

        Args:
            error: what, for people.
            retryable: whether to run it again makes sense.
            at: when, aware; now by default.
        """
        node, now = _step_node(self, "failed", at)
        node.failed_at, node.last_error, node.retryable = now, _text(error), retryable

    def mark_suspended(
        self: _NodeFields,
        reason: str | None = None,
        state: Any = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        wake_at: datetime | None = None,
        at: datetime | None = None,
    ) -> None:
        """It waits for something from outside.

        Args:
            reason: for what, for people.
            state: what it keeps for when it goes on.
            metadata: anything for whoever answers.
            wake_at: from when on it need not wait any more, aware.
            at: when, aware; now by default.

        Raises:
            TaggedValueError: state or metadata have no JSON form; nothing was changed.
        """
        kept = None if state is None else dumps_tagged(state)
        told = None if metadata is None else dumps_tagged(dict(metadata))
        node, now = _step_node(self, "suspended", at)
        node.suspended_at, node.suspension_reason, node.resume_state_json, node.wake_at = now, reason, kept, wake_at
        node.suspension_metadata_json = told

    def mark_resuming(self: _NodeFields, *, at: datetime | None = None) -> None:
        """A suspended or paused node goes on: it runs, as another attempt, and its state is kept for it.

        Raises:
            IllegalTransition: it is neither.
        """
        if self.status not in ("suspended", "paused"):
            raise IllegalTransition(
                f"node {self.node_id!r} of run {self.run_id!r}", self.status, "resuming", NODE_STEPS[self.status]
            )
        node, now = _step_node(self, "running", at)
        node.started_at = now
        node.attempt += 1

    def mark_paused(self: _NodeFields, *, at: datetime | None = None) -> None:
        """It was stopped, to go on later."""
        _step_node(self, "paused", at)

    @property
    def is_incomplete(self: _NodeFields) -> bool:
        """Whether it was scheduled and has come to no end."""
        return self.status in ("scheduled", "running", "suspended", "paused")

    @property
    def is_suspended(self: _NodeFields) -> bool:
        """Whether it waits for something from outside."""
        return self.status == "suspended"

    @property
    def is_resumable(self: _NodeFields) -> bool:
        """Whether a resume of the run has something to do for it."""
        return self.status in ("scheduled", "running", "suspended", "paused") or (self.status == "failed" and self.retryable)

    @property
    def is_retryable(self: _NodeFields) -> bool:
        """Whether it failed and may run again."""
        return self.status == "failed" and self.retryable

    @property
    def outputs(self: _NodeFields) -> Any:
        """Its values by handle, once it is completed."""
        return None if self.outputs_json is None else loads_tagged(self.outputs_json)

    @property
    def suspension_metadata(self: _NodeFields) -> Any:
        """What it tells whoever answers."""
        return None if self.suspension_metadata_json is None else loads_tagged(self.suspension_metadata_json)

    @property
    def resume_state(self: _NodeFields) -> Any:
        """What it keeps for when it goes on."""
        return None if self.resume_state_json is None else loads_tagged(self.resume_state_json)


def _step_job(job: _JobFields, status: str, at: datetime | None, *, again: bool = False) -> tuple[_JobFields, datetime]:
    if status not in RUN_STEPS[job.status] and not (again and status == job.status):
        raise IllegalTransition(f"run {job.id!r}", job.status, status, RUN_STEPS[job.status])
    now = at or datetime.now(UTC)
    if job.status == "failed" and status != "cancelled":
        job.retry_count += 1
    if status in INCOMPLETE:
        job.finished_at = job.failed_at = job.error = job.error_message = None
    job.status, job.updated_at = status, now
    return job, now


def _step_node(node: _NodeFields, status: str, at: datetime | None, *, again: bool = False) -> tuple[_NodeFields, datetime]:
    if status not in NODE_STEPS[node.status] and not (again and status == node.status):
        raise IllegalTransition(f"node {node.node_id!r} of run {node.run_id!r}", node.status, status, NODE_STEPS[node.status])
    now = at or datetime.now(UTC)
    node.status, node.updated_at = status, now
    return node, now


def _text(error: str | BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}" if isinstance(error, BaseException) else error
