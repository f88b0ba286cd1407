"""The tables. `job` and `run_node_state` are the current truth for plain SQL; the others are the history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Final

from sqlalchemy import BigInteger, Float, ForeignKeyConstraint, Index, LargeBinary, MetaData, SmallInteger, Table, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from checkpoint_plugin.lifecycle import JobLife, NodeLife

__all__ = [
    "CHECKPOINT",
    "COMPLETED_NODES",
    "EVENT",
    "EVENT_HEAD",
    "JOB",
    "LEASE",
    "NODE_VERSION",
    "OUTPUT_SEGMENT",
    "PAYLOAD",
    "PAYLOAD_SEGMENT",
    "PENDING_ANSWER",
    "RUN_DEFINITION",
    "RUN_KEY",
    "RUN_NODE_STATE",
    "SCHEMA",
    "Base",
    "Checkpoint",
    "CompletedNodes",
    "Event",
    "EventHead",
    "Job",
    "Lease",
    "NodeVersion",
    "OutputSegment",
    "Payload",
    "PayloadSegment",
    "PendingAnswer",
    "RunDefinition",
    "RunKey",
    "RunNodeState",
    "SchemaVersion",
]

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def _now() -> datetime:
    return datetime.now(UTC)


ONE_TREE: Final = {"sqlite_with_rowid": False}
"""On SQLite a table whose rows lie in the tree of its key: a save then writes one page where it would write two. For short rows:
one above 1,002 bytes takes a page of its own there."""


WAKES: Final = text("wake_at IS NOT NULL")


def _of_run() -> ForeignKeyConstraint:
    """That a row belongs to a run, for the tables of which a save writes a row a node or a value.

    PostgreSQL would look the run up for each of them, two fifths of a large save; there the statement of the save does it once,
    for all: it writes nothing where it does not find the run's lease, which belongs to the run and stays locked by it.
    """
    return ForeignKeyConstraint(["run_id"], ["job.id"]).ddl_if(dialect="sqlite")


class Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Root of this package's tables, on a registry of its own."""


class SchemaVersion(Base, table=True):
    """The layout of these tables, one row; `store_id` tells this store from others that keep files in the same place."""

    __tablename__: ClassVar[str] = "checkpoint_schema"

    id: int = Field(default=1, primary_key=True)
    version: int
    store_id: str | None = Field(default=None, sa_type=Text)


class Job(JobLife, Base, table=True):
    """One run. `graph` and `params` show to people what `run_definition` holds; where they are long, they stand there.

    What every save changes stands in `lease`.
    """

    __tablename__: ClassVar[str] = "job"

    id: str = Field(primary_key=True, sa_type=Text)
    attempt: int = 1
    has_checkpoint: bool = False
    status: str = Field(default="scheduled", index=True)
    user_id: str | None = Field(default=None, index=True)
    job_type: str = "workflow"
    workflow_id: str | None = Field(default=None, index=True)
    created_at: datetime = Field(default_factory=_now, index=True)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime = Field(default_factory=_now)
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    error: str | None = Field(default=None, sa_type=Text)
    error_message: str | None = Field(default=None, sa_type=Text)
    cost: float | None = None
    suspended_node_id: str | None = Field(default=None, sa_type=Text)
    suspension_reason: str | None = Field(default=None, sa_type=Text)
    suspension_state_json: str | None = Field(default=None, sa_type=Text)
    suspension_metadata_json: str | None = Field(default=None, sa_type=Text)
    execution_strategy: str | None = None
    execution_id: str | None = None
    worker_id: str | None = None
    heartbeat_at: datetime | None = None
    retry_count: int = 0
    max_retries: int = 3
    metadata_json: str | None = Field(default=None, sa_type=Text)
    degraded: str | None = Field(default=None, sa_type=Text)
    set_aside: str | None = Field(default=None, sa_type=Text)
    version: int = 0
    logs: str | None = Field(default=None, sa_type=Text)
    graph: str | None = Field(default=None, sa_type=Text)
    params: str | None = Field(default=None, sa_type=Text)


class RunDefinition(Base, table=True):
    """What a run was started with: `body` is what a resume reads, with its digest; the texts are those too long for `job`."""

    __tablename__: ClassVar[str] = "run_definition"

    run_id: str = Field(primary_key=True, foreign_key="job.id", sa_type=Text)
    digest: bytes = Field(sa_type=LargeBinary)
    body: bytes = Field(sa_type=LargeBinary)
    graph: str | None = Field(default=None, sa_type=Text)
    params: str | None = Field(default=None, sa_type=Text)


class Lease(Base, table=True):
    """The right to execute a run, and where it stands. Every save moves this row on, and only under the current epoch.

    `newest_number` is that of the newest checkpoint, 0 before the first: one that is gone is seen, and no older one taken.
    `epoch` grows at every taking and never shrinks: the fencing token; it begins with the milliseconds since 1970. `owner`
    is empty where nobody holds it.
    `generation` grows when rows of the run are pruned: what a writer remembers of them counts no more.
    Times are those of the database's clock.
    """

    __tablename__: ClassVar[str] = "lease"

    run_id: str = Field(primary_key=True, foreign_key="job.id", sa_type=Text)
    epoch: int = Field(default=0, sa_type=BigInteger)
    generation: int = Field(default=0, sa_type=BigInteger)
    newest_number: int = 0
    owner: str | None = Field(default=None, sa_type=Text)
    host: str | None = Field(default=None, sa_type=Text)
    pid: int | None = None
    process_started: float | None = Field(default=None, sa_type=Float)
    acquired_at: datetime | None = None
    expires_at: datetime | None = None


class RunNodeState(NodeLife, Base, table=True):
    """Where a node of a run stands, as of the last durable checkpoint; `number` is that of its newest version."""

    __tablename__: ClassVar[str] = "run_node_state"
    # Of the few that wait for a time, so that it costs the others nothing.
    __table_args__ = (_of_run(), Index("ix_run_node_state_wake_at", "wake_at", sqlite_where=WAKES, postgresql_where=WAKES))

    run_id: str = Field(primary_key=True, sa_type=Text)
    node_id: str = Field(primary_key=True, sa_type=Text)
    number: int | None = None
    status: str = "idle"
    attempt: int = 1
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    updated_at: datetime = Field(default_factory=_now)
    last_error: str | None = Field(default=None, sa_type=Text)
    retryable: bool = True
    suspended_at: datetime | None = None
    wake_at: datetime | None = None
    suspension_reason: str | None = Field(default=None, sa_type=Text)
    suspension_metadata_json: str | None = Field(default=None, sa_type=Text)
    resume_state_json: str | None = Field(default=None, sa_type=Text)
    outputs_json: str | None = Field(default=None, sa_type=Text)


class PendingAnswer(Base, table=True):
    """What was brought for a suspended node of a run while that was executed: who executes it takes it into its next cut.

    It is for what the node waits for `since` then, as `suspended_at` tells, and for no other suspension.
    """

    __tablename__: ClassVar[str] = "pending_answer"

    run_id: str = Field(primary_key=True, foreign_key="job.id", sa_type=Text)
    node_id: str = Field(primary_key=True, sa_type=Text)
    since: datetime
    brought_at: datetime
    body: bytes = Field(sa_type=LargeBinary)
    digest: bytes = Field(sa_type=LargeBinary)


class Checkpoint(Base, table=True):
    """A durable cut: numbered within its run, never changed. `cut_hash` sums the newest row of every node.

    `context` is what a save by hand told beside the nodes, or `rows.PAYLOAD_REF` and the digest of its payload, which
    `mentions` lists then.
    """

    __tablename__: ClassVar[str] = "checkpoint"
    __table_args__ = ONE_TREE

    run_id: str = Field(primary_key=True, foreign_key="job.id", sa_type=Text)
    number: int = Field(primary_key=True)
    attempt: int
    reason: str = Field(sa_type=Text)
    label: str | None = Field(default=None, sa_type=Text)
    created_at: datetime
    nodes: int
    size_bytes: int = Field(sa_type=BigInteger)
    row_count: int
    log: int = 0
    cut_hash: bytes = Field(sa_type=LargeBinary)
    status: str
    error: str | None = Field(default=None, sa_type=Text)
    error_node_id: str | None = Field(default=None, sa_type=Text)
    context: bytes | None = Field(default=None, sa_type=LargeBinary)
    mentions: bytes | None = Field(default=None, sa_type=LargeBinary)
    written_at: datetime | None = None
    digest: bytes = Field(sa_type=LargeBinary)


class NodeVersion(Base, table=True):
    """A node as of one checkpoint; checkpoint N is each node's newest row of a number ≤ N.

    Its key begins with the number: the rows of a save lie side by side. `mentions` are the digests of the payloads that
    `body` mentions, one after the other: retention reads no body. One of a node that holds much may tell only what changed since
    the node's row of the number `continues`.
    """

    __tablename__: ClassVar[str] = "node_version"
    __table_args__ = (_of_run(),)

    run_id: str = Field(primary_key=True, sa_type=Text)
    number: int = Field(primary_key=True)
    node_id: str = Field(primary_key=True, sa_type=Text)
    body: bytes = Field(sa_type=LargeBinary)
    mentions: bytes | None = Field(default=None, sa_type=LargeBinary)
    digest: bytes = Field(sa_type=LargeBinary)
    continues: int | None = None


class CompletedNodes(Base, table=True):
    """A block of nodes that have completed, and where the rows of all others stand: it saves a resume to read one a node.

    It is an index, of the newest checkpoint only: where there is none, `node_version` tells the same.
    """

    __tablename__: ClassVar[str] = "completed_nodes"
    __table_args__ = (ForeignKeyConstraint(["run_id"], ["job.id"]),)

    run_id: str = Field(primary_key=True, sa_type=Text)
    number: int = Field(primary_key=True)
    body: bytes = Field(sa_type=LargeBinary)
    digest: bytes = Field(sa_type=LargeBinary)


class OutputSegment(Base, table=True):
    """Items that an output node collected between two checkpoints, written once.

    A run that goes on from an older checkpoint collects in a new `log`, so that the later checkpoints stay what they were.
    """

    __tablename__: ClassVar[str] = "output_segment"
    __table_args__ = (ForeignKeyConstraint(["run_id"], ["job.id"]),)

    run_id: str = Field(primary_key=True, sa_type=Text)
    node_id: str = Field(primary_key=True, sa_type=Text)
    log: int = Field(default=0, primary_key=True)
    first: int = Field(primary_key=True)
    number: int
    count: int
    body: bytes = Field(sa_type=LargeBinary)
    mentions: bytes | None = Field(default=None, sa_type=LargeBinary)
    digest: bytes = Field(sa_type=LargeBinary)


class Payload(Base, table=True):
    """A value too large for the rows that mention it, stored once a run under the digest of its bytes.

    `encoding` says what was done to the bytes (`compression.py`, `payloads.py`), `size` how many they were before. Of a value
    that grew out of another, `body` says which parts of the series `series` it is made of, below `series_end`. Of one that
    lives in a file, `blob` names it and `body` is empty.
    """

    __tablename__: ClassVar[str] = "payload"
    __table_args__ = (_of_run(),)

    run_id: str = Field(primary_key=True, sa_type=Text)
    digest: bytes = Field(primary_key=True, sa_type=LargeBinary)
    encoding: int = Field(default=0, sa_type=SmallInteger)
    size: int | None = Field(default=None, sa_type=BigInteger)
    body: bytes = Field(sa_type=LargeBinary)
    series: int | None = Field(default=None, sa_type=BigInteger)
    series_end: int | None = Field(default=None, sa_type=BigInteger)
    blob: str | None = Field(default=None, sa_type=Text)


class PayloadSegment(Base, table=True):
    """Bytes `start` to `start + size` of a series: what is new in values that grow, written once."""

    __tablename__: ClassVar[str] = "payload_segment"
    __table_args__ = (ForeignKeyConstraint(["run_id"], ["job.id"]),)

    run_id: str = Field(primary_key=True, sa_type=Text)
    series: int = Field(primary_key=True, sa_type=BigInteger)
    start: int = Field(primary_key=True, sa_type=BigInteger)
    size: int = Field(sa_type=BigInteger)
    encoding: int = Field(default=0, sa_type=SmallInteger)
    body: bytes = Field(sa_type=LargeBinary)


class RunKey(Base, table=True):
    """The keys of an encrypted run, wrapped by a master key."""

    __tablename__: ClassVar[str] = "run_key"

    run_id: str = Field(primary_key=True, foreign_key="job.id", sa_type=Text)
    key_id: str = Field(sa_type=Text)
    wrapped: bytes = Field(sa_type=LargeBinary)


class EventHead(Base, table=True):
    """The next number in the event log of a run; its row is the lock under which numbers are given."""

    __tablename__: ClassVar[str] = "event_head"

    run_id: str = Field(primary_key=True, sa_type=Text)
    next_seq: int = Field(default=0, sa_type=BigInteger)


class Event(Base, table=True):
    """Something that happened in a run; numbers have no gaps."""

    __tablename__: ClassVar[str] = "event"

    run_id: str = Field(primary_key=True, sa_type=Text)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    kind: str = Field(sa_type=Text)
    node_id: str | None = Field(default=None, sa_type=Text)
    time: datetime
    payload_json: str | None = Field(default=None, sa_type=Text)


# The same tables for statements that are built without the unit of work.
_TABLES: Final[dict[str, Table]] = dict(Base.metadata.tables)
SCHEMA: Final = _TABLES["checkpoint_schema"]
JOB: Final = _TABLES["job"]
RUN_NODE_STATE: Final = _TABLES["run_node_state"]
PENDING_ANSWER: Final = _TABLES["pending_answer"]
CHECKPOINT: Final = _TABLES["checkpoint"]
NODE_VERSION: Final = _TABLES["node_version"]
COMPLETED_NODES: Final = _TABLES["completed_nodes"]
OUTPUT_SEGMENT: Final = _TABLES["output_segment"]
PAYLOAD: Final = _TABLES["payload"]
PAYLOAD_SEGMENT: Final = _TABLES["payload_segment"]
LEASE: Final = _TABLES["lease"]
RUN_DEFINITION: Final = _TABLES["run_definition"]
RUN_KEY: Final = _TABLES["run_key"]
EVENT: Final = _TABLES["event"]
EVENT_HEAD: Final = _TABLES["event_head"]
