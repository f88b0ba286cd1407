"""Savepoints: checkpoints that a person named, which retention never deletes."""

from __future__ import annotations

from shlex import quote
from typing import Final

from sqlalchemy import and_, select, update

from checkpoint_plugin.bounds import check_number, no_checkpoint
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.errors import FieldInvalid
from checkpoint_plugin.models import CHECKPOINT, LEASE
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.job import lock_job
from checkpoint_plugin.tables.node_rows import lock_epoch
from hookspecs import RunNotFound, StoreError

__all__ = ["name_checkpoint", "unname_checkpoint"]

NAME_LENGTH: Final = 200


async def name_checkpoint(store: Store, run_id: str, name: str, number: int | None = None) -> int:
    """Make a checkpoint a savepoint.

    Args:
        store: an open one.
        run_id: the run.
        name: 1 to 200 characters.
        number: of the checkpoint; the newest without.

    Returns:
        The checkpoint's number.

    Raises:
        RunNotFound: there is no such run.
        FieldInvalid: the name cannot be stored.
        StoreError: there is no such checkpoint, it has another name, or another one has this.
    """
    if not 1 <= len(name) <= NAME_LENGTH or not is_storable_text(name):
        why = f"a savepoint's name has 1 to {NAME_LENGTH} characters and no NUL, not {name!r}. Choose another."
        raise FieldInvalid(f"run {run_id!r}", why)
    if not is_storable_text(run_id):
        raise RunNotFound(run_id, store.location.shown)

    def work(connection: Connection) -> int:
        with telling_damage(run_id, "its row"):
            lock_epoch(connection, run_id)  # what a prune locks before it looks which checkpoints have a name
            lock_job(connection, run_id, store.location.shown)
        check_number(run_id, number)
        newest = select(LEASE.c.newest_number).where(LEASE.c.run_id == run_id)
        wanted = connection.execute(newest).scalar_one() if number is None else number
        of_run = CHECKPOINT.c.run_id == run_id
        found = connection.execute(select(CHECKPOINT.c.label).where(of_run, CHECKPOINT.c.number == wanted)).first()
        if found is None:
            raise no_checkpoint(run_id, wanted)
        if found.label not in (None, name):
            raise StoreError(
                f"checkpoint {wanted} of run {run_id!r} is the savepoint {found.label!r} already, and has one name. Name another "
                f"checkpoint, or first remove that name: workflow savepoint {quote(run_id)} {quote(str(found.label))} --remove"
            )
        named = connection.execute(select(CHECKPOINT.c.number).where(of_run, CHECKPOINT.c.label == name)).scalar()
        if named is not None and named != wanted:
            raise StoreError(f"checkpoint {named} of run {run_id!r} is named {name!r} already. Choose another name.")
        connection.execute(update(CHECKPOINT).where(of_run, CHECKPOINT.c.number == wanted).values(label=name))
        return int(wanted)

    return await store.transact(work)


async def unname_checkpoint(store: Store, run_id: str, name: str) -> int:
    """Take a savepoint's name away.

    Returns:
        The checkpoint's number.

    Raises:
        StoreError: the run has no savepoint of this name.
    """
    missing = StoreError(f"run {run_id!r} has no savepoint {name!r}. See `workflow checkpoints {quote(run_id)}`.")
    if not (is_storable_text(run_id) and is_storable_text(name)):
        raise missing

    def work(connection: Connection) -> int:
        lock_epoch(connection, run_id)
        of_name = and_(CHECKPOINT.c.run_id == run_id, CHECKPOINT.c.label == name)
        number = connection.execute(select(CHECKPOINT.c.number).where(of_name)).scalar()
        if number is None:
            raise missing
        connection.execute(update(CHECKPOINT).where(of_name).values(label=None))
        return int(number)

    return await store.transact(work)
