"""A consistent cut of a run, as the runner hands it to a store and takes it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

__all__ = [
    "Answer",
    "CheckpointChoice",
    "CheckpointRef",
    "EdgeDraft",
    "EdgeSnapshot",
    "NodeDraft",
    "NodeSnapshot",
    "NodeStatus",
    "Prefix",
    "RunStatus",
    "Snapshot",
    "Suspension",
    "Taken",
]

T_co = TypeVar("T_co", covariant=True)

NodeStatus = Literal["idle", "scheduled", "running", "paused", "completed", "failed", "suspended"]
RunStatus = Literal["scheduled", "running", "suspended", "paused", "completed", "failed", "cancelled", "recovering"]
CheckpointChoice = int | Literal["latest-intact"] | None
"""Which checkpoint to go on from: one of a number, the newest that is not damaged, or the newest."""
Taken = tuple[str, Any]
"""One stream item handed to a body: (edge id, item)."""


class Prefix(Sequence[T_co], Generic[T_co]):
    """The first `length` items of a list that only grows: a frozen view that copies nothing.

    A store sees by `source` that two cuts show the same growing list, and writes only what is new.

    Args:
        source: the list itself.
        length: items of it that are shown; `None` for those that it has now.
    """

    __slots__ = ("_length", "source")

    def __init__(self, source: list[T_co], length: int | None = None) -> None:
        self.source = source
        self._length = len(source) if length is None else length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | list[T_co]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            # Backwards, a stop before the first item is -1, which as a bound of a slice would be the last.
            return self.source[start:stop:step] if step > 0 else [self.source[i] for i in range(start, stop, step)]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self.source[index if index >= 0 else index + self._length]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and list(self) == list(other)

    def __hash__(self) -> int:
        raise TypeError("a Prefix is not hashable")

    def __repr__(self) -> str:
        return f"Prefix({list(self)!r})"


@dataclass(frozen=True, slots=True)
class EdgeSnapshot:
    """What an edge holds for its consumer. One that a later cut has again, the very object, says that nothing came or went.

    Args:
        edge_id: the edge in the run's graph.
        items: emitted and not yet taken, oldest first. Items that wait for this very cut to be durable are in it.
        ended: the producer has ended: after `items` comes the end of stream.
    """

    edge_id: str
    items: tuple[Any, ...]
    ended: bool


class EdgeDraft:
    """An `EdgeSnapshot` in the making; see `NodeDraft`."""

    __slots__ = EdgeSnapshot.__slots__
    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any, /) -> None: ...

    def frozen(self) -> EdgeSnapshot:
        """What it becomes; nothing is copied, and from then on nothing of it can be set."""
        self.__class__ = EdgeSnapshot  # type: ignore[assignment]
        return cast("EdgeSnapshot", self)


@dataclass(frozen=True, slots=True)
class Suspension:
    """What a suspended node waits for.

    Args:
        reason: for people.
        since: when it was suspended, aware UTC.
        state: what the body keeps for when it goes on.
        metadata: what it tells whoever answers.
        wake_at: from when on it need not wait any more, aware.
        answered: an answer is there, and the node has not gone on since.
        answer: what it is.
        earlier: reasons and answers of suspensions of the same step before this one, of a body that needs them again; a reason of
            `None` stands for one whose answer was dropped.
    """

    reason: str
    since: datetime
    state: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    wake_at: datetime | None = None
    answered: bool = False
    answer: Any = None
    earlier: tuple[tuple[str | None, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody has brought for a suspended node, and a store keeps until its run has taken it.

    Args:
        node_id: the node.
        since: since when it waits for what is answered, as `Suspension.since`: it is for no other suspension.
        value: the answer.
    """

    node_id: str
    since: datetime
    value: Any = None


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """One actor at a cut, enough to run its unfinished step again.

    Args:
        node_id: the node.
        status: where it stands; `idle` has not fired yet.
        attempt: how often the node's present step was begun, from 1.
        firing: firings begun so far; of a lane it goes by the number of the item.
        commits: commit points passed so far.
        state: what the body gave to its last commit.
        arguments: of the unfinished firing, by handle; `None` when no firing is unfinished.
        taken: stream items handed to the body since the last commit point, in order.
        emitted: emissions since the last commit point; as many are swallowed when the body runs again.
        latest: `on_any` only: the latest value by edge id once the node has fired.
        inbox: its incoming edges, in the order of the graph.
        order: edge id of every pending item, in arrival order; empty for a node with one edge.
        collected: an output node's items, from the first.
        source: fingerprint of the node's source text; empty when there is none.
        error: why it failed, as text.
        started_at: when the node first fired, aware UTC.
        ended_at: when it completed or failed, aware UTC.
        suspension: what it waits for, when it is suspended.
    """

    node_id: str
    status: NodeStatus
    attempt: int = 1
    firing: int = 0
    commits: int = 0
    state: Any = None
    arguments: Mapping[str, Any] | None = None
    taken: Sequence[Taken] = ()
    emitted: int = 0
    latest: Mapping[str, Any] | None = None
    inbox: tuple[EdgeSnapshot, ...] = ()
    order: tuple[str, ...] = ()
    collected: Sequence[Any] = ()
    source: str = ""
    error: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    suspension: Suspension | None = None


class NodeDraft:
    """A `NodeSnapshot` in the making, for who makes thousands at once: a field costs a seventh of what a frozen class takes.

    It has no defaults: set every field.
    """

    __slots__ = NodeSnapshot.__slots__
    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any, /) -> None: ...

    def frozen(self) -> NodeSnapshot:
        """What it becomes; nothing is copied, and from then on nothing of it can be set."""
        self.__class__ = NodeSnapshot  # type: ignore[assignment]
        return cast("NodeSnapshot", self)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cut of a whole run at one moment.

    Args:
        run_id: the run.
        attempt: the attempt that took it.
        status: of the run at this moment; a cut with a final status is the last of its attempt.
        nodes: on save the actors that changed since the cut before; on restore every node that is not as it was
            before the run. A node that is missing is as new.
        taken_at: aware UTC.
        error: why the run ended, as text, when `status` is `failed`.
        error_node_id: the node that failed.
        number: of the checkpoint that it was restored from.
        context: what the caller of a store keeps beside the nodes; a runner leaves it empty.
        over: on restore, nodes that have completed and of which nothing but this is of use; they may be missing in `nodes`.
    """

    run_id: str
    attempt: int
    status: RunStatus
    nodes: tuple[NodeSnapshot, ...]
    taken_at: datetime
    error: str | None = None
    error_node_id: str | None = None
    number: int | None = None
    context: Mapping[str, Any] | None = None
    over: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A cut that is durable.

    Args:
        run_id: the run.
        number: of the checkpoint within the run, from 1, growing.
        reason: why it was taken.
        created_at: aware UTC.
        details: what else the store tells, for people; a number of `bytes` is the size of the checkpoint, which
            `RunControl.follow_outputs` goes by.
    """

    run_id: str
    number: int
    reason: str
    created_at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)
