"""What takes the space of a store: by run and node, and on the disk."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import LargeBinary, Table, cast, func, select

from checkpoint_plugin.blobs.name import read_name
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    EVENT,
    JOB,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    PENDING_ANSWER,
    RUN_DEFINITION,
    RUN_NODE_STATE,
    Base,
)
from checkpoint_plugin.tables.definition import is_storable_text
from hookspecs import RunNotFound

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["PARTS", "NodeSize", "RunSize", "StoreSize", "measure_store"]

DIGEST_SIZE: Final = 32
ROWS_AT_ONCE: Final = 1_000
"""Of a query over a whole store, so many rows are held."""
PARTS: Final = ("values", "files", "rows", "items", "checkpoints", "states", "events", "run")
"""What the bytes of a run are: values (also what they grew out of), values that are files, versions of nodes, items of
outputs, the checkpoints' own rows, `run_node_state` and answers that wait, the log of events, and the run's own row with graph
and inputs."""
SEALED: Final = ("suspension_reason", "suspension_metadata_json", "resume_state_json", "outputs_json")
SUMMED: Final[Sequence[tuple[str, Table, tuple[str, ...]]]] = (
    ("values", PAYLOAD, ("digest", "body")),
    ("values", PAYLOAD_SEGMENT, ("body",)),
    ("rows", NODE_VERSION, ("node_id", "body", "mentions", "digest")),
    ("rows", COMPLETED_NODES, ("body", "digest")),
    ("items", OUTPUT_SEGMENT, ("node_id", "body", "mentions", "digest")),
    ("checkpoints", CHECKPOINT, ("reason", "cut_hash", "digest", "context", "error")),
    ("states", RUN_NODE_STATE, ("node_id", "last_error", *SEALED)),
    ("states", PENDING_ANSWER, ("node_id", "body", "digest")),
    ("events", EVENT, ("kind", "node_id", "payload_json")),
    ("run", RUN_DEFINITION, ("body", "graph", "params")),
    ("run", JOB, ("graph", "params", "logs", "error", "error_message", "suspension_state_json", "metadata_json")),
)  # fmt: skip


@dataclass(slots=True)
class NodeSize:
    """Bytes of a node.

    Args:
        node_id: the node.
        parts: by kind: `rows`, `items`, `values`, `files`; a value counts for the node that mentioned it first.
    """

    node_id: str
    parts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.parts.values())


@dataclass(slots=True)
class RunSize:
    """Bytes of a run.

    Args:
        run_id: the run.
        parts: by kind, see `PARTS`.
        nodes: the largest first.
    """

    run_id: str
    parts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    nodes: Sequence[NodeSize] = ()

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class StoreSize:
    """Bytes of a store.

    Args:
        runs: the largest first.
        disk: of each file, or of each table with its indexes on PostgreSQL.
        free: inside of them, to be used again; `None` where the database does not tell.
    """

    runs: Sequence[RunSize]
    disk: Mapping[str, int]
    free: int | None


async def measure_store(store: Store, run_id: str | None = None) -> StoreSize:
    """Measure a store. It reads the lengths of values, not the values.

    Args:
        store: an open one.
        run_id: only this run.

    Raises:
        RunNotFound: it is not there.
        StoreError: the store cannot be read.
    """
    if run_id is not None and not is_storable_text(run_id):
        raise RunNotFound(run_id, store.location.shown)

    def work(connection: Connection) -> tuple[Sequence[RunSize], dict[str, int], int | None]:
        runs = _measure_runs(connection, run_id)
        if run_id is not None and not runs:
            raise RunNotFound(run_id, store.location.shown)
        try:
            _measure_nodes(connection, runs, run_id)
        except StoreDamaged:  # rows are read some at a time, so another run's may be the one that is damaged
            for run in runs:
                _measure_nodes(connection, [run], run.run_id)
        return runs, *_measure_disk(connection)

    runs, disk, free = await store.transact(work, write=False)
    path = store.location.path
    if path is not None:
        disk.update(await store.compute(lambda: _files(path)))
    return StoreSize(sorted(runs, key=lambda run: (-run.total, run.run_id)), disk, free)


def _measure_runs(connection: Connection, run_id: str | None) -> Sequence[RunSize]:
    ids = select(JOB.c.id).order_by(JOB.c.id)
    runs = {
        found: RunSize(found) for found in connection.execute(ids if run_id is None else ids.where(JOB.c.id == run_id)).scalars()
    }
    for part, table, columns in SUMMED:
        key = table.c.id if table is JOB else table.c.run_id
        query = select(key, func.sum(_length(connection, table, columns))).group_by(key)
        for found, size in connection.execute(query if run_id is None else query.where(key == run_id)):
            if found in runs:
                runs[found].parts[part] += int(size or 0)
    return list(runs.values())


def _measure_nodes(connection: Connection, runs: Iterable[RunSize], run_id: str | None) -> None:
    """Measure the nodes of runs: a few queries, however many runs there are.

    Args:
        connection: for reading.
        runs: of the store, in the order of their ids.
        run_id: of the only one of them; `None` where they are all that there are.
    """

    def read(table: Table, *columns: Any) -> Any:
        query = select(JOB.c.id, *columns).join_from(JOB, table, table.c.run_id == JOB.c.id).order_by(JOB.c.id)
        return query if run_id is None else query.where(JOB.c.id == run_id)

    def by_run(query: Any) -> _ByRun:
        return _ByRun(connection.core.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}))

    sizes: list[tuple[str, _ByRun]] = []
    mentions: list[_ByRun] = []
    for part, table in (("rows", NODE_VERSION), ("items", OUTPUT_SEGMENT)):
        columns = next(columns for _, summed, columns in SUMMED if summed is table)
        size = read(table, table.c.node_id, func.sum(_length(connection, table, columns)))
        sizes.append((part, by_run(size.group_by(JOB.c.id, table.c.node_id))))
        listed = read(table, table.c.node_id, table.c.mentions).where(func.length(table.c.mentions) > 0)
        mentions.append(by_run(listed.order_by(table.c.number, table.c.node_id)))
    payloads = by_run(read(PAYLOAD, PAYLOAD.c.digest, PAYLOAD.c.series, PAYLOAD.c.blob, func.length(PAYLOAD.c.body)))
    segment = PAYLOAD_SEGMENT.c
    grown = by_run(read(PAYLOAD_SEGMENT, segment.series, func.sum(func.length(segment.body))).group_by(JOB.c.id, segment.series))
    for run in runs:
        with telling_damage(run.run_id, "a row of it"):
            parts = [(part, rows.of(run.run_id)) for part, rows in sizes]
            _share_out(run, parts, [rows.of(run.run_id) for rows in mentions], payloads.of(run.run_id), grown.of(run.run_id))


class _ByRun:
    """Rows in the order of their runs, which are given one run after the other; they are not all in memory.

    Args:
        rows: each begins with the id of its run.
    """

    def __init__(self, rows: Iterable[Any]) -> None:
        self._groups = groupby(rows, key=itemgetter(0))
        self._next: tuple[str, Sequence[Any]] | None = None

    def of(self, run_id: str) -> Sequence[Any]:
        """The rows of a run, without its id; to be asked in the same order."""
        if self._next is None:
            self._next = next(((found, [row[1:] for row in rows]) for found, rows in self._groups), None)
        if self._next is None or self._next[0] != run_id:
            return ()
        rows, self._next = self._next[1], None
        return rows


def _share_out(
    run: RunSize,
    sizes: Iterable[tuple[str, Sequence[Any]]],
    mentions: Iterable[Sequence[Any]],
    payloads: Sequence[Any],
    grown: Sequence[Any],
) -> None:
    """Say which bytes of a run are whose.

    Args:
        run: gets its nodes, and the bytes of its files.
        sizes: by kind the bytes of nodes.
        mentions: nodes and the digests that their rows mention, of rows of nodes and then of items, the oldest first.
        payloads: digest, series, file and length of each.
        grown: of series the bytes.
    """
    nodes: dict[str, NodeSize] = {}

    def of(node_id: str) -> NodeSize:
        return nodes.setdefault(node_id, NodeSize(node_id))

    for part, rows in sizes:
        for node_id, found in rows:
            of(node_id).parts[part] += int(found or 0)
    owners: dict[bytes, str] = {}
    for rows in mentions:
        for node_id, listed in rows:
            for at in range(0, len(listed), DIGEST_SIZE):
                owners.setdefault(bytes(listed[at : at + DIGEST_SIZE]), node_id)
    series: dict[int, str] = {}
    files = 0
    for digest, number, blob, length in payloads:
        owner = owners.get(column_bytes(digest))
        filed = _file_bytes(run.run_id, blob)
        files += filed
        if owner is not None:
            of(owner).parts["values"] += len(digest) + int(length or 0)
            of(owner).parts["files"] += filed
            if number is not None:
                series.setdefault(number, owner)
    for number, length in grown:
        if number in series:
            of(series[number]).parts["values"] += int(length or 0)
    run.parts["files"] = files
    run.nodes = sorted(nodes.values(), key=lambda node: (-node.total, node.node_id))


def _file_bytes(run_id: str, blob: str | None) -> int:
    if blob is None:
        return 0
    try:
        return read_name(blob, run_id).size
    except MalformedValue:
        return 0  # `workflow db check` tells of it


def _length(connection: Connection, table: Table, columns: Iterable[str]) -> Any:
    """Bytes of some columns of a row: of text not its characters, which is what `length` counts."""
    total: Any = 0
    for name in columns:
        column = table.c[name]
        if isinstance(column.type, LargeBinary):
            size = func.length(column)
        elif connection.kind == "sqlite":
            size = func.length(cast(column, LargeBinary))
        else:
            size = func.octet_length(column)
        total = total + func.coalesce(size, 0)
    return total


def _measure_disk(connection: Connection) -> tuple[dict[str, int], int | None]:
    if connection.kind == "sqlite":
        pages = connection.core.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        return {}, int(pages) * int(connection.core.exec_driver_sql("PRAGMA page_size").scalar_one())
    names = sorted(Base.metadata.tables)
    sizes: Sequence[Any] = [func.pg_total_relation_size(func.to_regclass(name)) for name in names]
    row = connection.execute(select(*sizes)).one()
    return {name: int(size) for name, size in zip(names, row, strict=True) if size is not None}, None


def _files(path: Path) -> dict[str, int]:
    """The database, what lies beside it, and the folder of values that are files."""
    beside = ((name.name, _size(name)) for name in (path, *(Path(f"{path}{end}") for end in ("-wal", "-shm"))))
    found = {name: size for name, size in beside if size is not None}
    folder = Path(f"{path}.blobs")
    if folder.is_dir():
        found[folder.name] = sum(_size(Path(place, name)) or 0 for place, _, names in os.walk(folder) for name in names)
    return found


def _size(path: Path) -> int | None:
    """Bytes of a file; `None` of one that is not there, which another process may have deleted since it was listed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
