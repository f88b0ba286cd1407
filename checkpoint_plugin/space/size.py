"""What takes the space of a store: by run and node, and on the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, LargeBinary, Table, cast, func, select

from checkpoint_plugin.blobs.name import read_name
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    EVENT,
    JOB,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
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
PARTS: Final = ("values", "files", "rows", "items", "checkpoints", "states", "events", "run")
"""What the bytes of a run are: values (also what they grew out of), values that are files, versions of nodes, items of
outputs, the checkpoints' own rows, `run_node_state`, the log of events, and the run's own row with graph and inputs."""
SEALED: Final = ("suspension_reason", "suspension_metadata_json", "resume_state_json", "outputs_json")
SUMMED: Final[Sequence[tuple[str, Table, tuple[str, ...]]]] = (
    ("values", PAYLOAD, ("digest", "body")),
    ("values", PAYLOAD_SEGMENT, ("body",)),
    ("rows", NODE_VERSION, ("node_id", "body", "mentions", "digest")),
    ("rows", COMPLETED_NODES, ("body", "digest")),
    ("items", OUTPUT_SEGMENT, ("node_id", "body", "mentions", "digest")),
    ("checkpoints", CHECKPOINT, ("reason", "cut_hash", "digest", "context", "error")),
    ("states", RUN_NODE_STATE, ("node_id", "last_error", *SEALED)),
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
        for run in runs:
            with telling_damage(run.run_id, "a row of it"):
                run.nodes = _measure_nodes(connection, run)
        return runs, *_measure_disk(connection)

    runs, disk, free = await store.transact(work, write=False)
    path = store.location.path
    if path is not None:
        disk.update(await store.compute(lambda: _files(path)))
    return StoreSize(sorted(runs, key=lambda run: (-run.total, run.run_id)), disk, free)


def _measure_runs(connection: Connection, run_id: str | None) -> Sequence[RunSize]:
    ids = select(JOB.c.id)
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


def _measure_nodes(connection: Connection, run: RunSize) -> Sequence[NodeSize]:
    nodes: dict[str, NodeSize] = {}

    def of(node_id: str) -> NodeSize:
        return nodes.setdefault(node_id, NodeSize(node_id))

    owners: dict[bytes, str] = {}
    for part, table in (("rows", NODE_VERSION), ("items", OUTPUT_SEGMENT)):
        columns = next(columns for _, summed, columns in SUMMED if summed is table)
        size = func.sum(_length(connection, table, columns))
        for node_id, found in connection.execute(
            select(table.c.node_id, size).where(table.c.run_id == run.run_id).group_by(table.c.node_id)
        ):
            of(node_id).parts[part] += int(found or 0)
        mentions = select(table.c.node_id, table.c.mentions).where(table.c.run_id == run.run_id, table.c.mentions.is_not(None))
        for node_id, listed in connection.execute(mentions.order_by(table.c.number, table.c.node_id)):
            for at in range(0, len(listed), DIGEST_SIZE):
                owners.setdefault(bytes(listed[at : at + DIGEST_SIZE]), node_id)
    series: dict[int, str] = {}
    payloads = select(PAYLOAD.c.digest, PAYLOAD.c.series, PAYLOAD.c.blob, func.length(PAYLOAD.c.body))
    for digest, number, blob, length in connection.execute(payloads.where(PAYLOAD.c.run_id == run.run_id)):
        owner = owners.get(column_bytes(digest))
        filed = _file_bytes(run.run_id, blob)
        run.parts["files"] += filed
        if owner is not None:
            of(owner).parts["values"] += len(digest) + int(length or 0)
            of(owner).parts["files"] += filed
            if number is not None:
                series.setdefault(number, owner)
    grown = select(PAYLOAD_SEGMENT.c.series, func.sum(func.length(PAYLOAD_SEGMENT.c.body)))
    for number, length in connection.execute(
        grown.where(PAYLOAD_SEGMENT.c.run_id == run.run_id).group_by(PAYLOAD_SEGMENT.c.series)
    ):
        if number in series:
            of(series[number]).parts["values"] += int(length or 0)
    return sorted(nodes.values(), key=lambda node: (-node.total, node.node_id))


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
        elif connection.dialect.name == "sqlite":
            size = func.length(cast(column, LargeBinary))
        else:
            size = func.octet_length(column)
        total = total + func.coalesce(size, 0)
    return total


def _measure_disk(connection: Connection) -> tuple[dict[str, int], int | None]:
    if connection.dialect.name == "sqlite":
        pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        return {}, int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
    names = sorted(Base.metadata.tables)
    sizes: Sequence[Any] = [func.pg_total_relation_size(func.to_regclass(name)) for name in names]
    row = connection.execute(select(*sizes)).one()
    return {name: int(size) for name, size in zip(names, row, strict=True) if size is not None}, None


def _files(path: Path) -> dict[str, int]:
    """The database, what lies beside it, and the folder of values that are files."""
    found = {
        name.name: name.stat().st_size for name in (path, *(Path(f"{path}{end}") for end in ("-wal", "-shm"))) if name.is_file()
    }
    folder = Path(f"{path}.blobs")
    if folder.is_dir():
        found[folder.name] = sum(name.stat().st_size for name in folder.rglob("*") if name.is_file())
    return found
