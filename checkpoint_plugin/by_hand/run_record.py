"""A run that is saved without our runner: what is stored of it, and one save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, select, type_coerce, update
from sqlalchemy.orm import configure_mappers
from sqlalchemy.types import NullType

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.by_hand.graph_shape import GraphShape, read_shape
from checkpoint_plugin.by_hand.hand_cut import HandCut
from checkpoint_plugin.by_hand.node_record import NodeRecord, pack_values, read_record
from checkpoint_plugin.by_hand.standing import (
    ENDS,
    SUSPENSION,
    Standing,
    fetch_standing,
    has_changed,
    mark_moment,
    moment_of,
    show_life,
    standing_statements,
)
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import JOB, RUN_DEFINITION, RUN_NODE_STATE, Job
from checkpoint_plugin.opening.held_runs import RUNNER
from checkpoint_plugin.restoring.reading import fetch_cut, read_whole
from checkpoint_plugin.runs.jobs import bare_definition, insert_bare_job
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.saving.statements import Kind, prepare_saves
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.definition import graph_of, is_storable_text
from checkpoint_plugin.tables.first_rows import prepare_first_rows
from checkpoint_plugin.tables.job import FINAL
from checkpoint_plugin.tables.keys import RunKeys
from checkpoint_plugin.tables.lease import first_epoch
from checkpoint_plugin.tables.run_definition import change_definition, opened_definition, short_texts
from checkpoint_plugin.tables.sealed_columns import NODE_TEXTS, opened_row, seal_texts
from hookspecs import NodeSnapshot, RunStatus, Snapshot, StoreError, dumps_tagged, name_edges

__all__ = ["BARE", "RunRecord", "RunSave", "catch_up", "fetch_record", "load_record", "make_ready", "make_record"]

BARE: Final = "manager"
"""The `execution_strategy` of a run whose row a manager made, not a runner."""
LOADS: Final = 10


@dataclass(slots=True)
class RunRecord:
    """What is known of a run.

    Args:
        history: for the next save.
        standing: as of the last look.
        moment: of the database, when the last save was written; see `standing.show_life`.
        nodes: every node of which something is stored.
        shape: of the graph it was saved with.
        context: beside the nodes.
        taken_at: when the newest checkpoint was taken.
        waiting: what is handed over to nodes of a runner and not final, by node id and handle: the arguments of a firing that is
            unfinished, or lists of the items on edges.
        by_runner: whether its checkpoints are those of a runner, which only a runner may go on from.
    """

    history: RunHistory
    standing: Standing | None = None
    moment: Any = None
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    shape: GraphShape = field(default_factory=lambda: GraphShape({}, ()))
    context: Mapping[str, Any] = field(default_factory=dict)
    taken_at: datetime | None = None
    waiting: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    by_runner: bool = False


def make_ready(dialect: str) -> None:
    """Make what is made once in the life of a process and costs more than a save: mappings of tables, and statements.

    Args:
        dialect: of the database.
    """
    configure_mappers()
    prepare_first_rows(dialect)
    standing_statements(dialect)
    named = ("nodes", "shown")
    prepare_saves(dialect, Kind(named, True), *(Kind(names, False, since) for names in (named, ()) for since in (False, True)))


async def load_record(store: Store, run_id: str) -> RunRecord | None:
    """Read a run as it stands: its newest checkpoint, and what changed in its nodes' rows since.

    Returns:
        The run; `None` when it has no row.

    Raises:
        StoreDamaged: what is stored is not what was written.
    """
    if not is_storable_text(run_id):
        return None
    with telling_damage(run_id, "a row of it"):
        return await read_whole(lambda: _load_record(store, run_id))


async def _load_record(store: Store, run_id: str) -> RunRecord | None:
    for _ in range(LOADS):
        found = await store.transact(lambda connection: _fetch(connection, store, run_id), write=False)
        if found is None:
            return None
        if found.before == found.after:
            break
    else:
        raise StoreError(f"run {run_id!r} is written all the time and cannot be read whole. Try again when it is quiet.")
    return await store.compute(lambda: _read(store, run_id, found))


def fetch_record(connection: Connection, store: Store, run_id: str) -> RunRecord | None:
    """As `load_record`, in a transaction that holds the run: nobody writes it meanwhile.

    Raises:
        StoreDamaged: what is stored is not what was written.
    """
    with telling_damage(run_id, "a row of it"):
        found = _fetch(connection, store, run_id)
        return None if found is None else _read(store, run_id, found)


class _Fetched(NamedTuple):
    """What is stored of a run, not yet decoded; how it stood before that was read, and after."""

    before: Standing
    cut: Any
    rows: Sequence[Any]
    definition: Any
    after: Standing | None
    seal: Seal


def _fetch(connection: Connection, store: Store, run_id: str) -> _Fetched | None:
    before = fetch_standing(connection, run_id)
    if before is None:
        return None
    seal = store.keys.find(connection, run_id)
    cut = fetch_cut(connection, run_id, None, store.codec, seal, store.blobs)
    rows = connection.execute(select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id)).all()
    definition = connection.execute(_DEFINITION, {"of_run": run_id}).one()
    return _Fetched(before, cut, rows, definition, fetch_standing(connection, run_id), seal)


def _read(store: Store, run_id: str, found: _Fetched) -> RunRecord:
    codec, before, seal = store.codec, found.before, found.seal
    history = RunHistory(run_id, before.job("attempt"), before.epoch, generation=before.generation, seal=seal)
    record = RunRecord(history, before)
    record.by_runner = before.job("execution_strategy") == RUNNER
    snapshot: Snapshot | None = None
    if found.cut is not None:
        snapshot = found.cut.snapshot(record.history)
        ours = snapshot.context is not None
        record.context, record.taken_at = snapshot.context or {}, snapshot.taken_at
        for node in snapshot.nodes:
            # What a runner keeps as a node's state is for the runner; what a suspended node keeps is for people, too.
            values = node.state if ours else None
            if node.suspension is not None:
                values = pack_values(f"run {run_id!r}, node {node.node_id!r}", None, node.suspension.state, codec)
            if values is not None and type(values) is not bytes:
                raise StoreDamaged(run_id, f"the values of node {node.node_id!r} are none", record.history.number)
            times = {"started_at": node.started_at, "ended_at": node.ended_at}
            record.nodes[node.node_id] = NodeRecord(node.status, node.attempt, node.error, values, **times)
        if not ours:
            record.by_runner = True
    for sealed in () if record.by_runner else found.rows:
        row = opened_row(run_id, sealed, NODE_TEXTS, seal)
        record.nodes[row.node_id] = read_record(run_id, record.nodes.get(row.node_id), row, codec)
    try:
        graph = graph_of(codec.decode(opened_definition(run_id, found.definition, seal)))
    except MalformedValue as error:
        raise StoreDamaged(run_id, f"its graph and inputs: {error}") from error
    record.shape = read_shape(graph)
    if snapshot is not None and record.by_runner:
        record.waiting = _waiting(graph, snapshot.nodes)
    return record


async def make_record(store: Store, run_id: str) -> RunRecord | None:
    """Make the row of a run, with its key, where there is none, and read the run."""
    job = Job(id=run_id, status="running", execution_strategy=BARE)
    job.started_at = job.created_at
    values, body = job.model_dump(), bare_definition(job)
    await store.transact(lambda connection: insert_bare_job(connection, values, body, store.keys, first_epoch()))
    return await load_record(store, run_id)


async def catch_up(store: Store, record: RunRecord) -> RunRecord | None:
    """Bring what is known of a run up to what is stored, reading only what changed.

    Returns:
        The same record, another one when somebody else took a checkpoint, or `None` when the run has no row any more.
    """
    run_id, known = record.history.run_id, record.standing
    standing = await store.transact(lambda connection: fetch_standing(connection, run_id), write=False)
    if standing is None or known is None:
        return None if standing is None else await load_record(store, run_id)
    history = record.history
    if (standing.number, standing.generation) != (history.number, history.generation):
        return await load_record(store, run_id)
    changed = [node_id for node_id, mark in standing.marks.items() if known.marks.get(node_id) != mark]
    if changed or known.marks.keys() - standing.marks.keys():

        def work(connection: Connection) -> list[Any]:
            query = select(RUN_NODE_STATE).where(RUN_NODE_STATE.c.run_id == run_id)
            parts = batches(connection, changed)
            return [row for ids in parts for row in connection.execute(query.where(RUN_NODE_STATE.c.node_id.in_(ids)))]

        with telling_damage(run_id, "a row of it"):
            for sealed in await store.transact(work, write=False):
                row = opened_row(run_id, sealed, NODE_TEXTS, history.seal)
                record.nodes[row.node_id] = read_record(run_id, record.nodes.get(row.node_id), row, store.codec)
    record.standing, record.moment = standing, None
    return record


def _waiting(graph: Mapping[str, Any], nodes: Sequence[NodeSnapshot]) -> dict[str, Mapping[str, Any]]:
    edges = graph.get("edges", ())
    handles = {name: edge["targetHandle"] for name, edge in zip(name_edges(edges), edges, strict=True)}
    found: dict[str, Mapping[str, Any]] = {}
    for node in nodes:
        if node.arguments is not None:
            found[node.node_id] = dict(node.arguments)
        elif node.status != "completed":
            items: dict[str, list[Any]] = {}
            for edge in node.inbox:
                if edge.items:
                    items.setdefault(handles.get(edge.edge_id, edge.edge_id), []).extend(edge.items)
            if items:
                found[node.node_id] = items
    return found


class RunSave:
    """One save of a run: its changed nodes as the next checkpoint, in one transaction, if the run still stands as it did.

    Args:
        record: what is known of the run; a new one when it has no row.
        changed: nodes that are not as they were.
        shape: of the graph.
        context: beside the nodes.
        reason: why it is saved.
        at: when.
        codec: encodes values.
        keys: of the store.
        blobs: where large values become files; `None` where they do not.
    """

    def __init__(
        self,
        record: RunRecord,
        changed: Mapping[str, NodeRecord],
        shape: GraphShape | None,
        context: Mapping[str, Any],
        reason: str,
        at: datetime,
        codec: Codec,
        keys: RunKeys,
        blobs: Blobs | None = None,
    ) -> None:
        self._record = record
        self._keys = keys
        self._changed = changed
        self._shape = shape
        self._context = context
        self.at = at
        self.run_id = record.history.run_id
        standing = record.standing
        self._status: RunStatus = "running" if standing is None else standing.job("status")
        told = None if standing is None else standing.job("error")
        error = None if told is None else record.history.seal.open_text(told)
        nodes = tuple(node.snapshot(node_id) for node_id, node in changed.items())
        snapshot = Snapshot(self.run_id, record.history.attempt, self._status, nodes, at, error, context=context)
        self._cut = HandCut(record.history, snapshot, changed, reason, codec, blobs)
        bare = standing is None or standing.job("execution_strategy") == BARE or not record.shape.nodes
        self._is_graph_new = shape is not None and bare and (standing is None or shape != record.shape)
        self._graph: Job | None = None
        self._marked_at: Any = None
        self._moment: Any = None

    async def hand_over(self, store: Store) -> bool:
        """Write it.

        Returns:
            Whether it was written; without, the run does not stand as it did.

        Raises:
            StoreError: the store cannot be used.
        """
        since = self._record.moment
        if not self._is_graph_new and self._cut.may_stand_alone(since):
            self._cut.since = since
            if await store.write_alone(self._cut):
                self._marked_at, self._moment = self.at, self._cut.since
                return True
            self._cut.since = None
        return await store.write(self)

    def encode(self) -> None:
        """Turn what changed into rows."""
        self._cut.encode()
        if self._is_graph_new:
            assert self._shape is not None
            self._graph = Job(id=self.run_id, graph=dumps_tagged(self._shape.to_document()))

    def write(self, connection: Connection) -> bool:
        """Write it.

        Returns:
            Whether it was written; without, the run does not stand as it did.
        """
        standing = self._record.standing
        if standing is None:
            job = self._new_job()
            epoch = self._record.history.epoch
            if not insert_bare_job(connection, job.model_dump(), bare_definition(job), self._keys, epoch):
                return False
        elif not self._stands_still(connection) and has_changed(connection, self.run_id, standing):
            return False
        if not self._cut.write(connection):
            return False
        self._marked_at = mark_moment(connection, self.at)
        if standing is not None:
            self._keep_job(connection, standing)
        self._moment = show_life(connection, self.run_id, self.at)
        return True

    def _stands_still(self, connection: Connection) -> bool:
        """Whether nothing at all was written to the database since the save before."""
        moment = self._record.moment
        return moment is not None and moment == moment_of(connection)

    def _keep_job(self, connection: Connection, standing: Standing) -> None:
        """Let the run's row say what it said."""
        stays = ENDS if self._status in FINAL else SUSPENSION if self._status == "suspended" else ()
        kept: dict[str, Any] = {name: type_coerce(standing.job(name), NullType()) for name in stays}  # as the driver gave it
        if self._graph is not None:
            seal, texts = self._record.history.seal, {"graph": self._graph.graph}
            kept.update(seal_texts({"graph": short_texts(texts)["graph"]}, ("graph",), seal))
            change_definition(connection, self.run_id, bare_definition(self._graph), texts, seal)
        if kept:
            connection.execute(update(JOB).where(JOB.c.id == self.run_id).values(**kept))

    def discard(self) -> None:
        """Delete the files of a save that was not written."""
        self._cut.discard()

    def note(self) -> None:
        """Bring the record up to what is durable now."""
        record, history = self._record, self._record.history
        self._cut.note()
        record.nodes.update(self._changed)
        record.context, record.taken_at = self._context, self.at
        if self._shape is not None and self._graph is not None:
            record.shape = self._shape
        old = record.standing or Standing.of_new(1, "running", BARE, history.epoch)
        marks = {n: (history.number, node.status, node.attempt, self._marked_at) for n, node in self._changed.items()}
        record.standing, record.moment = old.moved(history.number, marks), self._moment

    def _new_job(self) -> Job:
        job = Job(id=self.run_id, status="running", created_at=self.at, started_at=self.at, updated_at=self.at)
        job.execution_strategy = BARE
        job.graph = None if self._graph is None else self._graph.graph
        return job


# Made once: SQLAlchemy remembers what it compiled of it.
_DEFINITION: Final = (
    select(RUN_DEFINITION.c.body, RUN_DEFINITION.c.digest)
    .select_from(JOB.outerjoin(RUN_DEFINITION, RUN_DEFINITION.c.run_id == JOB.c.id))
    .where(JOB.c.id == bindparam("of_run"))
)
