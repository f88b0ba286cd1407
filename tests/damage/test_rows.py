"""Single rows changed, swapped, deleted, doubled, and a lost tail, on both databases: refused, or the right value."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import ormsgpack
import pytest
from sqlalchemy import Table, and_, delete, insert, select, update

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    RUN_DEFINITION,
)
from checkpoint_plugin.restoring.restored import RowReader
from checkpoint_plugin.saving.rows import FIELDS
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.digests import row_digest
from tests.damage.stored import RUN_ID, Refused, Seen, compare, look, store_run

NEEDED: dict[str, tuple[Table, tuple[str, ...]]] = {
    "payload": (PAYLOAD, ("body", "encoding", "size", "digest")),
    "payload_segment": (PAYLOAD_SEGMENT, ("body", "encoding", "size", "start", "series")),
    "node_version": (NODE_VERSION, ("body", "digest", "node_id", "number", "continues")),
    "completed_nodes": (COMPLETED_NODES, ("body", "digest", "number")),
    "output_segment": (OUTPUT_SEGMENT, ("body", "digest", "first", "log", "node_id")),
    "checkpoint": (
        CHECKPOINT,
        ("cut_hash", "status", "row_count", "log", "context", "error", "attempt", "created_at", "number", "digest"),
    ),
    "run_definition": (RUN_DEFINITION, ("body", "digest")),
    "lease": (LEASE, ("newest_number",)),
}
"""The tables that a restore reads, with columns whose change nobody may miss."""


@pytest.fixture
async def stored(store_url: str) -> str:
    await store_run(store_url)
    return store_url


async def read_rows(url: str, table: Table, run_id: str = RUN_ID) -> list[dict[str, Any]]:
    store = Store(locate(url), create=False)
    try:
        key = table.c.id if table is JOB else table.c.run_id
        query = select(table).where(key == run_id).order_by(*table.primary_key.columns)
        rows = await store.transact(lambda connection: connection.execute(query).all(), write=False)
        return [dict(row._mapping) for row in rows]
    finally:
        await store.close()


async def change(url: str, *statements: Any) -> None:
    store = Store(locate(url), create=False)

    def work(connection: Connection) -> None:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1

    try:
        await store.transact(work)
    finally:
        await store.close()


def is_row(table: Table, row: Mapping[str, Any]) -> Any:
    return and_(*(column == row[column.name] for column in table.primary_key.columns))


def bent(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bytes) and value:
        data = bytearray(value)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if isinstance(value, int):
        return value + rng.choice([1, 2])
    if isinstance(value, str):
        return {"running": "completed", "failed": "running"}.get(value, value + "'")
    return None if value is None else type(value)(2027, 1, 1, tzinfo=value.tzinfo)


@pytest.mark.parametrize("name", list(NEEDED))
async def test_a_changed_row(stored: str, name: str) -> None:
    table, columns = NEEDED[name]
    rng = random.Random(name)
    reference = await look(stored)
    rows = await read_rows(stored, table)
    keys = [column.name for column in table.primary_key.columns]
    taken = {tuple(row[key] for key in keys) for row in rows}
    for column in columns:
        changes = [(row, {**row, column: bent(row[column], rng)}) for row in rows]
        new = [(row, there) for row, there in changes if there[column] != row[column]]
        if column in keys:
            new = [(row, there) for row, there in new if tuple(there[key] for key in keys) not in taken]
        for row, there in rng.sample(new, min(3, len(new))):
            await change(stored, update(table).where(is_row(table, row)).values({column: there[column]}))
            assert compare(await look(stored), reference), f"nobody saw that {column} of {row} was changed"
            await change(stored, update(table).where(is_row(table, there)).values({column: row[column]}))
    assert compare(await look(stored), reference) == 0


async def test_a_deleted_block_of_completed_nodes(stored: str) -> None:
    """What it told is read from the rows of the nodes, or it is missed."""
    reference = await look(stored)
    rows = await read_rows(stored, COMPLETED_NODES)
    assert len(rows) > 1
    for row in rows:
        await change(stored, delete(COMPLETED_NODES).where(is_row(COMPLETED_NODES, row)))
        seen = await look(stored)
        refused = seen["brief"]
        assert isinstance(refused, Refused) or refused == reference["brief"]
        assert isinstance(refused, Refused) == (row is not rows[-1])
        assert compare(seen, reference) == isinstance(refused, Refused)
        await change(stored, insert(COMPLETED_NODES).values(row))
    assert compare(await look(stored), reference) == 0


@pytest.mark.parametrize("name", [name for name in NEEDED if name != "completed_nodes"])
async def test_a_deleted_row(stored: str, name: str) -> None:
    table, _ = NEEDED[name]
    reference = await look(stored)
    rows = await read_rows(stored, table)
    for row in random.Random(name).sample(rows, min(6, len(rows))):
        await change(stored, delete(table).where(is_row(table, row)))
        assert compare(await look(stored), reference), f"nobody saw that {row} was deleted"
        await change(stored, insert(table).values(row))
    assert compare(await look(stored), reference) == 0


@pytest.mark.parametrize("name", ["payload", "payload_segment", "node_version", "output_segment", "checkpoint"])
async def test_swapped_rows(stored: str, name: str) -> None:
    """Two rows change places: each is whole, with its digest, and stands where the other was."""
    table, _ = NEEDED[name]
    reference = await look(stored)
    rows = await read_rows(stored, table)
    rng = random.Random(name)
    keys = [column.name for column in table.primary_key.columns]
    for _ in range(5):
        one, two = rng.sample(rows, 2)
        values = [{n: v for n, v in row.items() if n not in keys} for row in (one, two)]
        await change(
            stored,
            update(table).where(is_row(table, one)).values(values[1]),
            update(table).where(is_row(table, two)).values(values[0]),
        )
        assert compare(await look(stored), reference), f"nobody saw that {one} and {two} changed places"
        await change(
            stored,
            update(table).where(is_row(table, one)).values(values[0]),
            update(table).where(is_row(table, two)).values(values[1]),
        )


@pytest.mark.parametrize("number", [1, 4, 7])
async def test_a_doubled_node_row(stored: str, number: int) -> None:
    reference = await look(stored)
    row = next(row for row in await read_rows(stored, NODE_VERSION) if row["number"] == 3)
    await change(stored, insert(NODE_VERSION).values({**row, "number": number, "node_id": "again"}))
    seen = await look(stored)
    compare(seen, reference)
    expected = [n for n in range(1, 7) if n >= number]
    assert [n for n in range(1, 7) if isinstance(seen[n], Refused)] == expected


async def test_a_doubled_segment_and_a_lost_tail(stored: str) -> None:
    reference = await look(stored)
    segments = await read_rows(stored, OUTPUT_SEGMENT)
    last = segments[-1]
    await change(stored, insert(OUTPUT_SEGMENT).values({**last, "first": last["first"] + last["count"]}))
    assert compare(await look(stored), reference)
    await change(stored, delete(OUTPUT_SEGMENT).where(OUTPUT_SEGMENT.c.first == last["first"] + last["count"]))
    # All that the last save wrote is gone, as a disk that loses its newest pages would have it; the run's row is newer.
    tail = [
        delete(table).where(is_row(table, row))
        for table in (NODE_VERSION, OUTPUT_SEGMENT, CHECKPOINT)
        for row in await read_rows(stored, table)
        if row["number"] == 6
    ]
    await change(stored, *tail)
    seen = await look(stored)
    assert isinstance(seen[None], Refused)
    assert "checkpoint 6 of run 'r' is damaged" in str(seen[None].error)


def wrong_numbers(row: list[Any]) -> list[Any]:
    """A row that is well-formed, with one number changed."""
    row[FIELDS.index("emitted")] += 1
    return row


@pytest.mark.parametrize("fixed", [False, True])
async def test_a_well_formed_row_with_one_number_changed(stored: str, fixed: bool) -> None:
    """Also with the digest of the row put right: it is not the row that the checkpoint was made of."""
    reference = await look(stored)
    for row in [row for row in await read_rows(stored, NODE_VERSION) if row["node_id"] == "busy"]:
        body = ormsgpack.packb(wrong_numbers(ormsgpack.unpackb(row["body"])))
        digest = row_digest(RUN_ID, row["node_id"], row["number"], body) if fixed else row["digest"]
        await change(stored, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(body=body, digest=digest))
        seen = await look(stored)
        compare(seen, reference)
        assert (
            "busy" in told(seen, row["number"])
            if not fixed
            else "not the one that the checkpoint was made of" in told(seen, row["number"])
        )
        back = {"body": row["body"], "digest": row["digest"]}
        await change(stored, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(back))


@pytest.mark.parametrize("seconds", [2**62, -1e18, 1e300])
@pytest.mark.parametrize("place", ["started_at", "suspension"])
def test_a_time_that_no_clock_has_is_damage(place: str, seconds: float) -> None:
    """Some of them Python tells as an error of the system."""
    row: list[Any] = [None if name in ("state", "arguments", "latest", "error", "ended_at") else 0 for name in FIELDS]
    for name in ("taken", "inbox", "order"):
        row[FIELDS.index(name)] = []
    row[FIELDS.index("status")], row[FIELDS.index("source")] = "suspended", ""
    waits = [b"why", seconds, None, None, None, False, None, None]
    row[FIELDS.index(place)], row[-1] = seconds, waits if place == "suspension" else None
    reader = RowReader(RUN_ID, 1)
    found = reader.unpack("n", ormsgpack.packb(row), 1)
    with pytest.raises(StoreDamaged, match="row of it"), telling_damage(RUN_ID, "a row of it", 1):
        reader.node("n", found, [])


def told(seen: Seen, number: int) -> str:
    found = seen[number]
    assert isinstance(found, Refused)
    return str(found.error)
