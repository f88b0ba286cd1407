"""Files go after the rows that mention them, and those that no row mentions are swept; saves that race with it lose nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from checkpoint_plugin.blobs.files import ENVIRONMENT, Blobs
from checkpoint_plugin.blobs.folder import FolderPlace
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import BlobsUnusable, StoreDamaged
from checkpoint_plugin.models import CHECKPOINT, LEASE, PAYLOAD
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.space.sweep import Swept, sweep_blobs
from checkpoint_plugin.tables.job import JobEnd
from hookspecs import StoreError
from tests.checkpoint_plugin.test_blobs import FOLDERS, LIMIT, Shelf, history, make_shelf, names, save, states
from tests.checkpoint_plugin.test_store import definition
from tests.cli.command import workflow

OLD_SECONDS = 7_200
LAST = Retention(keep_last=1)
BITS = random.Random(17)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(params=FOLDERS)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return make_shelf(request, tmp_path)


def value() -> bytes:
    return BITS.randbytes(2 * LIMIT)


def age(path: Path, seconds: float = OLD_SECONDS) -> None:
    before = time.time() - seconds
    os.utime(path, (before, before))


def sizes(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


async def test_files_go_with_the_checkpoints_that_need_them(shelf: Shelf) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        stays, goes, comes = value(), value(), value()
        known = await save(store, stays, goes)
        await save(store, stays, comes, known=known)
        files = set(shelf.files)
        (told,) = await prune_runs(store, LAST, dry_run=True)
        assert set(shelf.files) == files and len(files) == 3
        (done,) = await prune_runs(store, LAST)
        assert done.freed == told.freed > sizes(shelf.files) // 2
        assert set(shelf.files) < files and len(shelf.files) == 2
        assert await states(store) == [stays, comes]
        # The writer learns of it: what is gone is written anew, what is there is not, and its first try leaves nothing.
        new = value()
        await save(store, goes, comes, new, known=known)
        assert await states(store) == [goes, comes, new]
        assert len(shelf.files) == 4
        await store.end_attempt("r", 1, JobEnd("completed", None, LONG_AGO))
        await prune_runs(store, Retention(drop_finished=0))
        assert shelf.files == []


async def test_files_behind_a_link_are_not_deleted(tmp_path: Path) -> None:
    """Who may write into the folder of files must not have those of another store deleted by a sweep or a prune."""
    shelf = Shelf(f"sqlite:///{tmp_path}/checkpoints.db", True, tmp_path / "checkpoints.db.blobs")
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, value())
        (mentioned,) = shelf.files
        elsewhere = tmp_path / "elsewhere"
        mentioned.parent.rename(elsewhere)
        mentioned.parent.symlink_to(elsewhere)
        foreign = elsewhere / f"{'0' * 32}.7"
        foreign.write_bytes(b"foreign")
        for path in (foreign, elsewhere / mentioned.name):
            age(path)
        for run_ids in (["r"], None):
            assert await sweep_blobs(store, run_ids) == Swept()
        await save(store, None, known=known)
        await prune_runs(store, LAST, ["r"])
        assert len(await names(store)) == 0
        assert sorted(path.name for path in elsewhere.iterdir()) == sorted((foreign.name, mentioned.name))


async def test_nothing_is_deleted_before_the_rows_are(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, value())
        await save(store, value(), known=known)
        real = store._database.transact

        async def fails(work: Any, *, write: bool = True, before: Any = None) -> Any:
            def refused(connection: Connection) -> Any:
                work(connection)
                raise StoreError("the commit was refused")

            return await real(refused if write else work, write=write, before=before)

        monkeypatch.setattr(store._database, "transact", fails)
        with pytest.raises(StoreError, match="the commit was refused"):
            await prune_runs(store, LAST)
        assert len(shelf.files) == 2


async def test_where_the_place_is_not_known_nothing_is_pruned(store_url: str, tmp_path: Path) -> None:
    shelf = Shelf(store_url, f"file://{tmp_path}/kept", tmp_path / "kept")
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, value())
        await save(store, value(), known=known)
    async with shelf.open(option=False) as store:
        with pytest.raises(BlobsUnusable, match=ENVIRONMENT):
            await prune_runs(store, LAST)
        assert len(await store.checkpoints("r")) == 2
    assert len(shelf.files) == 2


async def test_what_no_row_mentions_goes_when_it_is_old(shelf: Shelf) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        kept = value()
        await save(store, kept)
        (mentioned,) = shelf.files
        age(mentioned)
        blobs = Blobs(store.location, shelf.option, LIMIT)
        blobs.store_id = store.blobs.store_id
        orphans = [blobs.write(run_id, value()) for run_id in ("r", "r", "gone")]
        first, _, third = (next(path for path in shelf.files if path.name == name.file) for name in orphans)
        age(first)
        age(third)
        (mentioned.parent / "notes.txt").write_text("not ours")
        age(mentioned.parent / "notes.txt")
        generation = partial(store.transact, lambda c: c.execute(select(LEASE.c.generation)).scalar_one(), write=False)
        assert await sweep_blobs(store, dry_run=True) == Swept(2, 4 * LIMIT)
        assert len(shelf.files) == 5
        assert await generation() == 0
        assert await sweep_blobs(store, ["r"]) == Swept(1, 2 * LIMIT)
        assert await generation() == 1
        assert await sweep_blobs(store) == Swept(1, 2 * LIMIT)
        assert not third.parent.exists()
        assert await sweep_blobs(store) == Swept()
        assert await generation() == 1, "where nothing goes, no save is refused for it"
        assert len(shelf.files) == 3  # the young one, too
        assert await states(store) == [kept]


async def test_more_runs_are_swept_than_a_statement_can_name(shelf: Shelf) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        kept = value()
        await save(store, kept)
        (mentioned,) = shelf.files
        age(mentioned)
        assert await sweep_blobs(store, [*map(str, range(33_000)), "r"]) == Swept()
        assert await states(store) == [kept]


async def test_stores_that_share_a_url_leave_each_other_alone(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/kept"
    first, second = (Shelf(f"sqlite:///{tmp_path}/{name}.db", url, tmp_path / "kept") for name in "ab")
    kept = value()
    async with first.open() as one, second.open() as two:
        await one.insert_job("r", definition())
        await save(one, kept)
        await two.insert_job("r", definition())
        for path in first.files:
            age(path)
        assert await sweep_blobs(two) == Swept()
        assert await states(one) == [kept]


async def test_a_place_that_tells_no_age_is_not_swept(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    async with Shelf(store_url, f"memory://{tmp_path.name}", None).open() as store:
        await store.insert_job("r", definition())
        known = await save(store, value())
        store.blobs.write("r", value())
        assert await sweep_blobs(store) == Swept()
        monkeypatch.setattr(memory, "modified", lambda self, path: LONG_AGO.replace(tzinfo=None))
        assert await sweep_blobs(store, dry_run=True) == Swept(1, 2 * LIMIT)

        def untold(self: Any, path: str) -> None:
            raise NotImplementedError

        monkeypatch.setattr(memory, "modified", untold)
        assert await sweep_blobs(store) == Swept()
        info = memory.info
        for told in ({"mtime": LONG_AGO.timestamp()}, {"LastModified": LONG_AGO}):
            monkeypatch.setattr(memory, "info", lambda self, path, told=told, **more: {**info(self, path), **told})
            assert await sweep_blobs(store, dry_run=True) == Swept(1, 2 * LIMIT)
        monkeypatch.undo()
        await save(store, value(), known=known)
        assert len(await prune_runs(store, LAST)) == 1
        assert await sweep_blobs(store, age=0) == Swept(1, 2 * LIMIT)
        assert len(await names(store)) == 1


class Meddler(FolderPlace):
    """A place where somebody sweeps between the moment when a file is on the disk and the transaction that mentions it."""

    def __init__(self, root: Path, shelf: Shelf, times: int) -> None:
        super().__init__(root)
        self._shelf = shelf
        self.times = times
        self.swept = 0

    def settle(self, folder: str) -> None:
        super().settle(folder)
        if self.times:
            self.times -= 1
            self.swept += asyncio.run(self._sweep()).files

    async def _sweep(self) -> Swept:
        async with self._shelf.open() as other:
            return await sweep_blobs(other, age=0)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_sweep_between_a_file_and_its_row(shelf: Shelf, times: int) -> None:
    """However long a save was asleep: what was swept it writes again."""
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, b"small")
        root = shelf.folder if shelf.option is True else (shelf.folder or Path()) / str(store.blobs.store_id)
        assert root is not None
        meddler = Meddler(root, shelf, times)
        if shelf.option is True:
            store.blobs._beside = meddler
        else:
            store.blobs._at_url = meddler
        first, second = value(), value()
        await save(store, first, second, known=known)
        assert meddler.swept == 2 * times and meddler.times == 0
        assert await states(store) == [first, second]
        assert len(shelf.files) == 2
        assert await sweep_blobs(store, age=0) == Swept()


async def test_saves_prunes_and_sweeps_at_once(shelf: Shelf) -> None:
    """What the newest checkpoint mentions is there after every step, and in the end nothing else is."""
    pool = [value() for _ in range(4)]
    async with shelf.open() as store, shelf.open() as other:
        await store.insert_job("r", definition())
        known, dice, done = history(), random.Random(5), asyncio.Event()

        async def meddle() -> int:
            rounds = 0
            while not done.is_set():
                await prune_runs(other, LAST, ["r"])
                await sweep_blobs(other, age=0)
                rounds += 1
            return rounds

        task = asyncio.create_task(meddle())
        saved: list[Any] = []
        for _ in range(15):
            saved = [dice.choice(pool), value()]
            await save(store, *saved, known=known)
        done.set()
        assert await task > 1
        assert await states(other) == saved
        await prune_runs(other, LAST)
        await sweep_blobs(other, age=0)
        assert {path.name for path in shelf.files} == {str(name).rpartition("/")[2] for name in await names(store)}
        assert await states(store) == saved


async def test_a_checkpoint_that_is_pruned_while_it_is_read_is_not_damaged(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shelf.open() as store, shelf.open() as other:
        await store.insert_job("r", definition())
        first, second = value(), value()
        known = await save(store, first)
        real, again = store._database.compute, [True]

        async def late(work: Any) -> Any:
            """The rows are read; before their files are, another checkpoint comes, and this one goes."""
            if again:
                again.clear()
                await save(other, second, known=known)
                await prune_runs(other, LAST)
            return await real(work)

        monkeypatch.setattr(store._database, "compute", late)
        assert await states(store) == [second]
        again.append(True)
        await save(other, first, known=known)
        number, second = known.number, value()
        with pytest.raises(StoreError, match=f"no checkpoint {number}") as raised:
            await store.restore(history(), number)
        assert not isinstance(raised.value, StoreDamaged)


async def test_the_command_and_the_option(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, value())
        await save(store, value(), known=known)
        orphan = store.blobs.write("r", value())
    age(next(path for path in shelf.files if path.name == orphan.file))
    flags = [] if shelf.option is True else ["--blobs", str(shelf.option)]
    arguments = ["prune", "--keep-last", "1", "--url", shelf.url, "--json", *flags]
    told = json.loads(workflow(*arguments, "--dry-run", cwd=tmp_path).stdout)
    assert told["orphans"] == {"files": 1, "bytes": 2 * LIMIT} and told["bytes"] > 4 * LIMIT
    assert len(shelf.files) == 3
    done = json.loads(workflow(*arguments, cwd=tmp_path).stdout)
    assert done == {**told, "dry_run": False}
    assert len(shelf.files) == 1


async def test_a_file_that_cannot_be_deleted_is_left_for_the_next_time(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, value())
        await save(store, value(), known=known)
        unlink = Path.unlink

        def refuse(self: Path, missing_ok: bool = False) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "unlink", refuse)
        assert len(await prune_runs(store, LAST)) == 1
        assert "files are left for the next `workflow prune`" in caplog.text and "Permission denied" in caplog.text
        monkeypatch.setattr(Path, "unlink", unlink)
        assert len(shelf.files) == 2
        assert (await sweep_blobs(store, age=0)).files == 1


async def test_a_row_that_names_something_else_deletes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    async with shelf.open() as store:
        await store.insert_job("r", definition())
        known = await save(store, value())
        await save(store, value(), known=known)

        def forge(connection: Connection) -> None:
            connection.execute(update(PAYLOAD).values(blob=f"{'url' if shelf.option is not True else 'beside'}/../../secret"))

        await store.transact(forge)
        await prune_runs(store, LAST)
        assert secret.exists() and len(shelf.files) == 2
        assert await store.transact(lambda c: list(c.execute(select(CHECKPOINT.c.number)).scalars()), write=False) == [2]
