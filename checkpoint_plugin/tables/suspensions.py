"""What a suspended node waits for, as rows: for a resume in the node's version, for people and questions in plain columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from checkpoint_plugin.database.damage import read_time
from checkpoint_plugin.stored_bytes.digests import text_bytes
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.definition import storable_text
from hookspecs import Suspension, TaggedValueError, dumps_tagged, to_tagged

__all__ = [
    "JOB_COLUMNS",
    "NODE_COLUMNS",
    "NO_SUSPENSION",
    "job_columns",
    "mentioned_in",
    "node_columns",
    "pack_suspension",
    "read_suspension",
]

JOB_COLUMNS: Final = ("suspended_node_id", "suspension_reason", "suspension_state_json", "suspension_metadata_json")
NO_SUSPENSION: Final[Mapping[str, None]] = dict.fromkeys(JOB_COLUMNS)
NODE_COLUMNS: Final = ("suspended_at", "wake_at", "suspension_reason", "suspension_metadata_json", "resume_state_json")
LATEST: Final = datetime.max.replace(tzinfo=UTC)
"""The last time there is; as the seconds that a row keeps it is rounded to one that no time has."""
STATE: Final = "state of the suspension"
METADATA: Final = "metadata of the suspension"
ANSWER: Final = "answer"
EARLIER: Final = "earlier answers"
MOST_DROPPED: Final = 10_000_000
"""More suspensions than a step can have had."""
REPR_LENGTH: Final = 1_000
"""Of a value that has no JSON form, so much is told at most."""

Pack = Callable[[Any, str], Any]
Read = Callable[[Any], Any]


def pack_suspension(suspension: Suspension, pack: Pack) -> list[Any]:
    """A suspension as a row lists it.

    Args:
        suspension: of a node.
        pack: gives a value's reference; takes its name for people.
    """
    return [
        text_bytes(suspension.reason),
        suspension.since.timestamp(),
        pack(suspension.state, STATE),
        pack(dict(suspension.metadata) or None, METADATA),
        None if suspension.wake_at is None else suspension.wake_at.timestamp(),
        suspension.answered,
        pack(suspension.answer, ANSWER),
        pack(_without_dropped(suspension.earlier) or None, EARLIER),
    ]


def _without_dropped(earlier: Sequence[Any]) -> list[Any]:
    """Earlier answers as they are stored: of the first that were dropped, many where a body commits often, only the number."""
    dropped = 0
    while dropped < len(earlier) and earlier[dropped][0] is None:
        dropped += 1
    return [dropped, *earlier[dropped:]] if dropped else list(earlier)


def _with_dropped(stored: Sequence[Any]) -> tuple[Any, ...]:
    """What `_without_dropped` was given; before layout 12 all were stored."""
    dropped, answers = 0, tuple(stored)
    if answers and type(answers[0]) is int:
        dropped, answers = answers[0], answers[1:]
        if not 0 < dropped <= MOST_DROPPED:
            raise ValueError(f"{dropped} answers were dropped")
    if not all(type(answer) is tuple and len(answer) == 2 for answer in answers):
        raise ValueError("an earlier answer is none")
    return (*(((None, None),) * dropped), *answers)


def read_suspension(row: Sequence[Any], read: Read) -> Suspension:
    """A suspension from a row.

    Args:
        row: as `pack_suspension` made it.
        read: gives the value of a reference.
    """
    reason, since, state, metadata, wake_at, answered, answer, earlier = row
    return Suspension(
        reason.decode("utf-8", "surrogatepass"),
        read_time(since),
        read(state),
        read(metadata) or {},
        None if wake_at is None else _read_wake(wake_at),
        answered,
        read(answer),
        _with_dropped(read(earlier) or ()),
    )


def _read_wake(seconds: float) -> datetime:
    return LATEST if seconds == LATEST.timestamp() else read_time(seconds)


def mentioned_in(row: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
    """The references of a row, each with its name for people."""
    return (STATE, row[2]), (METADATA, row[3]), (ANSWER, row[6]), (EARLIER, row[7])


def node_columns(suspension: Suspension | None, at: datetime, seal: Seal) -> tuple[Any, ...]:
    """The columns `NODE_COLUMNS`; a node that was answered need not wait from then on.

    Args:
        suspension: of the node; `None` for one that waits for nothing.
        at: when the cut was taken.
        seal: how texts are stored.
    """
    if suspension is None:
        return (None,) * len(NODE_COLUMNS)
    wake_at = at if suspension.answered else suspension.wake_at
    reason = seal.seal_text(storable_text(suspension.reason))
    return suspension.since, wake_at, reason, _told(suspension.metadata, seal), _shown(suspension.state, seal)


def job_columns(suspended: Mapping[str, Suspension], seal: Seal) -> dict[str, Any]:
    """The columns `JOB_COLUMNS` of the run's row, which tell of the node that has waited longest."""
    if not suspended:
        return dict(NO_SUSPENSION)
    node_id = min(suspended, key=lambda node_id: (suspended[node_id].since, node_id))
    found = suspended[node_id]
    reason = seal.seal_text(storable_text(found.reason))
    told = (node_id, reason, _shown(found.state, seal), _told(found.metadata, seal))
    return dict(zip(JOB_COLUMNS, told, strict=True))


def _told(metadata: Mapping[str, Any], seal: Seal) -> str | None:
    """What whoever answers is told; a value that has no JSON form as its repr, for the rest matters all the same."""
    return _shown({key: _with_json_form(value) for key, value in metadata.items()} or None, seal)


def _with_json_form(value: Any) -> Any:
    try:
        to_tagged(value)
    except TaggedValueError:
        return storable_text(_repr(value))
    return value


def _repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose repr fails: {type(error).__name__}>"
    return text if len(text) <= REPR_LENGTH else f"{text[: REPR_LENGTH - 1]}…"


def _shown(value: Any, seal: Seal) -> str | None:
    """A value as people read it; nothing for one that has no JSON form."""
    if value is None:
        return None
    try:
        return seal.seal_text(dumps_tagged(value))
    except TaggedValueError:
        return None
