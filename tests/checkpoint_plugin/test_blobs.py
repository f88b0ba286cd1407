"""Large values as files: there and back, in every kind of place; hostile and damaged ones; what a full disk leaves."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from sqlalchemy import select, update

from checkpoint_plugin.blobs import url as blob_url
from checkpoint_plugin.blobs.files import ENVIRONMENT, Blobs
from checkpoint_plugin.blobs.name import folder_of, make_name, read_name
from checkpoint_plugin.blobs.url import check_url, shown_url
from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import BlobsUnusable, PolicyInvalid, StoreDamaged, StoreUnreachable
from checkpoint_plugin.manager import CheckpointManager
from checkpoint_plugin.models import PAYLOAD, SCHEMA
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from hookspecs import NodeSnapshot, PluginOptionsInvalid, Snapshot
from tests.checkpoint_plugin.test_store import cut, definition

LIMIT = 4_096
BITS = random.Random(11)
LARGE = BITS.randbytes(3 * LIMIT)
OTHER = BITS.randbytes(2 * LIMIT)
TEXT = "again and again " * LIMIT


class Shelf:
    """A store's url, and where its files go.

    Args:
        url: of the store.
        option: of the plugin.
        folder: where the files lie; `None` where they are in no folder.
    """

    def __init__(self, url: str, option: bool | str, folder: Path | None) -> None:
        self.url = url
        self.option = option
        self.folder = folder

    def store(self, option: bool | str | None = None, **more: Any) -> Store:
        location = locate(self.url)
        return Store(location, create=True, blobs=Blobs(location, self.option if option is None else option, LIMIT), **more)

    @asynccontextmanager
    async def open(self, option: bool | str | None = None, **more: Any) -> Any:
        store = self.store(option, **more)
        try:
            yield store
        finally:
            await store.close()

    @property
    def files(self) -> list[Path]:
        assert self.folder is not None
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


FOLDERS = ("sqlite beside", "sqlite file", "postgresql file")
PLACES = (*FOLDERS, "sqlite memory", "postgresql memory")


def make_shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    """A fresh store of a kind, with its files in a place of a kind."""
    database, place = request.param.split()
    url = f"sqlite:///{tmp_path}/checkpoints.db" if database == "sqlite" else str(request.getfixturevalue("postgres_url"))
    if place == "beside":
        return Shelf(url, True, tmp_path / "checkpoints.db.blobs")
    if place == "file":
        return Shelf(url, f"file://{tmp_path}/kept here", tmp_path / "kept here")
    pytest.importorskip("fsspec")
    return Shelf(url, f"memory://{tmp_path.name}", None)


@pytest.fixture(params=PLACES)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return make_shelf(request, tmp_path)


@pytest.fixture(params=FOLDERS)
def folder_shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return make_shelf(request, tmp_path)


def history() -> RunHistory:
    return RunHistory("r", 1, 1)


async def save(store: Store, *states: Any, known: RunHistory | None = None) -> RunHistory:
    """A checkpoint in which each node has one of these states."""
    known = known or history()
    await store.save(known, cut(*(NodeSnapshot(f"n{i}", "running", firing=1, state=s) for i, s in enumerate(states))), "test")
    return known


async def states(store: Store) -> list[Any]:
    found = await store.restore(history(), None)
    assert found is not None
    return [node.state for node in sorted(found.nodes, key=lambda node: node.node_id)]


async def names(store: Store) -> list[str | None]:
    return await store.transact(lambda c: list(c.execute(select(PAYLOAD.c.blob)).scalars()), write=False)


async def test_large_values_are_files_and_come_back(shelf: Shelf) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE, TEXT, b"small" * 400, [OTHER, {"deep": OTHER}])
        assert await states(store) == [LARGE, TEXT, b"small" * 400, [OTHER, {"deep": OTHER}]]
        rows = await store.transact(lambda c: c.execute(select(PAYLOAD)).all(), write=False)
        filed = [row for row in rows if row.blob is not None]
        assert len(rows) == 4 and len(filed) == 3
        assert all(row.body == b"" for row in filed)
        sizes = sorted(read_name(row.blob, "r").size for row in filed)
        assert sizes[0] < 1_000 < LIMIT < sizes[1]  # text that repeats is compressed
        (checkpoint,) = await store.checkpoints("r")
        assert checkpoint.size_bytes >= sum(sizes)
        # The same values again, elsewhere and after a restore: no other file.
        known = history()
        await store.restore(known, None)
        await save(store, OTHER, LARGE, known=known)
        await save(store, [OTHER, {"deep": OTHER}], LARGE, known=known)
        assert len([name for name in await names(store) if name]) == 4  # OTHER by itself is one
    async with shelf.open() as store:
        assert await states(store) == [[OTHER, {"deep": OTHER}], LARGE, b"small" * 400, [OTHER, {"deep": OTHER}]]


async def test_files_are_for_their_owner_alone(folder_shelf: Shelf) -> None:
    async with folder_shelf.open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE, OTHER)
    assert folder_shelf.folder is not None
    assert len(folder_shelf.files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder_shelf.files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder_shelf.folder.rglob("*") if path.is_dir()} == {0o700}
    assert stat.S_IMODE(folder_shelf.folder.stat().st_mode) == 0o700


async def test_what_was_pruned_as_it_was_read_is_read_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest checkpoint is always kept, and by then it is another one."""
    async with shelf.open() as store, shelf.open() as other:
        await store.insert_job("r", definition())
        known = await save(other, LARGE)
        read = store._read

        async def slow(work: Any) -> Any:
            monkeypatch.undo()
            rows = await read(work)
            await save(other, OTHER, known=known)
            await prune_runs(other, Retention(keep_last=1))
            return rows

        monkeypatch.setattr(store, "_read", slow)
        assert await states(store) == [OTHER]


async def test_the_row_says_where_not_the_option(shelf: Shelf) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE)
    async with shelf.open(option=False) as store:
        if shelf.option is True:
            assert await states(store) == [LARGE]
        else:
            with pytest.raises(BlobsUnusable, match=r"under a url, which is not stored\. .*option blobs, or in " + ENVIRONMENT):
                await states(store)
        await store.insert_job("s", definition())
        await store.save(RunHistory("s", 1, 1), cut(NodeSnapshot("n", "running", state=LARGE), run_id="s"), "test")
        assert [name for name in await names(store) if name is not None and folder_of("s") in name] == []


async def test_a_moved_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here = Shelf(f"sqlite:///{tmp_path}/here/c.db", True, tmp_path / "here" / "c.db.blobs")
    async with here.open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE)
    (tmp_path / "here").rename(tmp_path / "there")
    async with Shelf(f"sqlite:///{tmp_path}/there/c.db", True, None).open() as store:
        assert await states(store) == [LARGE]


async def test_what_grows_stays_in_rows(shelf: Shelf) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known, state = history(), bytearray(random.Random(3).randbytes(2 * LIMIT))
        for _ in range(20):
            state += random.Random(len(state)).randbytes(200)
            await save(store, bytes(state), known=known)
        assert await states(store) == [bytes(state)]
        filed = [read_name(name, "r").size for name in await names(store) if name is not None]
        assert len(filed) == 1  # the first, which grew out of nothing
        assert sum(row.size_bytes for row in await store.checkpoints("r")) < 3 * len(state)


@pytest.mark.parametrize("place", ["beside", "file"])
async def test_files_are_sealed_like_rows(place: str, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    folder = tmp_path / ("c.db.blobs" if place == "beside" else "kept")
    shelf = Shelf(f"sqlite:///{tmp_path}/c.db", True if place == "beside" else f"file://{folder}", folder)
    ring = KeyRing((os.urandom(32),))
    async with shelf.open(ring=ring) as store:
        await store.insert_job("r", definition())
        await save(store, LARGE, OTHER)
        assert await states(store) == [LARGE, OTHER]
    first, second = shelf.files
    for path in shelf.files:
        assert LARGE[100:164] not in path.read_bytes() and OTHER[100:164] not in path.read_bytes()
    # A file of the same run under the name of another, as long as that: bound to its address.
    short, long = sorted((first, second), key=lambda path: path.stat().st_size)
    long.write_bytes(short.read_bytes().ljust(long.stat().st_size, b"\0"))
    async with shelf.open(ring=ring) as store:
        with pytest.raises(StoreDamaged, match="not written with this run's key"):
            await states(store)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [Path.unlink, truncate, lengthen, flip, blank, pipe, folder], ids=lambda harm: harm.__name__)
async def test_damage_is_told(folder_shelf: Shelf, harm: Callable[[Path], None]) -> None:
    async with folder_shelf.open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE)
        (path,) = folder_shelf.files
        harm(path)
        named = "is missing|has 0 of|has .* of 12" if harm not in (flip, blank) else "was changed"
        with pytest.raises(StoreDamaged, match=f"checkpoint 1 of run 'r' is damaged: .*{named}") as raised:
            await states(store)
        if harm not in (flip, blank):
            assert path.name in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "../../secret", "/etc/passwd", "beside/../../secret", "beside/{folder}/../{other}/{file}",
        "beside/{other}/{file}",
        "url/{other}/{file}", "beside/{folder}/{file}\n", "beside/{folder}/{file}/..", "file:///{folder}/{file}",
        "beside/{folder}",
        "beside//{folder}/{file}", "BESIDE/{folder}/{file}", "beside/{folder}/{file}0000000000000", "", "url",
        "http://example.org/{folder}/{file}", "beside/{folder}/٠{file}", "beside/{folder}/{random}.012",
    ],
)  # fmt: skip
def test_only_our_own_names_are_read(name: str) -> None:
    good = make_name("beside", "r", 12)
    assert read_name(str(good), "r") == good and good.size == 12
    parts = {"folder": good.folder, "file": good.file, "other": folder_of("s"), "random": good.file.split(".")[0]}
    with pytest.raises(MalformedValue, match="no name of a file of this run"):
        read_name(name.format(**parts), "r")


@pytest.mark.parametrize(
    "url",
    [
        "s3:/key:geheim@bucket",
        "key:geheim@bucket",
        "ftp:key:geheim@h",
        "ftp;password=geheim://h/x",
        "ftp://key:geheim?x@h/p",
        "ftp://key:geheim#x@h/p",
        "ftp://key:geheim/x@h/p",
        "ftp://key:geheim@h/p?token=geheim",
        "simplecache::ftp://key:geheim@h/p",
    ],
)
def test_the_secrets_of_a_url_are_not_told(url: str) -> None:
    assert "geheim" not in shown_url(url)


@pytest.mark.parametrize(
    "url", ["s3:/key:geheim@bucket", "key:geheim@bucket", "ftp;password=geheim://h/x", "a::ftp://k:geheim@h/p"]
)
def test_nor_those_of_one_that_is_refused(url: str) -> None:
    with pytest.raises(PolicyInvalid) as refused:
        check_url(url)
    assert "geheim" not in str(refused.value)


def test_a_path_that_is_no_url_is_told() -> None:
    with pytest.raises(PolicyInvalid, match=r"'/srv/blobs' is no url"):
        check_url("/srv/blobs")


async def test_a_hostile_row_reads_no_other_file(store_url: str, tmp_path: Path) -> None:
    shelf = Shelf(store_url, f"file://{tmp_path}/kept", tmp_path / "kept")
    (tmp_path / "secret").write_bytes(LARGE)
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE)
        (file,) = shelf.files
        file.unlink()
        file.symlink_to(tmp_path / "secret")
        with pytest.raises(BlobsUnusable):  # not followed
            await states(store)
        for name in ("../../secret", str(tmp_path / "secret"), f"url/{folder_of('r')}/../../secret", None):

            def forge(connection: Connection, name: str | None = name) -> None:
                connection.execute(update(PAYLOAD).values(blob=name))

            await store.transact(forge)
            with pytest.raises(StoreDamaged):
                await states(store)


HOSTILE = """
import asyncio, random, sys
from sqlalchemy import update
from checkpoint_plugin.blobs.name import folder_of, make_name
from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.models import PAYLOAD
from checkpoint_plugin.store import RunHistory, Store
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.test_store import cut, definition

WATCHED = ("open", "import", "exec", "compile", "os.", "socket.", "subprocess.", "shutil.", "pathlib.", "urllib.", "ctypes.")
seen = []
armed = [False]
dice = random.Random(int(sys.argv[2]))

def names():
    yield from ("../../../etc/passwd", "/etc/passwd", "http://127.0.0.1:1/x", "s3://bucket/x", "file:///etc/passwd", "")
    yield "os:system"
    yield str(make_name("url", "r", 5))
    yield str(make_name("beside", "other", 5))
    good = str(make_name("beside", "r", 5))
    for _ in range(100):
        text = list(good)
        while "".join(text) == good:
            text[dice.randrange(len(text))] = dice.choice("/.:\\\\g\\u0660~%zA\\n ")
        yield "".join(text)

async def main():
    location = locate(f"sqlite:///{sys.argv[1]}/c.db")
    store = Store(location, create=True, blobs=Blobs(location, True, 100))
    await store.insert_job("r", definition())
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("n", "running", state=b"x" * 1000)), "test")
    await store.restore(RunHistory("r", 1), None)
    found = 0
    for name in names():
        await store.transact(lambda connection: connection.execute(update(PAYLOAD).values(blob=name)))
        armed[0] = True
        try:
            await store.restore(RunHistory("r", 1), None)
            raise AssertionError(name)
        except Exception as error:
            assert type(error).__name__ in ("StoreDamaged", "BlobsUnusable"), error
        finally:
            armed[0] = False
        found += 1
    await store.close()
    print(found, seen[:5])

def watch(event, arguments):
    if armed[0] and event.startswith(WATCHED):
        seen.append((event, str(arguments)[:200]))

sys.addaudithook(watch)
asyncio.run(main())
"""


def test_hostile_names_open_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    command = [sys.executable, "-c", HOSTILE, str(tmp_path), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    assert done.stdout == "109 []\n", f"seed {seed}"


async def test_a_hostile_name_of_the_store_leads_nowhere(store_url: str, tmp_path: Path) -> None:
    shelf = Shelf(store_url, f"file://{tmp_path}/kept", tmp_path / "kept")
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE)
        await store.transact(lambda connection: connection.execute(update(SCHEMA).values(store_id="../../elsewhere")))
    async with shelf.open() as store:
        for work in (states(store), save(store, OTHER)):
            with pytest.raises(BlobsUnusable, match="no name under which it keeps files"):
                await work
    assert len(shelf.files) == 1 and not (tmp_path.parent / "elsewhere").exists()


@pytest.fixture
def memory() -> Any:
    return pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem()


async def test_damage_under_a_url_is_told(store_url: str, tmp_path: Path, memory: Any) -> None:
    async with Shelf(store_url, f"memory://{tmp_path.name}", None).open() as store:
        await store.insert_job("r", definition())
        await save(store, LARGE)
        (path,) = memory.find(f"/{tmp_path.name}")
        data = memory.cat_file(path)
        for harm, told in ((data[:-1], "has 12291 of"), (data + b"\0", "of 12292 bytes, or more"), (data[::-1], "was changed")):
            memory.pipe_file(path, harm)
            with pytest.raises(StoreDamaged, match=told):
                await states(store)
        memory.rm_file(path)
        with pytest.raises(StoreDamaged, match="is missing"):
            await states(store)


@pytest.mark.parametrize(("method", "what"), [("pipe_file", "written"), ("cat_file", "read")])
async def test_a_url_that_refuses(
    method: str, what: str, store_url: str, tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> Any:
        raise RuntimeError("the bucket is closed\nand more")

    async with Shelf(store_url, f"memory://{tmp_path.name}?key=secret", None).open() as store:
        await store.insert_job("r", definition())
        known = await save(store, LARGE)
        monkeypatch.setattr(type(memory), method, refuse)
        with pytest.raises(BlobsUnusable, match=rf"cannot be {what}: RuntimeError: the bucket is closed\. Give") as raised:
            await (save(store, OTHER, known=known) if what == "written" else states(store))
        assert "secret" not in str(raised.value)
        monkeypatch.undo()
        assert await states(store) == [LARGE]


async def test_runs_that_share_a_transaction(folder_shelf: Shelf) -> None:
    async with folder_shelf.open() as store:
        runs = [f"r{number}" for number in range(5)]
        for run_id in runs:
            await store.insert_job(run_id, definition())

        async def one(run_id: str) -> Any:
            state: Any = object() if run_id == "r3" else [run_id, LARGE]
            return await store.save(
                RunHistory(run_id, 1, 1), cut(NodeSnapshot("n", "running", state=state), run_id=run_id), "test"
            )

        found = await asyncio.gather(*map(one, runs), return_exceptions=True)
        assert [type(outcome).__name__ for outcome in found] == ["CheckpointRef"] * 3 + ["ValueNotStorable", "CheckpointRef"]
        assert len(folder_shelf.files) == 4  # one a run: runs share nothing
        for run_id in {*runs} - {"r3"}:
            restored = await store.restore(RunHistory(run_id, 1), None)
            assert restored is not None and restored.nodes[0].state == [run_id, LARGE]


async def test_names_are_never_used_twice() -> None:
    assert len({make_name("url", "r", 5).file for _ in range(1_000)}) == 1_000


def test_a_server_has_nothing_beside_it() -> None:
    with pytest.raises(PolicyInvalid, match=r"this store is PostgreSQL\. Give a url"):
        Blobs(locate("postgresql://host/name"), True)


def test_a_folder_of_a_drive_of_windows_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_url, "Path", PureWindowsPath)
    check_url("file:///C:/large%20values")
    assert str(blob_url._local_path("file:///C:/large%20values")) == "C:\\large values"
    with pytest.raises(PolicyInvalid, match="no path from the root of this machine"):
        check_url("file:///srv/blobs")


@pytest.mark.parametrize(
    "url", ["folder", "/srv/blobs", "file://relative/path", "file://", "s3://", "simplecache::s3://bucket/x", "://x", "a b://c"]
)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(PolicyInvalid, match="option 'blobs'"):
        Blobs(locate("sqlite:///c.db"), url)


async def test_an_unknown_kind_of_url(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    async with Shelf(f"sqlite:///{tmp_path}/c.db", "nowhere://me:secret@host/x?token=secret", None).open() as store:
        await store.insert_job("r", definition())
        with pytest.raises(BlobsUnusable, match=r"nowhere://host/x, where large values lie, cannot be opened") as raised:
            await save(store, LARGE)
        assert "secret" not in str(raised.value)
        await save(store, b"small")  # nothing was written, and the run goes on


async def test_a_place_that_refuses_when_it_is_opened(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    async with Shelf(f"sqlite:///{tmp_path}/c.db", "ftp://127.0.0.1:1/x", None).open() as store:
        await store.insert_job("r", definition())
        with pytest.raises(BlobsUnusable, match=r"ftp://127.0.0.1:1/x, where large values lie, cannot be opened: .*refused"):
            await save(store, LARGE)


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    location = locate("sqlite:///c.db")
    assert not Blobs(location).writes
    monkeypatch.setenv(ENVIRONMENT, "true")
    assert Blobs(location).writes and not Blobs(location).has_url and not Blobs(location, False).writes
    monkeypatch.setenv(ENVIRONMENT, "file:///srv/blobs")
    assert Blobs(location).has_url and not Blobs(location, True).has_url
    monkeypatch.setenv(ENVIRONMENT, "0")
    assert not Blobs(location).writes


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """While a file larger than this cannot be written, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_is_full(folder_shelf: Shelf) -> None:
    async with folder_shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, LARGE)
        huge = BITS.randbytes(8 << 20)
        with small_files(4 << 20), pytest.raises(BlobsUnusable, match=r"cannot be written: .*\. Make room"):
            await save(store, OTHER, huge, known=known)
        assert len(folder_shelf.files) == 1  # neither half of the one nor the other
        assert await states(store) == [LARGE]
        await save(store, OTHER, huge, known=known)
        assert await states(store) == [OTHER, huge]


async def test_a_place_that_is_something_else(folder_shelf: Shelf) -> None:
    assert folder_shelf.folder is not None
    folder_shelf.folder.write_bytes(b"a file")
    async with folder_shelf.open() as store:
        await store.insert_job("r", definition())
        with pytest.raises(BlobsUnusable, match=r"cannot be written: .*\. Make room and give the right to it, or choose"):
            await save(store, LARGE)
        assert await store.restore(history(), None) is None


async def test_a_value_that_cannot_be_stored_leaves_no_file(folder_shelf: Shelf) -> None:
    async with folder_shelf.open() as store:
        await store.insert_job("r", definition())
        snapshot = Snapshot(
            "r", 1, "running", (NodeSnapshot("n", "running", state=LARGE),), cut().taken_at, context={"a": object()}
        )
        with pytest.raises(TypeError, match="context"):  # it is encoded last
            await store.save(history(), snapshot, "test")
        assert folder_shelf.files == []


async def test_on_the_disk_before_the_transaction(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, its folder, and those above it are synced before the first statement that mentions it."""
    shelf = Shelf(store_url, f"file://{tmp_path}/kept", tmp_path / "kept")
    synced: list[str] = []
    sync = os.fsync

    def record(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    async with shelf.open() as store:
        await store.insert_job("r", definition())
        monkeypatch.setattr(os, "fsync", record)
        seen: list[list[str]] = []
        for method in ("write_sqlite", "statement"):
            real: Any = getattr(CutWriter, method)

            def look(self: CutWriter, *args: Any, real: Any = real) -> Any:
                seen.append(list(synced))
                return real(self, *args)

            monkeypatch.setattr(CutWriter, method, look)
        await save(store, LARGE)
    (path,) = shelf.files
    before = seen[0]
    for above in (path.parent, path.parent.parent, path.parent.parent.parent, tmp_path):
        assert str(above) in before, above
    assert before.index(str(path)) < len(before) - 1 - before[::-1].index(str(path.parent))


@pytest.mark.parametrize("option", [None, False])
async def test_a_save_that_is_tried_again_is_the_same(
    folder_shelf: Shelf, option: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with folder_shelf.open(option) as store:
        await store.insert_job("r", definition())
        real: Callable[[CutWriter], Awaitable[bool]] = store._database.save
        tries: list[bool] = []

        async def unheard(writer: CutWriter) -> bool:
            """The answers to the first two are lost: one was not written, the other was."""
            tries.append(True)
            if len(tries) == 1:
                writer.encode()
                raise StoreUnreachable("gone")
            done = await real(writer)
            if len(tries) == 2:
                raise StoreUnreachable("gone")
            return done

        monkeypatch.setattr(store._database, "save", unheard)
        await save(store, LARGE, OTHER)
        assert len(tries) == 3
        assert len(await store.checkpoints("r")) == 1
        assert await states(store) == [LARGE, OTHER]
    assert option is False or len(folder_shelf.files) == 2


async def test_checkpoints_by_hand(folder_shelf: Shelf) -> None:
    async with folder_shelf.open() as store:
        manager = CheckpointManager("r", enabled=True, store=store)
        assert await manager.save_checkpoint(completed_nodes=["a"], outputs={"a": {"out": LARGE}})
        assert len(folder_shelf.files) == 1
        again = CheckpointManager("r", enabled=True, store=store)
        assert await again.save_checkpoint(completed_nodes=["b"], outputs={"b": {"out": OTHER}})
        assert await manager.save_checkpoint(completed_nodes=["c"], outputs={"c": {"out": TEXT}})  # it looks, and tries again
        assert len(folder_shelf.files) == 3
        found = await again.restore_checkpoint()
        assert found is not None and found.node_states["a"].outputs == {"out": LARGE}
        assert await again.clear_checkpoint()
        assert folder_shelf.files == []


async def test_a_manager_goes_by_the_environment(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, f"file://{tmp_path}/kept")
    huge = BITS.randbytes(1 << 20)
    assert await CheckpointManager("r", True, store_url).save_checkpoint(completed_nodes=["a"], outputs={"a": {"out": huge}})
    assert [path.stat().st_size // 1_000 for path in (tmp_path / "kept").rglob("*.*")] == [1_048]
    found = await CheckpointManager("r", True, store_url).restore_checkpoint()
    assert found is not None and found.node_states["a"].outputs == {"out": huge}


def test_options_that_make_no_sense() -> None:
    from checkpoint_plugin.policy import Policy

    assert (Policy().blobs, Policy().blob_bytes) == (None, 1 << 20)
    wrong: list[dict[str, Any]] = [
        {"blobs": 1},
        {"blobs": ""},
        {"blobs": []},
        {"blob_bytes": 0},
        {"blob_bytes": True},
        {"blob_bytes": "1M"},
    ]
    for options in wrong:
        with pytest.raises(PluginOptionsInvalid, match="'blob"):
            Policy.from_options(options)


def test_nothing_is_imported_that_is_not_used(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import RunHistory, Store
from tests.checkpoint_plugin.test_store import cut, definition
from hookspecs import NodeSnapshot
async def main(url, option):
    location = locate(url)
    store = Store(location, create=True, blobs=Blobs(location, option, 100))
    await store.insert_job("r", definition())
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("n", "running", state=b"x" * 1000)), "test")
    await store.close()
asyncio.run(main("sqlite:///{tmp_path}/a.db", None))
assert not any(name.startswith("checkpoint_plugin.blobs.url") for name in sys.modules)
for number, option in enumerate((True, "file://{tmp_path}/kept")):
    asyncio.run(main(f"sqlite:///{tmp_path}/b{{number}}.db", option))
assert "fsspec" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "a.db.blobs").exists()
