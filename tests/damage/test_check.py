"""`workflow db check` finds what a restore would refuse, names the checkpoints that it would refuse, and reads only."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Table, and_, delete, insert, update

from checkpoint_plugin.checking import payload_check
from checkpoint_plugin.checking.finding import RunReport, StoreReport
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.cli.db import db
from checkpoint_plugin.codec import encode
from checkpoint_plugin.database import raw_rows
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.events.rows import append_events
from checkpoint_plugin.models import CHECKPOINT, EVENT, JOB, LEASE, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, RUN_NODE_STATE
from checkpoint_plugin.restoring.cut_queries import load_payloads
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.digests import digest_of, row_digest
from checkpoint_plugin.tables.definition import Definition
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import take_lease
from hookspecs import NodeSnapshot, RunNotFound
from tests.damage.stored import CHECKPOINTS, RUN_ID, Refused, compare, look, save_cut, store_run
from tests.damage.test_rows import NEEDED, bent, change, is_row, read_rows, wrong_numbers

KEY = "0" * 63 + "1"
NUMBERS = range(1, CHECKPOINTS + 1)


@pytest.fixture
async def stored(store_url: str) -> str:
    await store_run(store_url)
    return store_url


async def check(url: str, *run_ids: str, witness: Path | None = None) -> StoreReport:
    store = Store(locate(url), create=False)
    try:
        return await check_store(store, run_ids, witness)
    finally:
        await store.close()


async def check_run(url: str) -> RunReport:
    (report,) = (await check(url, RUN_ID)).runs
    return report


def call(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(db, ["check", "--url", url, *arguments])


async def compare_with_restore(url: str) -> RunReport:
    """The check names those checkpoints that a restore refuses, and no other."""
    report, seen = await check_run(url), await look(url)
    refused = {number for number in NUMBERS if isinstance(seen[number], Refused)}
    usable = not isinstance(seen["job"], Refused)
    there = [number for number in NUMBERS if number in report.checkpoints]
    assert report.damaged.intersection(NUMBERS) == (
        {number for number in there if number in refused} if usable else set(there)
    ), report.findings
    if refused or not usable or isinstance(seen[None], Refused):
        assert report.findings
    return report


async def test_a_whole_store_has_nothing_to_tell(stored: str) -> None:
    report = await check(stored)
    assert [run.run_id for run in report.runs] == [RUN_ID, "another"]
    assert list(report.all_findings) == []
    assert list(report.unverified) == []
    assert [list(run.checkpoints) for run in report.runs] == [list(NUMBERS), [1]]
    assert report.runs[0].newest_intact == CHECKPOINTS
    assert (await check(stored, RUN_ID, RUN_ID)).runs == report.runs[:1], "a run named twice is looked at once"
    with pytest.raises(RunNotFound):
        await check(stored, "nobody")


@pytest.mark.parametrize("name", list(NEEDED))
async def test_whatever_is_changed_is_found_where_a_restore_finds_it(stored: str, name: str) -> None:
    table, columns = NEEDED[name]
    rng = random.Random(name)
    rows = await read_rows(stored, table)
    keys = [column.name for column in table.primary_key.columns]
    taken = {tuple(row[key] for key in keys) for row in rows}
    for column in columns:
        changes = [(row, {**row, column: bent(row[column], rng)}) for row in rows]
        new = [(row, there) for row, there in changes if there[column] != row[column]]
        if column in keys:
            new = [(row, there) for row, there in new if tuple(there[key] for key in keys) not in taken]
        for row, there in rng.sample(new, min(1, len(new))):
            await change(stored, update(table).where(is_row(table, row)).values({column: there[column]}))
            report = await compare_with_restore(stored)
            assert report.findings, f"nobody saw that {column} of {row} was changed"
            await change(stored, update(table).where(is_row(table, there)).values({column: row[column]}))
    assert not (await check_run(stored)).findings


async def test_a_value_is_missed_as_long_as_rows_hold_it(stored: str) -> None:
    """A row that continues another holds values that it does not mention, until they are gone."""
    rows = [row for row in await read_rows(stored, NODE_VERSION) if row["node_id"] == "holds"]
    assert [row["continues"] for row in rows] == [None, 1, 2, 3, 4, 5]
    values = {bytes(row["digest"]): row for row in await read_rows(stored, PAYLOAD)}
    spoiled = []
    for digest in (rows[0]["mentions"][96:128], rows[0]["mentions"][-32:], rows[2]["mentions"][-32:]):
        value = values[bytes(digest)]
        await change(stored, update(PAYLOAD).where(is_row(PAYLOAD, value)).values(body=b"x"))
        report = await compare_with_restore(stored)
        assert len([found for found in report.findings if found.node_id == "holds"]) == 1
        spoiled.append(sorted(report.damaged))
        await change(stored, update(PAYLOAD).where(is_row(PAYLOAD, value)).values(body=value["body"]))
    assert spoiled == [[1, 2, 3], [1, 2, 3, 4, 5, 6], [3, 4, 5, 6]]
    assert not (await check_run(stored)).findings


@pytest.mark.parametrize("name", list(NEEDED))
async def test_whatever_is_deleted_is_found(stored: str, name: str) -> None:
    table, _ = NEEDED[name]
    rows = await read_rows(stored, table)
    needed = rows[:-1] if name == "completed_nodes" else rows  # without the last, a restore reads what it told
    for row in random.Random(name).sample(needed, min(3, len(needed))):
        await change(stored, delete(table).where(is_row(table, row)))
        report = await compare_with_restore(stored)
        assert report.findings, f"nobody saw that {row} is gone"
        await change(stored, insert(table).values(row))
    assert not (await check_run(stored)).findings


@pytest.mark.parametrize("page", [1, 2, 7])
async def test_each_row_is_looked_at_once_however_few_are_read_at_a_time(
    stored: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run with many rows some are read at a time, by keys of two and three columns."""
    monkeypatch.setattr(raw_rows, "PAGE", page)
    monkeypatch.setattr(payload_check, "PAGE", page)
    assert not (await check_run(stored)).findings
    *_, row = await read_rows(stored, NODE_VERSION)
    *_, item = await read_rows(stored, OUTPUT_SEGMENT)
    await change(stored, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(body=b"x"))
    value, *_ = await read_rows(stored, PAYLOAD)
    await change(stored, update(OUTPUT_SEGMENT).where(is_row(OUTPUT_SEGMENT, item)).values(body=b"x"))
    await change(stored, update(PAYLOAD).where(is_row(PAYLOAD, value)).values(body=b"x"))
    report = await compare_with_restore(stored)
    assert len({found.what for found in report.findings}) > 2
    monkeypatch.undo()
    assert report == await check_run(stored)


@pytest.mark.parametrize("name", ["payload", "node_version", "checkpoint"])
async def test_rows_of_two_runs_that_changed_places_are_found(stored: str, name: str) -> None:
    """Each is whole, with its digest, of the same number and node, and of another run."""
    table, _ = NEEDED[name]
    mine = await read_rows(stored, table)
    theirs = await read_rows(stored, table, "another")
    keys = [column.name for column in table.primary_key.columns]
    pairs = [
        (one, two)
        for one in mine
        for two in theirs
        if one["body" if "body" in one else "digest"] != two["body" if "body" in two else "digest"]
    ]
    if not pairs:
        pytest.skip("the other run has no such row")
    reference = await look(stored)
    for one, two in random.Random(name).sample(pairs, min(3, len(pairs))):
        values = [{n: v for n, v in row.items() if n not in keys} for row in (one, two)]
        await change(
            stored,
            update(table).where(is_row(table, one)).values(values[1]),
            update(table).where(is_row(table, two)).values(values[0]),
        )
        assert (await compare_with_restore(stored)).findings, f"nobody saw that {one} and {two} changed places"
        compare(await look(stored), reference)  # what is not refused is as it was written
        await change(
            stored,
            update(table).where(is_row(table, one)).values(values[0]),
            update(table).where(is_row(table, two)).values(values[1]),
        )
    assert await look(stored) == reference


async def test_a_checkpoint_whose_number_has_become_very_large_does_not_make_all_below_it_findings(stored: str) -> None:
    newest = and_(CHECKPOINT.c.run_id == RUN_ID, CHECKPOINT.c.number == CHECKPOINTS)
    await change(stored, update(CHECKPOINT).where(newest).values(number=2**31 - 1))
    report = await check_run(stored)
    assert 2**31 - 1 in report.damaged
    missing = [finding.number for finding in report.findings if finding.what == "the checkpoint itself is missing"]
    assert missing == list(range(CHECKPOINTS, CHECKPOINTS + len(missing)))
    assert 1 < len(missing) <= 100


async def test_a_forged_row_with_a_digest_of_its_own_is_found(stored: str) -> None:
    row = next(r for r in await read_rows(stored, NODE_VERSION) if (r["node_id"], r["number"]) == ("busy", 3))
    body = ormsgpack.packb(wrong_numbers(ormsgpack.unpackb(row["body"])))
    forged = {"body": body, "digest": row_digest(RUN_ID, "busy", 3, body)}
    await change(stored, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(forged))
    report = await compare_with_restore(stored)
    assert [(found.number, found.what) for found in report.findings] == [
        (3, "a row of a node is not the one that the checkpoint was made of")
    ]


@pytest.mark.parametrize("number", [1, 3])
async def test_a_forged_row_is_found_in_all_that_continue_it(stored: str, number: int) -> None:
    row = next(r for r in await read_rows(stored, NODE_VERSION) if (r["node_id"], r["number"]) == ("holds", number))
    fields = ormsgpack.unpackb(row["body"])
    wrong_numbers(fields if number == 1 else fields[-1])
    body = ormsgpack.packb(fields)
    forged = {"body": body, "digest": row_digest(RUN_ID, "holds", number, body)}
    await change(stored, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(forged))
    report = await compare_with_restore(stored)
    assert sorted(report.damaged) == list(range(number, CHECKPOINTS + 1))


async def test_an_output_of_which_nothing_is_left_is_missed(stored: str) -> None:
    segments = [row for row in await read_rows(stored, OUTPUT_SEGMENT) if row["node_id"] == "out"]
    await change(stored, *(delete(OUTPUT_SEGMENT).where(is_row(OUTPUT_SEGMENT, row)) for row in segments))
    report = await compare_with_restore(stored)
    assert {(found.number, found.node_id, found.what) for found in report.findings} == {
        (number, "out", f"the output has 0 of {3 * number} items") for number in NUMBERS
    }


async def test_a_value_that_an_item_mentions_is_missed(store_url: str) -> None:
    store = Store(locate(store_url), create=True)
    body = encode({"graph": {"nodes": [], "edges": []}, "inputs": {}, "enable": {}}, str)
    await store.insert_job(RUN_ID, Definition(body, "{}", "{}"))
    history = RunHistory(RUN_ID, 1, 1)
    for many in (1, 2):
        await save_cut(store, history, NodeSnapshot("out", "running", collected=[f"item {n}" * 1_000 for n in range(many)]))
    await store.close()
    assert not (await check_run(store_url)).findings
    _, second = await read_rows(store_url, OUTPUT_SEGMENT)
    await change(store_url, update(OUTPUT_SEGMENT).where(is_row(OUTPUT_SEGMENT, second)).values(mentions=b""))
    (found,) = (await check_run(store_url)).findings
    assert (found.number, found.node_id) == (2, "out")
    assert "does not list it, so that pruning would delete that" in found.what
    await change(store_url, delete(PAYLOAD).where(PAYLOAD.c.digest == second["mentions"]))
    assert (await compare_with_restore(store_url)).damaged == {2}


async def test_each_value_that_is_damaged_is_named(stored: str) -> None:
    """However it is damaged, and whatever is read with it; one that nothing mentions, too."""
    digest = digest_of(b"\xc1")
    garbled = {"run_id": RUN_ID, "digest": digest, "encoding": 0, "size": 1, "body": b"\xc1"}
    other, *_, value = [row for row in await read_rows(stored, PAYLOAD) if row["series"] is None]
    await change(
        stored,
        insert(PAYLOAD).values(garbled),
        update(PAYLOAD).where(is_row(PAYLOAD, value)).values(encoding=9),
        update(PAYLOAD).where(is_row(PAYLOAD, other)).values(encoding=0, size=1, body=b"\xc0"),
    )
    told = {found.what.split()[1]: found.what for found in (await check_run(stored)).findings if found.node_id is None}
    assert told.keys() == {f"{found.hex()[:16]}:" for found in (digest, value["digest"], other["digest"])}
    assert told[f"{other['digest'].hex()[:16]}:"].endswith("it was changed")


async def test_of_values_that_are_read_together_only_those_that_are_damaged_are_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    await store_run(url)
    with closing(sqlite3.connect(tmp_path / "c.db")) as database, database:
        digests = [
            digest for (digest,) in database.execute("SELECT digest FROM payload WHERE run_id = ? ORDER BY digest", (RUN_ID,))
        ]
        database.execute("UPDATE payload SET body = 7 WHERE digest IN (?, ?)", (digests[1], digests[-1]))
        database.execute("UPDATE payload SET digest = 7 WHERE digest = ?", (digests[3],))
    report = await compare_with_restore(url)
    told = [found.what.partition(":")[0] for found in report.findings if found.node_id is None]
    assert told == ["a payload has no digest", *(f"payload {digest.hex()[:16]}" for digest in (digests[1], digests[-1]))]


@pytest.mark.parametrize(("at_once", "size"), [(5, 1 << 30), (2_000, 1)])
async def test_no_more_values_are_read_at_once_than_memory_takes(
    stored: str, monkeypatch: pytest.MonkeyPatch, at_once: int, size: int
) -> None:
    read: list[int] = []

    def loaded(connection: Any, run_id: str, digests: Sequence[bytes], *rest: Any) -> Any:
        read.append(len(digests))
        return load_payloads(connection, run_id, digests, *rest)

    monkeypatch.setattr(payload_check, "load_payloads", loaded)
    monkeypatch.setattr(payload_check, "PAGE", at_once)
    monkeypatch.setattr(payload_check, "BATCH_BYTES", size)
    assert not (await check_run(stored)).findings
    assert sum(read) == len(await read_rows(stored, PAYLOAD)) > 10
    assert max(read) == (5 if at_once == 5 else 1)


@pytest.mark.parametrize(
    ("epoch", "newest"),
    [("'x'", None), ("1.5", None), (str(2**63 - 1), None), ("-1", CHECKPOINTS), ("1, generation = CAST(x'ff' AS TEXT)", None)],
)
async def test_an_epoch_that_none_can_follow_lets_no_checkpoint_be_gone_on_from(
    tmp_path: Path, epoch: str, newest: int | None
) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    await store_run(url)
    with closing(sqlite3.connect(tmp_path / "c.db")) as database, database:
        database.execute(f"UPDATE lease SET epoch = {epoch} WHERE run_id = ?", (RUN_ID,))
    report = await check_run(url)
    assert report.findings
    assert report.newest_intact == newest
    store = Store(locate(url), create=False)
    take = partial(take_lease, run_id=RUN_ID, holder=Holder.here(), seconds=30.0)
    try:
        with pytest.raises(StoreDamaged) if newest is None else nullcontext():
            await store.transact(take)
    finally:
        await store.close()


async def test_a_row_that_says_completed_is_compared_with_the_newest_checkpoint(stored: str) -> None:
    await change(
        stored,
        update(JOB).where(JOB.c.id == RUN_ID).values(status="completed", execution_strategy="runner"),
    )
    (found,) = (await check_run(stored)).findings
    assert found.what == f"its row says that it is completed, and checkpoint {CHECKPOINTS} says failed"
    newest = and_(CHECKPOINT.c.run_id == RUN_ID, CHECKPOINT.c.number == CHECKPOINTS)
    await change(stored, update(CHECKPOINT).where(newest).values(reason="another"))
    (found,) = (await check_run(stored)).findings
    assert found.what == "the row of the checkpoint was changed"


async def test_a_plain_run_is_said_to_be_refused_where_a_key_is_set(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", KEY)
    report = await check_run(stored)
    assert not report.findings
    assert [each.what for each in report.unverified] == ["it is not encrypted, and a key is set: with the key it is not resumed"]


async def test_rows_of_nodes_behind_the_last_checkpoint_are_told(stored: str) -> None:
    rows = [row for row in await read_rows(stored, NODE_VERSION) if row["number"] == CHECKPOINTS][:2]
    await change(stored, *(insert(NODE_VERSION).values({**row, "number": CHECKPOINTS + 1}) for row in rows))
    report = await compare_with_restore(stored)
    what = f"row {CHECKPOINTS + 1} of the node belongs to no checkpoint that is there"
    assert [(found.what, found.node_id) for found in report.findings] == [(what, row["node_id"]) for row in rows]


async def test_what_no_restore_reads_is_found_too(stored: str) -> None:
    def of(table: Table, **key: Any) -> Any:
        return and_(table.c.run_id == RUN_ID, *(table.c[name] == value for name, value in key.items()))

    at = (await read_rows(stored, JOB))[0]["created_at"]
    changes: list[tuple[Any, str]] = [
        (update(RUN_NODE_STATE).where(of(RUN_NODE_STATE, node_id="bad")).values(status="idle"), "run_node_state says idle"),
        (update(RUN_NODE_STATE).where(of(RUN_NODE_STATE, node_id="busy")).values(number=2), "says that checkpoint 2"),
        (delete(RUN_NODE_STATE).where(of(RUN_NODE_STATE, node_id="done 1")), "no row in run_node_state"),
        (update(OUTPUT_SEGMENT).where(of(OUTPUT_SEGMENT, first=15)).values(count=4), "says that it holds 4 items"),
        (update(NODE_VERSION).where(of(NODE_VERSION, node_id="busy", number=6)).values(mentions=b""), "does not list it"),
        (insert(EVENT).values(run_id=RUN_ID, seq=3, kind="x", time=at), "1 of 0 events"),
        (delete(LEASE).where(of(LEASE)), "row in lease"),
    ]
    for number, (statement, expected) in enumerate(changes, 1):
        await change(stored, statement)
        report = await check_run(stored)
        assert any(expected in found.what for found in report.findings), (expected, report.findings)
        assert len({found.what.partition(" payload ")[0] for found in report.findings}) == number


@pytest.mark.parametrize(("gone", "left"), [((2,), 2), ((0,), 2), ((1,), 2), ((0, 1, 2), 0)])
async def test_events_that_are_gone_are_missed(stored: str, gone: Sequence[int], left: int) -> None:
    event = {"kind": "x", "node_id": None, "time": (await read_rows(stored, JOB))[0]["created_at"], "payload_json": None}
    store = Store(locate(stored), create=False)
    await store.transact(lambda connection: append_events(connection, RUN_ID, [event] * 3))
    await store.close()
    assert not (await check_run(stored)).findings
    for seq in gone:
        await change(stored, delete(EVENT).where(EVENT.c.run_id == RUN_ID, EVENT.c.seq == seq))
    (finding,) = (await check_run(stored)).findings
    assert finding.what == f"its log has {left} of 3 events"


def test_the_command(stored_url: str) -> None:
    done = call(stored_url, "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["intact"]
    assert document["findings"] == document["unverified"] == []
    assert document["runs"][0] == {"run_id": RUN_ID, "checkpoints": 6, "damaged": [], "newest_intact": 6}
    assert call(stored_url, RUN_ID).stdout.splitlines()[-1] == "1 run, 6 checkpoints: nothing is damaged"
    row = next(r for r in asyncio.run(read_rows(stored_url, NODE_VERSION)) if (r["node_id"], r["number"]) == ("busy", 5))
    asyncio.run(change(stored_url, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(body=row["body"] + b"x")))
    done = call(stored_url, "--json")
    assert done.exit_code == 5
    document = json.loads(done.stdout)
    assert not document["intact"]
    assert document["runs"][0] == {"run_id": RUN_ID, "checkpoints": 6, "damaged": [5], "newest_intact": 6}
    (found,) = document["findings"]
    assert (found["run_id"], found["checkpoint"], found["node_id"]) == (RUN_ID, 5, "busy")
    assert "workflow resume r --checkpoint 6" in found["advice"]
    assert "--latest-intact" in found["advice"]
    done = call(stored_url, RUN_ID)
    assert done.exit_code == 5
    assert "run r, checkpoint 5, node busy: its row was changed" in done.stdout
    assert call(stored_url, "another").exit_code == 0
    assert call(stored_url, "--quiet").stdout == ""
    missing = CliRunner().invoke(db, ["check", "--url", "sqlite:////nowhere/c.db"])
    assert missing.exit_code != 0


@pytest.fixture
def stored_url(store_url: str) -> str:
    asyncio.run(store_run(store_url))
    return store_url


async def test_an_encrypted_run_is_verified_with_its_key_and_as_far_as_can_be_without(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", KEY)
    await store_run(store_url)
    assert not (await check(store_url)).all_findings
    assert not (await check(store_url)).unverified
    payload = (await read_rows(store_url, NEEDED["payload"][0]))[0]
    row = next(r for r in await read_rows(store_url, NODE_VERSION) if (r["node_id"], r["number"]) == ("busy", 5))
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_KEY")
    report = await check_run(store_url)
    assert not report.findings
    told = [each.what for each in report.unverified]
    assert "only rows and their digests were checked. Set WORKFLOW_CHECKPOINT_KEY" in told[0]
    assert told[1:] == ["the rows of its checkpoints, which are bound by its key"]
    await change(store_url, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(body=row["body"] + b"x"))
    assert (await check_run(store_url)).damaged == {5}  # also without the key
    await change(store_url, update(NODE_VERSION).where(is_row(NODE_VERSION, row)).values(body=row["body"]))
    table = NEEDED["payload"][0]
    await change(store_url, update(table).where(is_row(table, payload)).values(body=payload["body"] + b"x"))
    assert not (await check_run(store_url)).findings
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", KEY)
    assert (await compare_with_restore(store_url)).findings
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", "2" * 64)
    assert not (await check_run(store_url)).findings


async def test_the_witness_is_asked(store_url: str, tmp_path: Path) -> None:
    await store_run(store_url, tmp_path / "witness")
    assert not (await check(store_url, witness=tmp_path / "witness")).all_findings
    assert (await check(store_url, witness=tmp_path / "other")).unverified
    unseen = (await check(store_url, witness=tmp_path / ("n" * 300))).unverified
    assert all("cannot be read" in found.what for found in unseen), unseen
    assert unseen
    for table in (NODE_VERSION, OUTPUT_SEGMENT, RUN_NODE_STATE, NEEDED["checkpoint"][0]):
        for row in await read_rows(store_url, table):
            if row["number"] == CHECKPOINTS:
                await change(store_url, delete(table).where(is_row(table, row)))
    await change(store_url, update(LEASE).where(LEASE.c.run_id == RUN_ID).values(newest_number=CHECKPOINTS - 1))
    (report,) = (await check(store_url, RUN_ID, witness=tmp_path / "witness")).runs
    assert any("checkpoint 6 was durable, and the newest that is there is 5" in found.what for found in report.findings)
    assert report.newest_intact == CHECKPOINTS - 1


async def test_a_newest_checkpoint_whose_row_is_damaged_is_not_told_as_lost(store_url: str, tmp_path: Path) -> None:
    await store_run(store_url, tmp_path / "witness")
    newest = update(CHECKPOINT).where(CHECKPOINT.c.run_id == RUN_ID, CHECKPOINT.c.number == CHECKPOINTS)
    await change(store_url, newest.values(reason="another"))
    (report,) = (await check(store_url, RUN_ID, witness=tmp_path / "witness")).runs
    assert [found.what for found in report.findings] == ["the row of the checkpoint was changed"]
    assert report.newest_intact == CHECKPOINTS - 1


def bend_id(path: Path, *, to_text: bool) -> None:
    """Change the id of a run in the file of SQLite, in its row and not in the index: another text, or no text at all."""
    data = bytearray(path.read_bytes())
    (place,) = (match.start() for match in re.finditer(b"another(?=running)", data))
    text = 13 + 2 * len("another")  # the type of a text of this length; one less is one of bytes
    (header,) = (size for size in range(20, 60) if data[place - size : place - size + 2] == bytes([size, text]))
    if to_text:
        data[place] ^= 1
    else:
        data[place - header + 1] ^= 1
    path.write_bytes(data)


STRANGE = {
    "the number of a block": "UPDATE completed_nodes SET number = 'x' WHERE number = 4",
    "a block that is no text": "UPDATE completed_nodes SET body = CAST(x'ff' AS TEXT) WHERE number = 4",
    "a hash that is no text": "UPDATE checkpoint SET cut_hash = CAST(x'ff' AS TEXT) WHERE number = 4",
    "a body that is no text": "UPDATE node_version SET body = CAST(x'ff' AS TEXT) WHERE node_id = 'busy' AND number = 4",
    "an id that is no text": "UPDATE node_version SET node_id = CAST(x'ff' AS TEXT) WHERE node_id = 'done 4'",
    "a value that is no text": "UPDATE payload SET body = CAST(x'ff' AS TEXT) WHERE rowid = (SELECT max(rowid) FROM payload)",
    "items that are no text": "UPDATE output_segment SET body = CAST(x'ff' AS TEXT) WHERE number = 4",
    "the digest of a block": "UPDATE completed_nodes SET digest = 7 WHERE number = 4",
    "the number of a row": "UPDATE node_version SET number = CAST(number AS BLOB) WHERE node_id = 'done 6'",
    "a number of a row below all": "UPDATE node_version SET number = -122 WHERE node_id = 'done 6'",
    "what a row mentions": "UPDATE node_version SET mentions = 7 WHERE node_id = 'holds' AND number = 2",
    "the place of items": "UPDATE output_segment SET first = 'x' WHERE number = 4",
    "the number of items": "UPDATE output_segment SET count = 'x' WHERE number = 4",
    "the number of the checkpoint of items": "UPDATE output_segment SET number = CAST(number AS BLOB) WHERE number = 4",
    "what items mention": "UPDATE output_segment SET mentions = CAST('x' AS TEXT) WHERE number = 4",
}
"""A value of another type, which SQLite keeps in any column; one bit of the head of a row makes it."""


@pytest.mark.parametrize("what", list(STRANGE))
async def test_a_value_of_another_type_spoils_no_checkpoint_that_can_be_restored(tmp_path: Path, what: str) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    await store_run(url)
    with closing(sqlite3.connect(tmp_path / "c.db")) as database, database:
        assert database.execute(f"{STRANGE[what]} AND run_id = ?", (RUN_ID,)).rowcount == 1
    report = await compare_with_restore(url)
    assert report.findings
    assert len(report.damaged) < CHECKPOINTS
    if "mention" in what:
        assert any(found.advice.startswith("Do not prune the run.") for found in report.findings)
    if "of a row" in what:
        assert any("of the node belongs to no checkpoint" in found.what for found in report.findings)


@pytest.mark.parametrize("to_text", [True, False])
async def test_a_run_to_which_its_id_does_not_lead_is_found(tmp_path: Path, to_text: bool) -> None:
    path = tmp_path / "c.db"
    await store_run(f"sqlite:///{path}")
    bend_id(path, to_text=to_text)
    report = await check(f"sqlite:///{path}")
    told = [(found.run_id, found.what) for found in report.all_findings if "SQLite" not in found.what]
    if to_text:
        assert told == [("`nother", "its row is there, and its id leads to none: the id or the index of it is damaged")]
    else:
        assert told == [(None, "a run has the id b'another', which is no text")]
    assert [run.run_id for run in report.runs if not run.findings] == [RUN_ID]


@pytest.mark.parametrize("to_text", [True, False])
async def test_a_run_to_which_its_id_does_not_lead_is_named_beside_another_that_is_damaged(tmp_path: Path, to_text: bool) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    await store_run(url)
    bend_id(tmp_path / "c.db", to_text=to_text)
    with closing(sqlite3.connect(tmp_path / "c.db")) as database, database:
        database.execute("UPDATE job SET updated_at = 'no time' WHERE id = ?", (RUN_ID,))
    store = Store(locate(url), create=False)
    try:
        rows, damaged = await store.readable_jobs()
        with pytest.raises(StoreDamaged):
            await store.jobs()
    finally:
        await store.close()
    assert rows == []
    why = "its row is there, and its id leads to none: the id or the index of it is damaged" if to_text else "its id is no text"
    assert [error.what for error in damaged if error.run_id != RUN_ID] == [why]
    assert len(damaged) == 2


async def test_flipped_bits_that_a_restore_refuses_are_found(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "c.db"
    await store_run(f"sqlite:///{path}")
    whole = path.read_bytes()
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    found = 0
    for number in range(request.config.getoption("--damage") // 3):
        data = bytearray(whole)
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        data[place] ^= 1 << bit
        other = tmp_path / "damaged.db"
        other.write_bytes(data)
        url = f"sqlite:///{other}"
        try:
            seen = await look(url)
            before = other.read_bytes()
            report = await check(url)
            assert other.read_bytes() == before  # it reads only
            if any(isinstance(each, Refused) for each in seen.values()):
                assert report.all_findings
                found += 1
        except Exception as error:
            error.add_note(f"seed {seed}, flip {number}: bit {bit} of byte {place}")
            raise
        finally:
            for name in (other, Path(f"{other}-wal"), Path(f"{other}-shm")):
                name.unlink(missing_ok=True)
    assert found
