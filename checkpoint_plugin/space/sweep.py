"""Files that no row mentions: what a crash left between the writing of a file and the transaction, or after it.

A file may also be one that a row is about to mention. So those of a stored run are deleted only after its rows have got another
`generation`, under the lock that every save takes: a save that wrote its files before is refused, and writes them again. The
age only keeps that rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import select, update

from checkpoint_plugin.blobs.mentioned import fetch_names, named
from checkpoint_plugin.blobs.name import BlobName, folder_of
from checkpoint_plugin.blobs.place import BlobFile, BlobPlace
from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.models import JOB, LEASE
from checkpoint_plugin.store import Store

__all__ = ["ORPHAN_SECONDS", "Swept", "sweep_blobs"]

ORPHAN_SECONDS: Final = 3_600.0
"""The age from which on a file that no row mentions is deleted."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What was deleted.

    Args:
        files: so many.
        size: bytes of them.
    """

    files: int = 0
    size: int = 0


async def sweep_blobs(
    store: Store, run_ids: Sequence[str] | None = None, *, dry_run: bool = False, age: float = ORPHAN_SECONDS
) -> Swept:
    """Delete files that no row mentions.

    Args:
        store: an open one.
        run_ids: of these runs; of all without, and of those that are no more.
        dry_run: only tell.
        age: seconds that a file must have been there.

    Raises:
        StoreError: the store or the place of its files cannot be used.
    """
    look = partial(_stored_ids, run_ids=run_ids)
    folders = None if run_ids is None else {folder_of(run_id) for run_id in run_ids}
    await store.transact(lambda connection: None, write=False)  # from here on the places of its files are known
    files, size = 0, 0
    for kind, place in await store.compute(lambda: list(store.blobs.places())):
        found = await store.compute(partial(place.files, folders))
        # Runs after files: the row of a run is there before its first file.
        stored = {folder_of(run_id): run_id for run_id in (await store.transact(look, write=False) if found else ())}
        by_folder: dict[str, list[BlobFile]] = {}
        for file in found:
            by_folder.setdefault(file.folder, []).append(file)
        for folder, there in by_folder.items():
            gone = await _sweep(store, kind, place, there, stored.get(folder), age, dry_run)
            files, size = files + len(gone), size + sum(file.size for file in gone)
    return Swept(files, size)


def _stored_ids(connection: Connection, run_ids: Sequence[str] | None) -> Sequence[str]:
    """The ids of all runs, or of those of these that are there."""
    query = select(JOB.c.id)
    if run_ids is None:
        return list(connection.execute(query).scalars())
    parts = batches(connection, run_ids)
    return [run_id for part in parts for run_id in connection.execute(query.where(JOB.c.id.in_(part))).scalars()]


async def _sweep(
    store: Store, kind: str, place: BlobPlace, found: Sequence[BlobFile], run_id: str | None, age: float, dry_run: bool
) -> Sequence[BlobFile]:
    """Delete those files of one folder that no row of its run mentions; `None` for a run that is no more."""

    def look(connection: Connection) -> Sequence[BlobFile]:
        assert run_id is not None
        return _unmentioned(connection, run_id, kind, found)

    if run_id is not None:
        found = await store.transact(look, write=False)
    found = await store.compute(lambda: [file for file in found if _is_old(place.age(file), age)])
    if not found or dry_run:
        return found

    def fence(connection: Connection) -> Sequence[BlobFile]:
        connection.execute(update(LEASE).where(LEASE.c.run_id == run_id).values(generation=LEASE.c.generation + 1))
        return look(connection)

    if run_id is not None:
        found = await store.transact(fence)
    await store.compute(lambda: place.remove([(file.folder, file.file) for file in found]))
    return found


def _is_old(age: float | None, limit: float) -> bool:
    return age is not None and age >= limit


def _unmentioned(connection: Connection, run_id: str, kind: str, found: Iterable[BlobFile]) -> Sequence[BlobFile]:
    mentioned = {str(name) for name in named(run_id, fetch_names(connection, run_id))}
    return [file for file in found if str(BlobName(kind, file.folder, file.file)) not in mentioned]
