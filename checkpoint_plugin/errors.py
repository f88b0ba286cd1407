"""Errors of the store. Every one is a `StoreError` of the contract, so callers need not know this package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from shlex import quote
from typing import Any

from hookspecs import PluginOptionsInvalid, Refusal, StoreError, text_of

__all__ = [
    "BlobsUnusable",
    "CheckpointError",
    "FieldInvalid",
    "GraphMismatch",
    "IllegalTransition",
    "KeyMissing",
    "KeyUnusable",
    "NodeNotSuspended",
    "NotForkable",
    "NotResumable",
    "PolicyInvalid",
    "SchemaChanged",
    "SchemaInUse",
    "SchemaNewer",
    "SchemaOutdated",
    "StaleVersion",
    "StoreBusy",
    "StoreDamaged",
    "StoreFull",
    "StoreMissing",
    "StoreOnNetwork",
    "StoreReadOnly",
    "StoreUnreachable",
    "StoreUnreadable",
    "StoreUrlInvalid",
    "ValueNotReadable",
    "ValueNotStorable",
    "WriterStopped",
]


class CheckpointError(StoreError):
    """Root of this package's errors."""


class BlobsUnusable(CheckpointError):
    """Raised when the place where large values lie as files refuses, or is not known; no row mentions what was not written."""


class PolicyInvalid(PluginOptionsInvalid, Refusal):
    """Raised when a policy names what the run's graph does not have; nothing was stored.

    Args:
        message: what is wrong, and how to mend it.
    """

    def __init__(self, message: str) -> None:
        super().__init__("checkpoint", message)


class KeyMissing(CheckpointError):
    """Raised when a run is encrypted and its key is not given, or it is not encrypted and a key is given."""


class KeyUnusable(CheckpointError, ValueError):
    """Raised when something that should be a key is none."""


class StoreUrlInvalid(CheckpointError, ValueError):
    """Raised when a url names no store that is known here."""

    exit_code = 2


class StoreMissing(CheckpointError):
    """Raised when there is no store where one is named; nothing was created."""


class StoreUnreadable(CheckpointError):
    """Raised when a store cannot be opened, or is of another kind or of a newer version; it was not touched."""

    undone = True
    """Whether surely nothing was written."""


class SchemaOutdated(StoreUnreadable):
    """Raised when the tables are older than this program, and nobody said that it may upgrade them; they were not touched.

    Args:
        shown: the store.
        version: of its tables.
        newest: that this program writes.
    """

    def __init__(self, shown: str, version: int, newest: int) -> None:
        super().__init__(
            f"the store at {shown} has layout {version}, and this program writes layout {newest}; it was not touched. "
            f"Upgrade it once, when older programs no longer use it: workflow db upgrade --url {quote(shown)}"
            " (with the password), or set WORKFLOW_CHECKPOINT_AUTO_MIGRATE=1, or the option auto_migrate."
        )
        self.version = version
        self.newest = newest


class SchemaChanged(StoreUnreadable):
    """Raised when another program has changed the tables of an open store; nothing was written, and who tries again is told."""


class SchemaInUse(StoreUnreadable):
    """Raised when older tables would be upgraded by the way while an older program executes a run in them; they were not touched.

    Args:
        shown: the store.
        version: of its tables.
        run_id: the run.
    """

    def __init__(self, shown: str, version: int, run_id: str) -> None:
        super().__init__(
            f"the store at {shown} has layout {version}, and an older program executes run {run_id!r} in it, which would fail "
            "there after an upgrade; it was not touched. Wait until that has ended, or upgrade all the same: workflow db upgrade."
        )
        self.version = version
        self.run_id = run_id


class SchemaNewer(StoreUnreadable):
    """Raised when the tables are of a version that this program does not know; they were not touched.

    Args:
        shown: the store.
        version: of its tables.
        newest: that this program knows.
    """

    def __init__(self, shown: str, version: int, newest: int) -> None:
        super().__init__(
            f"the store at {shown} has version {version}, and this program knows version {newest}; it was not touched. "
            "Install the workflow-checkpoint that wrote it, or a newer one."
        )
        self.version = version
        self.newest = newest


class StoreOnNetwork(StoreUnreadable):
    """Raised when a file of SQLite lies on a network file system, where its log would break; it was not touched.

    Args:
        path: of the file.
        point: where the file system is mounted.
        kind: of file system.
    """

    def __init__(self, path: str, point: str, kind: str) -> None:
        super().__init__(
            f"the store {path} would lie on the network file system at {point} ({kind}). SQLite's log is memory that processes "
            "of one host share, and over a network it loses or damages what was saved. Put the file on a local disk, or use "
            "PostgreSQL."
        )
        self.path = path
        self.point = point
        self.kind = kind


class StoreFull(StoreUnreadable):
    """Raised when the disk of a store has no room; nothing was written."""


class StoreReadOnly(StoreUnreadable):
    """Raised when a store may not be written by who tries to; nothing was."""


class StoreBusy(StoreUnreadable):
    """Raised when others hold a store for longer than one may wait; nothing was written."""


class StoreUnreachable(StoreUnreadable):
    """Raised when the connection to a database was lost, or none can be made: another try may succeed.

    Args:
        message: what happened.
        undone: whether surely nothing was written; a commit whose answer was lost may have been done.
        starting: the server said that it starts or stops, or has no connection left, so it will be there again.
    """

    def __init__(self, message: str, *, undone: bool = False, starting: bool = False) -> None:
        super().__init__(message)
        self.undone = undone
        self.starting = starting


class StoreDamaged(CheckpointError):
    """Raised when what is stored is not what was written.

    Args:
        run_id: the run.
        what: the thing that is damaged.
        number: of the checkpoint it was read for, if any.
        has_others: whether the run may have a checkpoint to go on from; default: where one was read.
    """

    def __init__(self, run_id: str, what: str, number: int | None = None, *, has_others: bool | None = None) -> None:
        which = f"checkpoint {number} of run {run_id!r}" if number is not None else f"run {run_id!r}"
        goes_on = number is not None if has_others is None else has_others
        other = "" if not goes_on else f", or go on from another checkpoint: `workflow resume {quote(run_id)} --latest-intact`"
        super().__init__(f"{which} is damaged: {what}; nothing was changed. Restore the database from a copy{other}.")
        self.run_id = str(run_id)  # SQLite keeps anything in any column
        self.what = what
        self.number = number


class ValueNotStorable(CheckpointError, TypeError):
    """Raised when a value cannot be stored; the message names the place, and nothing was written.

    Args:
        place: where the value stands.
        why: what is wrong with it.
    """

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place} cannot be stored: {why}")
        self.place = place
        self.why = why


class GraphMismatch(CheckpointError, ValueError):
    """Raised when a graph is not the one that a run's checkpoints were taken of, or cannot be read as one.

    Args:
        run_id: the run.
        differences: what is different, one by one.
    """

    exit_code = 2

    def __init__(self, run_id: str, differences: Sequence[str]) -> None:
        told = "; ".join([*differences[:5], *(["…"] if len(differences) > 5 else [])])
        super().__init__(f"the graph does not fit run {run_id!r}: {told}. Give the graph that the run was saved with.")
        self.run_id = run_id
        self.differences = tuple(differences)


class FieldInvalid(CheckpointError, ValueError):
    """Raised when a field of a run or a node is given a value that it cannot have; nothing was written.

    Args:
        where: the run or node.
        why: which field, what is wrong with its value, and what to do.
    """

    exit_code = 2

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class IllegalTransition(CheckpointError, ValueError):
    """Raised when a run or a node cannot become what it is said to be; nothing was changed.

    Args:
        what: the run or node.
        status: what it is.
        wanted: what it cannot become.
        steps: what it may become.
    """

    exit_code = 2

    def __init__(self, what: str, status: str, wanted: str, steps: Collection[str]) -> None:
        may = f"It may become {', '.join(sorted(steps))}." if steps else "It becomes nothing else any more."
        super().__init__(f"{what} is {status} and cannot become {wanted}. {may}")
        self.status = status
        self.wanted = wanted


class StaleVersion(CheckpointError):
    """Raised when a row was changed since it was read; nothing was written.

    Args:
        run_id: the run.
        version: that was read.
    """

    exit_code = 4

    def __init__(self, run_id: str, version: int) -> None:
        super().__init__(
            f"the row of run {run_id!r} was changed since version {version} of it was read; nothing was written. "
            "Read it again, and repeat the change if it still applies."
        )
        self.run_id = run_id
        self.version = version


class ValueNotReadable(CheckpointError):
    """Raised when a stored value is whole, but not to be had here: its type is unknown, changed, or of a missing library.

    Args:
        why: what is wrong, and what to do.
        place: where the value stands, if that is known.
    """

    def __init__(self, why: str, place: str | None = None) -> None:
        super().__init__(f"{place or 'a stored value'} cannot be read: {why}")
        self.why = why
        self.place = place

    def within(self, place: str) -> ValueNotReadable:
        """The same, with the place.

        Args:
            place: where the value stands.
        """
        return ValueNotReadable(self.why, place)


class WriterStopped(CheckpointError, RuntimeError):
    """Raised when a writer takes nothing more, or ends before all that it took is durable.

    Args:
        what: the writer.
        unwritten: what is not durable.
        why: what kept it, if that is known; what to do is said there.
    """

    def __init__(self, what: str, unwritten: Sequence[Any], why: BaseException | None = None) -> None:
        if unwritten:
            count = len(unwritten)
            text = f"1 write of the {what} is not durable" if count == 1 else f"{count} writes of the {what} are not durable"
            text += ". Write again when the store can be reached." if why is None else f": {text_of(why)}"
        else:
            text = f"the {what} is stopped and takes nothing more. Start it, or make a new one."
        super().__init__(text)
        self.unwritten = tuple(unwritten)


class NotResumable(CheckpointError):
    """Raised when a run cannot be resumed; nothing was changed.

    Args:
        run_id: the run.
        why: what keeps it.
    """

    exit_code = 2

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(f"run {run_id!r} cannot be resumed: {why}. See how it stands with `workflow show {quote(run_id)}`.")
        self.run_id = run_id


class NotForkable(CheckpointError):
    """Raised when no other run can begin where a run stood; nothing was written.

    Args:
        run_id: the run.
        why: what keeps it.
    """

    exit_code = 2

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(f"run {run_id!r} cannot be forked: {why}. See what it has with `workflow checkpoints {quote(run_id)}`.")
        self.run_id = run_id


class NodeNotSuspended(CheckpointError):
    """Raised when an answer is given to a node that waits for none; nothing was changed.

    Args:
        run_id: the run.
        node_id: the node.
        status: what it is.
    """

    exit_code = 2

    def __init__(self, run_id: str, node_id: str, status: str) -> None:
        stands = "idle, or not in its graph" if status == "idle" else f"{status}, not suspended"
        super().__init__(f"node {node_id!r} of run {run_id!r} is {stands}. See who waits for what with `workflow suspended`.")
        self.run_id = run_id
        self.node_id = node_id
        self.status = status
