"""Encrypted runs, rotation of the master key, and the witness."""

from __future__ import annotations

import base64
import json
import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from checkpoint_plugin.by_hand.state_manager import StateManager
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import KeyMissing, KeyUnusable, StoreDamaged, StoreUnreadable, WriterStopped
from checkpoint_plugin.events.log import EventLogger
from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, NODE_VERSION, PAYLOAD, RUN_KEY, RUN_NODE_STATE, Base
from checkpoint_plugin.opening.witness import Witness
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.key_rotation import rotate_keys
from checkpoint_plugin.saving.cut_encoder import head_digest
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.digests import MODULUS, sum_digests
from checkpoint_plugin.stored_bytes.encryption import EARLIER, Cipher, KeyRing, WrappedKeys
from checkpoint_plugin.stored_bytes.sealing import PLAIN
from checkpoint_plugin.tables.job import JobEnd
from hookspecs import NodeSnapshot, PluginOptionsInvalid, RunExists, RunNotFound
from tests.checkpoint_plugin.test_durability import BROKEN, chain, run, runner
from tests.checkpoint_plugin.test_pruning import cut, definition
from tests.cli.command import workflow
from tests.distribution import install_distribution
from workflow_runner import NodeFailed

OLD, NEW = os.urandom(32), os.urandom(32)
SECRET = "a secret of many words, again and again. " * 40


def text(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


@pytest.fixture
def encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", text(OLD))


def opened(url: str, *keys: bytes, **more: Any) -> Store:
    return Store(locate(url), create=True, ring=KeyRing(keys) if keys else None, **more)


async def secret_run(store: Store) -> RunHistory:
    """A run with the secret in its inputs, a value that grows, an output and an error."""
    from checkpoint_plugin.tables.definition import Definition

    known = definition()
    await store.insert_job("r", Definition(known.body + b"", json.dumps({"x": SECRET}), json.dumps({"y": SECRET})))
    history = RunHistory("r", 1, 1)
    for number in range(1, 6):
        state = [SECRET] * number
        failed = NodeSnapshot("a", "failed", firing=1, commits=number, state=state, error=f"ValueError: {SECRET}")
        nodes = (failed, NodeSnapshot("o", "running", firing=1, collected=["secret of"] * number))
        await store.save(history, cut(*nodes), "step")
    return history


async def everything(store: Store) -> str:
    """Every cell of the database, as text."""

    def read(connection: Connection) -> list[Any]:
        return [tuple(row) for table in Base.metadata.sorted_tables for row in connection.execute(select(table))]

    return repr(await store.transact(read, write=False))


@pytest.mark.parametrize("looks", [(), (NEW,)])
async def test_who_looked_for_a_run_before_it_was_made_writes_nothing_plain_into_it(
    store_url: str, looks: tuple[bytes, ...]
) -> None:
    """Another process makes it, with a key."""
    early, maker = opened(store_url, *looks), opened(store_url, NEW)
    with pytest.raises(RunNotFound):
        await early.load_job("r")
    await maker.insert_job("r", definition())
    manager, log = StateManager("r", store=early), EventLogger("r", store=early, blocking=["note"])
    await manager.start()
    await log.start()
    snapshot = cut(NodeSnapshot("n", "running", state="secret of n"))
    if looks:
        await early.save(RunHistory("r", 1, 1), snapshot, "step")
        await early.load_job("r")
        await manager.update_node_state("n", "failed", error="secret of n")
        await manager.flush()
        await log.log("note", payload={"text": "secret of the log"})
    else:
        with pytest.raises(KeyMissing):
            await early.load_job("r")
        with pytest.raises(KeyMissing):
            await early.save(RunHistory("r", 1, 1), snapshot, "step")
        await manager.update_node_state("n", "failed", error="secret of n")
        with pytest.raises(KeyMissing):
            await manager.flush()
        with pytest.raises(KeyMissing):
            await log.log("note", payload={"text": "secret of the log"})
    assert "secret of" not in await everything(maker)
    for end in (manager.stop, log.stop):
        with suppress(WriterStopped):
            await end()
    for store in (early, maker):
        await store.close()


async def test_nothing_of_an_encrypted_run_can_be_read(store_url: str) -> None:
    store = opened(store_url, OLD)
    await secret_run(store)
    assert "secret of" not in await everything(store)
    await store.close()
    plain = opened(f"sqlite:///{store_url[10:]}.plain" if store_url.startswith("sqlite") else store_url)
    if store_url.startswith("sqlite"):
        await secret_run(plain)
        assert "secret of" in await everything(plain)  # else the look above could not fail
    await plain.close()


async def test_an_encrypted_run_comes_back_as_it_was(store_url: str) -> None:
    store = opened(store_url, OLD)
    await secret_run(store)
    await store.close()
    store = opened(store_url, NEW, OLD)
    for number in (1, 3, 5):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        nodes = {node.node_id: node for node in found.nodes}
        assert nodes["a"].state == [SECRET] * number
        assert nodes["a"].error == f"ValueError: {SECRET}"
        assert list(nodes["o"].collected) == ["secret of"] * number
    assert (await store.load_job("r")).graph == {"nodes": [], "edges": []}
    await store.close()


async def test_lists_open_errors_with_the_key_and_hide_them_without(store_url: str) -> None:
    store = opened(store_url, OLD)
    await secret_run(store)
    await store.close()
    for keys, told in (((OLD,), f"ValueError: {SECRET}"), ((), "(encrypted)"), ((NEW,), "(encrypted)")):
        store = opened(store_url, *keys)
        (state,) = [row for row in await store.node_states("r") if row.node_id == "a"]
        assert (state.last_error, state.status) == (told, "failed")
        await store.close()
    store = opened(store_url, OLD)
    await store.end_attempt("r", 1, JobEnd("failed", f"ValueError: {SECRET}", datetime.now(UTC)))
    assert (await store.job("r")).error == f"ValueError: {SECRET}"
    await store.close()
    store = opened(store_url)
    (job,) = await store.jobs(["failed"])
    assert (job.id, job.error) == ("r", "(encrypted)")
    assert await store.jobs(["completed"]) == []
    await store.close()


async def test_a_text_that_somebody_wrote_without_the_key_is_not_shown_as_the_runs_own(store_url: str) -> None:
    store = opened(store_url, OLD)
    await secret_run(store)
    await store.end_attempt("r", 1, JobEnd("failed", f"ValueError: {SECRET}", datetime.now(UTC)))
    await store.transact(lambda c: c.execute(update(RUN_NODE_STATE).values(last_error="forged")))
    with pytest.raises(StoreDamaged, match="'last_error': it is not encrypted, and all of this run is"):
        await store.node_states("r")
    await store.transact(lambda c: c.execute(update(JOB).values(error="forged")))
    with pytest.raises(StoreDamaged, match="'error': it is not encrypted"):
        await store.job("r")
    listed, damaged = await store.readable_jobs()
    assert (list(listed), [error.run_id for error in damaged]) == ([], ["r"])
    await store.close()
    blind = opened(store_url)
    assert (await blind.job("r")).error == "forged"  # nobody can tell
    await blind.close()


async def test_a_key_is_asked_for_and_a_plain_run_refused(store_url: str) -> None:
    store = opened(store_url, OLD)
    await secret_run(store)
    await store.close()
    for keys in ((), (NEW,)):
        store = opened(store_url, *keys)
        with pytest.raises(KeyMissing, match=r"master key [0-9a-f]{16}"):
            await store.restore(RunHistory("r", 1, 1), None)
        with pytest.raises(KeyMissing):
            await store.load_job("r")
        await store.close()
    store = opened(store_url)
    await store.insert_job("plain", definition())
    await store.save(RunHistory("plain", 1, 1), cut(NodeSnapshot("a", "running", state=1)), "1")
    await store.close()
    store = opened(store_url, OLD)
    with pytest.raises(KeyMissing, match="not encrypted"):
        await store.restore(RunHistory("plain", 1, 1), None)
    with pytest.raises(KeyMissing, match="not encrypted"):
        await store.save(RunHistory("plain", 1, 1, number=1), cut(NodeSnapshot("a", "running", state=2)), "2")
    await store.close()


async def test_sealed_bytes_open_only_where_they_were_sealed(store_url: str) -> None:
    cipher, other = Cipher("r", OLD + NEW), Cipher("s", OLD + NEW)
    sealed = cipher.seal(b"data", b"node", b"a")
    assert cipher.open(sealed, b"node", b"a") == b"data"
    for wrong, where in ((cipher, (b"node", b"b")), (cipher, (b"nodea",)), (other, (b"node", b"a"))):
        with pytest.raises(MalformedValue):
            wrong.open(sealed, *where)
    assert cipher.address(b"data") != Cipher("r", OLD + OLD).address(b"data")
    store = opened(store_url, OLD)
    await secret_run(store)

    def swap(connection: Connection) -> None:
        rows = connection.execute(select(PAYLOAD.c.digest, PAYLOAD.c.body).order_by(PAYLOAD.c.digest)).all()
        for (digest, _), (_, body) in zip(rows, [*rows[1:], rows[0]], strict=True):
            connection.execute(update(PAYLOAD).where(PAYLOAD.c.digest == digest).values(body=body))

    await store.transact(swap)
    with pytest.raises(StoreDamaged, match="not written with this run's key"):
        await store.restore(RunHistory("r", 1, 1), None)
    await store.close()


async def test_a_run_whose_keys_cannot_be_opened_keeps_no_other_from_its_new_master_key(store_url: str) -> None:
    for run_id, key in (("a", OLD), ("b", os.urandom(32)), ("c", OLD), ("d", OLD)):
        store = opened(store_url, key)
        await store.insert_job(run_id, definition())
        await store.close()
    store = opened(store_url, NEW, OLD)
    await store.transact(lambda c: c.execute(update(RUN_KEY).where(RUN_KEY.c.run_id == "c").values(wrapped=b"broken")))
    for _ in range(2):
        with pytest.raises(KeyMissing, match="run 'b'") as refused:
            await rotate_keys(store, KeyRing((NEW, OLD)))
        (other,) = refused.value.__notes__
        assert "the keys of run 'c' are damaged" in other
    await store.close()
    store = opened(store_url, NEW)
    for run_id in "ad":
        assert (await store.load_job(run_id)).run_id == run_id
    await store.close()


async def two_cuts(store: Store) -> None:
    """A run of two nodes that both move from checkpoint 1 to checkpoint 2."""
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for number in (1, 2):
        nodes = (NodeSnapshot(name, "running", firing=1, commits=number, state=f"{name}{number}") for name in "ab")
        await store.save(history, cut(*nodes), "step")


def take_back_a_node(connection: Connection) -> None:
    """What whoever writes the database can do without a key: node b stands as in checkpoint 1, and everything adds up."""
    of_b = (NODE_VERSION.c.node_id == "b", NODE_VERSION.c.number == 2)
    connection.execute(delete(NODE_VERSION).where(*of_b))
    rows = connection.execute(select(NODE_VERSION.c.node_id, NODE_VERSION.c.digest).order_by(NODE_VERSION.c.number))
    newest = {row.node_id: row.digest for row in rows}
    head = dict(connection.execute(select(CHECKPOINT).where(CHECKPOINT.c.number == 2)).one()._mapping)
    head.update(cut_hash=(sum_digests(newest.values()) % MODULUS).to_bytes(32, "big"), row_count=len(newest))
    changed = {"cut_hash": head["cut_hash"], "digest": head_digest(head, PLAIN)}
    connection.execute(update(CHECKPOINT).where(CHECKPOINT.c.number == 2).values(**changed))


async def test_rows_of_two_checkpoints_are_not_mixed_without_the_key(store_url: str) -> None:
    store = opened(store_url, OLD)
    await two_cuts(store)
    await store.transact(take_back_a_node)
    with pytest.raises(StoreDamaged, match="the row of the checkpoint was changed"):
        await store.restore(RunHistory("r", 1, 1), None)
    await store.close()


async def test_a_run_from_before_its_keys_bound_its_checkpoints_is_read_as_it_was(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `KeyRing.make` made it then: whether digests are bound is told by how its keys are wrapped, and stays with them."""

    def make(ring: KeyRing, run_id: str) -> tuple[Cipher, WrappedKeys]:
        secret = os.urandom(64)
        return Cipher(run_id, secret, binds=False), ring._wrap(run_id, secret, EARLIER)

    with monkeypatch.context() as patch:
        patch.setattr(KeyRing, "make", make)
        store = opened(store_url, OLD)
        await two_cuts(store)
        await store.close()
    store = opened(store_url, NEW, OLD)
    assert await rotate_keys(store, KeyRing((NEW, OLD))) == (1, 0)
    await store.close()
    store = opened(store_url, NEW)
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert {node.node_id: node.state for node in found.nodes} == {"a": "a2", "b": "b2"}
    await store.transact(take_back_a_node)  # which only the keys of later runs show
    assert await store.restore(RunHistory("r", 1, 1), None) is not None
    await store.close()


def test_what_binds_a_checkpoint_is_no_address_of_a_value() -> None:
    """Else whoever chooses a value of the run would be given what binds a checkpoint of his own."""
    cipher, _ = KeyRing((OLD,)).make("r")
    assert cipher.bind(b"same") not in (cipher.address(b"same"), PLAIN.bind(b"same"))


async def test_a_new_master_key_rewraps_keys_and_nothing_else(store_url: str) -> None:
    store = opened(store_url, OLD)
    await secret_run(store)

    def bodies(connection: Connection) -> list[Any]:
        return [tuple(row) for table in (NODE_VERSION, PAYLOAD, CHECKPOINT) for row in connection.execute(select(table))]

    before = await store.transact(bodies, write=False)
    ring = KeyRing((NEW, OLD))
    assert await rotate_keys(store, ring) == (1, 0)
    assert await rotate_keys(store, ring) == (0, 1)
    assert await store.transact(bodies, write=False) == before
    await store.close()
    store = opened(store_url, NEW)
    assert await store.restore(RunHistory("r", 1, 1), None) is not None
    await store.close()
    store = opened(store_url, OLD)
    with pytest.raises(KeyMissing):
        await store.restore(RunHistory("r", 1, 1), None)
    await store.transact(lambda c: c.execute(update(RUN_KEY).values(wrapped=b"x" * 60)))
    await store.close()
    store = opened(store_url, NEW)
    with pytest.raises(KeyUnusable, match="damaged"):
        await store.restore(RunHistory("r", 1, 1), None)
    await store.close()


@pytest.mark.parametrize("column", ["key_id", "wrapped"])
async def test_keys_of_another_type_are_damage_of_their_run(tmp_path: Path, column: str) -> None:
    """SQLite keeps anything in any column."""
    store = opened(f"sqlite:///{tmp_path / 'c.db'}", OLD)
    await store.insert_job("r", definition())
    await store.transact(lambda connection: connection.driver.execute(f"UPDATE run_key SET {column} = 7"))
    await store.close()
    store = opened(f"sqlite:///{tmp_path / 'c.db'}", OLD)
    with pytest.raises(StoreDamaged if column == "wrapped" else KeyMissing, match="run 'r'"):
        await store.load_job("r")
    await store.close()


@pytest.mark.parametrize(
    "wrong", ["short", "A" * 44 + "!", base64.b64encode(b"x" * 32).decode() + "!", base64.b64encode(b"x" * 31).decode(), ","]
)
def test_what_is_no_key_is_refused_without_telling_it(wrong: str) -> None:
    with pytest.raises(KeyUnusable) as refused:
        KeyRing.from_text(wrong, "the variable")
    assert wrong not in str(refused.value).replace(",", "") or wrong == ","


def test_keys_are_read_in_every_usual_form() -> None:
    forms = (OLD.hex(), base64.b64encode(OLD).decode(), base64.urlsafe_b64encode(OLD).decode().rstrip("="))
    assert all(KeyRing.from_text(form, "x").keys == (OLD,) for form in forms)
    assert KeyRing.from_text(f"{text(NEW)}, {OLD.hex()}", "x").keys == (NEW, OLD)
    assert OLD.hex() not in repr(KeyRing((OLD,)))


@pytest.mark.usefixtures("encrypted")
async def test_a_run_with_a_key_in_the_environment_is_encrypted_and_resumed(store_url: str) -> None:
    BROKEN[:] = ["4"]
    with pytest.raises(NodeFailed):
        await run(store_url, chain("steps", n=6), explicit=True, on_error=True)
    BROKEN.clear()
    store = Store(locate(store_url), create=False)
    assert await store.transact(lambda c: c.execute(select(RUN_KEY.c.run_id)).scalars().all(), write=False) == ["r"]
    assert "ValueError" not in await everything(store)
    await store.close()
    assert (await runner().resume("r", url=store_url)).outputs["out"] == list(range(6))


async def test_a_run_whose_keys_a_package_provides_is_resumed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {"workflow_checkpoint.keys": {"vault": "vault_of_tests:give"}}
    modules = {"vault_of_tests": f"def give() -> str:\n    return {text(OLD)!r}\n"}
    monkeypatch.syspath_prepend(str(install_distribution(tmp_path, "vault", entries=entries, modules=modules)))
    given = {"checkpoint": {"key_provider": "vault"}}

    async def fail() -> None:
        BROKEN[:] = ["4"]
        with pytest.raises(NodeFailed):
            await runner().resume("r", url=store_url, enable=given)
        BROKEN.clear()

    BROKEN[:] = ["2"]
    with pytest.raises(NodeFailed):
        await run(store_url, chain("steps", n=6), explicit=True, on_error=True, key_provider="vault")
    with pytest.raises(KeyMissing, match="WORKFLOW_CHECKPOINT_KEY_PROVIDER"):
        await runner().resume("r", url=store_url)
    with pytest.raises(PluginOptionsInvalid, match="'key_provider' is text"):
        await runner().resume("r", url=store_url, enable={"checkpoint": {"key_provider": 3}})
    with pytest.raises(KeyMissing, match="no installed package provides keys under the name 'valut'"):
        await runner().resume("r", url=store_url, enable={"checkpoint": {"key_provider": "valut"}})
    await fail()
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY_PROVIDER", "vault")
    for _ in range(2):  # the second reads what is completed
        assert (await runner().resume("r", url=store_url)).outputs["out"] == list(range(6))


@pytest.mark.parametrize("name", ["fails", "bytes", "nothing", "number", "gone", "unknown"])
def test_a_provider_that_fails_is_named_and_tells_no_secret(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = """
def fails() -> str:
    raise RuntimeError("the token geheim is refused")
def give_bytes() -> bytes:
    return b"geheim"
def nothing() -> None:
    pass
number = 3
"""
    places = {"bytes": "broken_vault:give_bytes", "unknown": "no_such_vault:give"}
    entries = {"workflow_checkpoint.keys": {name: places.get(name, f"broken_vault:{name}")}}
    folder = install_distribution(tmp_path, "broken", entries=entries, modules={"broken_vault": module})
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(KeyUnusable, match=f"the key provider '{name}' (raised|gave) ") as refused:
        KeyRing.from_environment(name)
    assert "geheim" not in str(refused.value)


def test_the_command_that_rotates(tmp_path: Path) -> None:
    (tmp_path / "nodes.py").write_text("from workflow_runner import node\n@node\nasync def one() -> int:\n    return 1\n")
    (tmp_path / "graph.json").write_text(json.dumps({"nodes": [{"id": "s", "type": "nodes.one", "data": {}}], "edges": []}))

    def told(keys: str, *arguments: str) -> Any:
        environment = {**os.environ, "WORKFLOW_CHECKPOINT_KEY": keys}
        done = workflow(*arguments, "--json", cwd=tmp_path, env=environment)
        return done.returncode, done.stdout and json.loads(done.stdout)

    run = ("run", "graph.json", "--nodes", "nodes.py", "--run-id", "r", "--enable", "checkpoint")
    assert told(text(OLD), *run)[0] == 0
    assert told(text(NEW), "show", "r")[0] == 5
    assert told(text(NEW), "db", "rotate-key")[0] == 5
    assert told("", "db", "rotate-key")[0] == 5
    assert told(text(NEW, OLD), "db", "rotate-key") == (0, {"rewrapped": 1, "already": 0})
    assert told(text(NEW), "show", "r")[0] == 0
    assert told("no key", "show", "r")[0] == 5


# The witness.


async def test_the_witness_shows_a_tail_that_was_lost(store_url: str, tmp_path: Path) -> None:
    witness = Witness(tmp_path / "other disk")
    store = opened(store_url, witness=witness)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for number in (1, 2, 3):
        await store.save(history, cut(NodeSnapshot("a", "running", firing=1, state=number)), "step")
    assert await store.restore(RunHistory("r", 1, 1), None) is not None

    def lose(connection: Connection) -> None:
        """What a disk does that lost its newest pages: an older state that is whole."""
        connection.execute(delete(NODE_VERSION).where(NODE_VERSION.c.number == 3))
        connection.execute(delete(CHECKPOINT).where(CHECKPOINT.c.number == 3))
        connection.execute(update(LEASE).values(newest_number=2))

    await store.transact(lose)
    told = "checkpoint 3 was durable, and the newest that is there is 2.*resume r --latest-intact"
    with pytest.raises(StoreDamaged, match=told):
        await store.restore(RunHistory("r", 1, 1), None)
    assert await store.restore(RunHistory("r", 1, 1), 2) is not None  # by name it may be gone on from
    await store.close()
    blind = opened(store_url)
    assert await blind.restore(RunHistory("r", 1, 1), None) is not None
    await blind.close()


async def test_another_checkpoint_of_the_same_number_is_seen(store_url: str, tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    store = opened(store_url, witness=witness)
    await store.insert_job("r", definition())
    witness.note("r", 1, b"x" * 32)
    unwatched = opened(store_url)
    await unwatched.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", firing=1)), "step")
    await unwatched.close()
    with pytest.raises(StoreDamaged, match="not the checkpoint that was written"):
        await store.restore(RunHistory("r", 1, 1), None)
    witness.path("r").write_text("{")
    with pytest.raises(StoreUnreadable, match="cannot be read"):
        await store.restore(RunHistory("r", 1, 1), None)
    await store.close()


async def test_the_witness_knows_nothing_of_a_run_that_is_made_anew_under_its_id(store_url: str, tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    store = opened(store_url, witness=witness)
    await store.insert_job("r", definition())
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "completed", firing=1), status="completed"), "end")
    with pytest.raises(RunExists):
        await store.insert_job("r", definition())
    assert witness.knows("r")
    assert await prune_runs(store, Retention(drop_finished=0), ["r"])
    await store.insert_job("r", definition())
    assert await store.restore(RunHistory("r", 1, 1), None) is None, "it was killed before its first checkpoint"
    await store.close()


async def test_a_witness_that_cannot_be_written_fails_the_save(store_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = opened(store_url, witness=Witness(tmp_path / "file" / "folder"))
    await store.insert_job("r", definition())
    with pytest.raises(StoreUnreadable, match="option witness"):
        await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", firing=1)), "step")
    await store.close()


async def test_a_witness_is_found_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    BROKEN[:] = ["2"]
    with pytest.raises(NodeFailed):
        await run(url, chain("steps", n=6), explicit=True, on_error=True, witness="noted")
    older = (tmp_path / "c.db").read_bytes()
    BROKEN[:] = ["4"]
    with pytest.raises(NodeFailed):
        await runner().resume("r", url=url)
    BROKEN.clear()
    (tmp_path / "c.db").write_bytes(older)
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(StoreDamaged, match="was durable, and the newest that is there is"):
        await runner().resume("r", url=url)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"number": 1e999, "hash": ""}', '{"number": "one", "hash": ""}', "[]", ""],
    ids=["nested too deeply", "a number without end", "no number", "a list", "nothing"],
)
def test_a_witness_that_says_nothing_that_was_noted_cannot_be_read(tmp_path: Path, text: str) -> None:
    witness = Witness(tmp_path)
    witness.path("r").write_text(text)
    with pytest.raises(StoreUnreadable, match=r"the witness .*\.json cannot be read"):
        witness.check("r", 1, b"hash")


def test_who_writes_a_witness_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may write into its folder must not have a file of another user's choice written."""
    other = tmp_path / "other"
    other.write_text("of somebody else")
    really_open = os.open

    def planted(path: Any, flags: int, *more: Any) -> int:
        if str(path).endswith(".new"):
            Path(path).symlink_to(other)
        return really_open(path, flags, *more)

    monkeypatch.setattr(os, "open", planted)
    with pytest.raises(StoreUnreadable, match=r"the witness .* cannot be written"):
        Witness(tmp_path / "w").note("r", 1, b"hash")
    assert other.read_text() == "of somebody else"


def test_a_witness_is_whole_though_the_system_writes_less_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is nearly full."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:5]))
    Witness(tmp_path).note("r", 1, b"hash")
    Witness(tmp_path).check("r", 1, b"hash")
    with pytest.raises(StoreDamaged):
        Witness(tmp_path).check("r", 1, b"another")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices are files elsewhere")
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a link to a pipe"])
def test_a_witness_that_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    witness = Witness(tmp_path)
    path = witness.path("r")
    pipe = tmp_path / "pipe" if kind == "a link to a pipe" else path
    if kind == "a folder":
        path.mkdir()
    else:
        os.mkfifo(pipe)
    if pipe != path:
        path.symlink_to(pipe)
    outcome: list[Exception] = []
    checking = threading.Thread(target=take_error, args=(outcome, witness), daemon=True)
    checking.start()
    try:
        checking.join(10)
        assert len(outcome) == 1
        assert isinstance(outcome[0], StoreUnreadable)
    finally:
        if checking.is_alive():  # who reads a pipe goes on when somebody has written to it
            pipe.write_bytes(b"")


def take_error(outcome: list[Exception], witness: Witness) -> None:
    """Append what a check raises to a list."""
    try:
        witness.check("r", 1, b"hash")
    except Exception as error:
        outcome.append(error)


def test_two_that_note_the_same_run_at_once_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was taken from its worker, who has just saved: the file of neither is torn, and no save is told as failed."""
    others = iter([Witness(tmp_path)])

    def meanwhile(handle: int) -> None:
        for other in others:
            thread = threading.Thread(target=other.note, args=("r", 2, b"longer than the other one"))
            thread.start()
            thread.join()
        os.fsync(handle)

    monkeypatch.setattr("checkpoint_plugin.database.syncing.sync", meanwhile)
    witness = Witness(tmp_path)
    witness.note("r", 1, b"hash")
    witness.check("r", 2, b"longer than the other one")
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
