"""Hostile bytes in every place of a store, restored and resumed under an audit hook: run as a program, as such a hook stays.

Prints one JSON object: what became of each, and every event that no honest run of the same kind causes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import and_, insert, select, update

from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.models import CHECKPOINT, JOB, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, PAYLOAD_SEGMENT, RUN_DEFINITION
from checkpoint_plugin.saving.cut_encoder import head_digest
from checkpoint_plugin.saving.holding import pack_link
from checkpoint_plugin.saving.payloads import PIECES
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.digests import cut_hash_of, row_digest, segment_digest
from checkpoint_plugin.stored_bytes.sealing import PLAIN
from checkpoint_plugin.tables.definition import Definition
from hookspecs import NodeSnapshot, Snapshot, StoreError, WorkflowError
from tests.checkpoint_plugin.hostile import QUIET, WATCHED, WATCHED_TOO, crafted, damaged
from workflow_runner import Context, NodeFailed, WorkflowRunner, node

LARGEST: Final = 100_000
THREADS: Final = "_thread.start_"
"""A store has a thread: how it is told that one begins is another word since Python 3.13."""


@node
async def steps(n: int, context: Context) -> AsyncIterator[object]:
    """Fails once."""
    state = context.state
    if state is None:
        yield "first " * 100
        context.commit({"log": "grown " * 400})
        raise ValueError("not yet")
    yield "second " * 100


@dataclass(frozen=True)
class Raw:
    """Bytes to be stored as they are."""

    data: bytes


class Forger(Codec):
    """Writes some values as what they are made of, so that all digests are right."""

    def encode(self, value: Any, place: Any) -> bytes:
        return value.data if isinstance(value, Raw) else super().encode(value, place)

    def pack_scalars(self, values: Sequence[Any]) -> bytes | None:
        return None


class Forge(Protocol):
    """Writes bytes into a place of a run."""

    def __call__(self, connection: Connection, /, run_id: str, data: bytes) -> None: ...


def node_body(connection: Connection, run_id: str, data: bytes, node_id: str = "s", continues: int | None = None) -> None:
    """A node's row, with its digest, the hash of the cut and the digest of the checkpoint put right."""
    of_run = NODE_VERSION.c.run_id == run_id
    of_node = (of_run, NODE_VERSION.c.node_id == node_id)
    number = connection.execute(select(NODE_VERSION.c.number).where(*of_node)).scalar_one()
    values = {"body": data, "digest": row_digest(run_id, node_id, number, data), "continues": continues}
    connection.execute(update(NODE_VERSION).where(*of_node).values(values))
    newest = and_(of_run, NODE_VERSION.c.number == number)
    digests = connection.execute(select(NODE_VERSION.c.node_id, NODE_VERSION.c.digest).where(newest)).all()
    head = connection.execute(select(CHECKPOINT).where(CHECKPOINT.c.run_id == run_id)).one()
    total = sum(int.from_bytes(digest, "big") for _, digest in digests) % (1 << 256)
    values = {**head._mapping, "cut_hash": cut_hash_of(total)}
    fixed = {"cut_hash": values["cut_hash"], "digest": head_digest(values, PLAIN)}
    connection.execute(update(CHECKPOINT).where(CHECKPOINT.c.run_id == run_id).values(fixed))


def changed_body(connection: Connection, run_id: str, data: bytes) -> None:
    """The same of a row that continues another; the one before it is moved to a number that no checkpoint has."""
    of_node = (NODE_VERSION.c.run_id == run_id, NODE_VERSION.c.node_id == "s")
    row = connection.execute(select(NODE_VERSION).where(*of_node)).one()
    before = {**row._mapping, "number": 0, "digest": row_digest(run_id, "s", 0, row.body)}
    node_body(connection, run_id, pack_link(0, before["digest"]) + data, continues=0)
    connection.execute(insert(NODE_VERSION).values(before))


def items_body(connection: Connection, run_id: str, data: bytes) -> None:
    row = connection.execute(select(OUTPUT_SEGMENT).where(OUTPUT_SEGMENT.c.run_id == run_id)).one()
    digest = segment_digest(run_id, row.node_id, row.log, row.first, data)
    connection.execute(update(OUTPUT_SEGMENT).where(OUTPUT_SEGMENT.c.run_id == run_id).values(body=data, digest=digest))


def payload_body(encoding: int) -> Forge:
    def forge(connection: Connection, run_id: str, data: bytes) -> None:
        values = {"body": data, "encoding": encoding, "size": 10**12, "series": 1, "series_end": 10**12}
        assert connection.execute(update(PAYLOAD).where(PAYLOAD.c.run_id == run_id).values(values)).rowcount > 0

    return forge


def series_body(encoding: int) -> Forge:
    def forge(connection: Connection, run_id: str, data: bytes) -> None:
        size = 10**12 if encoding else len(data)
        payload_body(PIECES)(connection, run_id, b"\x91\x92\x00\xcf" + (10**12).to_bytes(8, "big"))
        row = {"run_id": run_id, "series": 1, "start": 0, "size": size, "encoding": encoding, "body": data}
        connection.execute(insert(PAYLOAD_SEGMENT).values(row))

    return forge


def definition(connection: Connection, run_id: str, data: bytes) -> None:
    """Only the graph's columns for people: `definition` itself is forged when the run is made."""
    connection.execute(update(JOB).where(JOB.c.id == run_id).values(graph="{" + data.hex(), params=data.hex()))


FORGES: Final[dict[str, Forge | None]] = {
    "state": None,
    "collected": None,
    "context": None,
    "definition": definition,
    "node body": node_body,
    "changed body": changed_body,
    "items body": items_body,
    "payload as it is": payload_body(0),
    "payload unpacked": payload_body(1),
    "payload in pieces": payload_body(PIECES),
    "series as it is": series_body(0),
    "series unpacked": series_body(1),
}


async def prepare(url: str, payloads: Sequence[bytes]) -> dict[str, str]:
    """Store runs, each with hostile bytes in one place; the places by run."""
    runner = WorkflowRunner(nodes=[sys.modules["tests.damage.hostile_rows"]])
    graph = {
        "nodes": [
            {"id": "s", "type": "tests.damage.hostile_rows.steps", "data": {"n": 1}},
            {"id": "out", "type": "workflow.Output", "data": {"name": "out"}},
        ],
        "edges": [{"source": "s", "target": "out", "targetHandle": "value"}],
    }
    options = {"checkpoint": {"url": url, "explicit": True, "on_error": True}}
    for run_id in ("honest", "honest too"):
        try:
            await runner.run(graph, enable=options, run_id=run_id)
        except NodeFailed:
            continue
        raise AssertionError("the run did not fail")
    store = Store(locate(url), create=False, codec=Forger())
    kept = await store.restore(RunHistory("honest", 1, 1), None)
    assert kept is not None
    query = select(RUN_DEFINITION.c.body).where(RUN_DEFINITION.c.run_id == "honest")
    body = await store.transact(lambda connection: bytes(connection.execute(query).scalar_one()), write=False)
    where: dict[str, str] = {}
    for number, data in enumerate(payloads):
        place = list(FORGES)[number % len(FORGES)]
        run_id = f"r{number}"
        where[run_id] = place
        await store.insert_job(run_id, Definition(data if place == "definition" else body, "{}", "{}"))
        await store.save(RunHistory(run_id, 1, 1), _forged(kept, run_id, place, data), "x")
        forge = FORGES[place]
        if forge is not None:
            await store.transact(partial(forge, run_id=run_id, data=data))
    await store.close()
    return where


def _forged(kept: Snapshot, run_id: str, place: str, data: bytes) -> Snapshot:
    nodes = [
        replace(each, state=Raw(data)) if each.node_id == "s" and place == "state" else each
        for each in kept.nodes
        if each.node_id != "out"
    ]
    nodes.append(NodeSnapshot("out", "running", collected=[Raw(data) if place == "collected" else "an item " * 250]))
    context: Any = Raw(data) if place == "context" else None
    return replace(kept, run_id=run_id, nodes=tuple(nodes), number=None, context=context)


async def use(url: str, run_id: str) -> list[str]:
    """Everything that reads a run, each on its own."""
    store = Store(locate(url), create=False)

    async def resume() -> None:
        runner = WorkflowRunner(nodes=[sys.modules["tests.damage.hostile_rows"]])
        await runner.resume(run_id, url=url)

    told = []
    for read in (
        lambda: store.load_job(run_id),
        lambda: store.restore(RunHistory(run_id, 1, 1), None),
        lambda: store.job(run_id),
        resume,
    ):
        try:
            await read()
            told.append("done")
        except (StoreError, WorkflowError) as error:
            told.append(type(error).__name__)
    await store.close()
    return told


async def drive(url: str, payloads: Sequence[bytes]) -> dict[str, Any]:
    where = await prepare(url, payloads)
    seen: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(WATCHED + WATCHED_TOO) and event not in QUIET:
            seen.append(event if event.startswith(THREADS) else f"{event} {arguments!r}"[:300])

    await use(url, "honest")  # what is imported at the first use is imported now
    for part in ("arrays", "frames", "images", "tables"):  # and what our codec loads when it first meets a value of a library
        with suppress(ImportError):
            import_module(f"checkpoint_plugin.codec.{part}")
    sys.addaudithook(watch)
    assert (await use(url, "honest too"))[-1] == "done"
    honest = {kind_of(event) for event in seen}
    found: dict[str, Counter[str]] = {place: Counter() for place in FORGES}
    events = []
    for run_id, place in where.items():
        seen.clear()
        came = ", ".join(await use(url, run_id))
        found[place][came] += 1
        events += [f"{place}: {came}: {event}" for event in seen if kind_of(event) not in honest]
    return {"runs": len(where), "found": found, "events": events[:20], "honest": sorted(honest)}


def kind_of(event: str) -> str:
    """An event without what differs from run to run."""
    return "".join(letter for letter in event if not letter.isdigit()).partition(" at 0x")[0]


def main() -> None:
    """Write, then read."""
    seed, folder, each = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("error")
    dice = random.Random(seed)
    good = [data for data in (*crafted(), *damaged(seed, 60)) if len(data) < LARGEST]
    payloads = dice.sample(good, each * len(FORGES))
    print(json.dumps(asyncio.run(drive(f"sqlite:///{folder / 'c.db'}", payloads))))


if __name__ == "__main__":
    from tests.damage import hostile_rows  # node types bear the name of the module, not `__main__`

    hostile_rows.main()
