"""A stored run with something of everything, and what a reader makes of its store after it was damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from checkpoint_plugin.codec import Codec, encode
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.opening.witness import Witness
from checkpoint_plugin.saving.completed import Tally
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import Definition
from hookspecs import EdgeSnapshot, NodeSnapshot, Prefix, RunStatus, Snapshot, StoreError, Suspension

__all__ = ["RUN_ID", "Seen", "look", "plain", "save_cut", "store_run"]

RUN_ID = "r"
CHECKPOINTS = 6
AT = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
HELD: list[Any] = [f"held {number} " * (3 + 170 * (number % 3 == 0)) for number in range(90)]
TAKEN = [(f"f{number % 2}", item) for number, item in enumerate(HELD)]
"""What a node holds that holds much: a save tells only what has changed, and the same object is the same item."""
Seen = Mapping[Any, Any]
"""What a reader got: by checkpoint, and the run's own row under `job`; an error where it was refused."""


def make_cut(number: int, items: list[Any], log: list[str], epoch: int = 1) -> Snapshot:
    """The cut of a checkpoint; those of a later number grew out of those before."""
    items += [number, f"item {number} " * 60, {"n": number}]
    log.append(f"line {number}: " + "".join(chr(97 + (number * 7 + place * place) % 26) for place in range(700)))
    edges = (EdgeSnapshot("e1", (number, "x" * (200 + number), None), False), EdgeSnapshot("e2", (), True))
    nodes = [
        NodeSnapshot(
            "busy", "running", number, 3, number, {"n": (number, "y" * 900), "s": {1, 2}}, {"x": log[-1], "y": None},
            [("e1", 1.5), ("e2", b"z" * 300)], 5, {"e1": "v" * 150, "e2": (number,)}, edges, ("e1", "e1", "e1"), (), "abc",
            None, AT, None,
        ),
        NodeSnapshot("grows", "running", state=list(log)),
        NodeSnapshot(
            "holds", "running", firing=number, taken=TAKEN[number : 2 * number], latest={"f0": number, "f1": None},
            inbox=(EdgeSnapshot("f0", (*HELD[6 * number : 40 + 7 * number],), False), EdgeSnapshot("f1", (number,), number > 3)),
            order=(*["f0"] * (40 + number), "f1"),
        ),
        NodeSnapshot("out", "running", collected=Prefix(items)),
        *(NodeSnapshot(f"over {number}.{each}", "completed", source="s", started_at=AT, ended_at=AT) for each in range(12)),
        NodeSnapshot(f"done {number}", "completed", state=bytes(range(number, 200)), started_at=AT, ended_at=AT),
        NodeSnapshot("bad", "failed", error=f"E {number}: \udcff\0"),
        NodeSnapshot("waits", "suspended", suspension=Suspension("asks", AT, {"q": number, "t": "w" * 200}, {"k": number})),
    ]  # fmt: skip
    status: RunStatus = "failed" if number == CHECKPOINTS else "running"
    error = "it broke" if status == "failed" else None
    at = AT + timedelta(seconds=number)
    return Snapshot(RUN_ID, epoch, status, tuple(nodes), at, error, error and "bad", context={"seen": list(range(number))})


async def store_run(url: str, witness: Path | None = None) -> None:
    """Store a run of several checkpoints."""
    store = Store(locate(url), create=True, witness=None if witness is None else Witness(witness))
    graph = {"nodes": [{"id": "busy", "type": "t", "data": {"text": "g" * 300}}], "edges": []}
    body = encode({"graph": graph, "inputs": {"a": [1, 2.5]}, "enable": {"checkpoint": {}}}, str)
    await store.insert_job(RUN_ID, Definition(body, "{}", "{}"))
    await store.insert_job("another", Definition(body, "{}", "{}"))
    items: list[Any] = []
    log: list[str] = []
    history = RunHistory(RUN_ID, 1, 1, tally=Tally(least=2))
    other = RunHistory("another", 1, 1)
    for number in range(1, CHECKPOINTS + 1):
        cut = make_cut(number, items, log)
        await store.save(history, cut, f"reason {number}")
        if number == 1:
            await store.save(other, Snapshot("another", 1, "running", cut.nodes[:2], AT), "x")
    await store.close()


async def save_cut(store: Store, history: RunHistory, node: NodeSnapshot, context: Mapping[str, Any] | None = None) -> None:
    """Save a cut of one node."""
    await store.save(history, Snapshot(history.run_id, 1, "running", (node,), AT, context=context), "x")


@dataclass(frozen=True)
class Refused:
    """An error of ours; two of them are not compared."""

    error: StoreError


async def look(url: str, witness: Path | None = None, codec: Codec | None = None) -> Seen:
    """Read everything that a resume may read, each on its own.

    Raises:
        Exception: anything but errors of ours, which are told in what is returned.
    """
    seen: dict[Any, Any] = {}
    store = Store(locate(url), create=False, codec=codec or Codec(), witness=None if witness is None else Witness(witness))
    try:
        try:
            job = await store.load_job(RUN_ID)
            seen["job"] = repr((job.run_id, job.status, job.graph, job.inputs, job.enable))
        except StoreError as error:
            seen["job"] = Refused(error)
        for number in ("brief", None, *range(1, CHECKPOINTS + 1)):
            try:
                history = RunHistory(RUN_ID, 1, 1)
                brief = number == "brief"
                found = await store.restore(history, None if brief else number, brief=brief)
                about = (history.number, history.log, history.total, history.saved_items)
                seen[number] = None if found is None else repr((plain(found), sorted(found.over), about))
            except StoreError as error:
                seen[number] = Refused(error)
    finally:
        await store.close()
    return seen


def plain(snapshot: Snapshot) -> Any:
    """A cut in one form, to compare."""
    rows = [tuple(getattr(node, item.name) for item in fields(NodeSnapshot)) for node in snapshot.nodes]
    shown = sorted(repr([list(v) if isinstance(v, Prefix) else v for v in row]) for row in rows)
    rest = (snapshot.run_id, snapshot.attempt, snapshot.status, snapshot.taken_at, snapshot.error, snapshot.error_node_id)
    return (*rest, snapshot.number, snapshot.context, shown)


def compare(seen: Seen, reference: Seen) -> int:
    """How much was refused; what was not is as it was written.

    Raises:
        AssertionError: something is not.
    """
    refused = 0
    for what, expected in reference.items():
        found = seen[what]
        if isinstance(found, Refused):
            refused += 1
            assert str(found.error).rstrip().endswith((".", "`")), f"{found.error} does not say what to do"
            continue
        assert found == expected, f"{what} came back as another value: {found!s:.2000} for {expected!s:.2000}"
    return refused
