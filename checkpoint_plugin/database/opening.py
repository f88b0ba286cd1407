"""From a location to its database."""

from __future__ import annotations

import os

from checkpoint_plugin.database.location import Location
from checkpoint_plugin.database.mounts import refuse_network
from checkpoint_plugin.database.sqlite import SqliteDatabase, create_file, is_there
from checkpoint_plugin.database.transaction import Database
from checkpoint_plugin.errors import StoreMissing, StoreUnreadable

__all__ = ["open_database"]


def open_database(location: Location, *, create: bool) -> Database:
    """A database; connections are made when the first transaction needs one.

    Args:
        location: which.
        create: make the SQLite file and its folder where there is none.

    Raises:
        StoreMissing: there is no such file, and `create` is off.
        StoreOnNetwork: the file lies on a network file system.
        StoreUnreadable: the file cannot be made, or looked for, or is a folder.
    """
    if location.kind == "postgresql":
        from checkpoint_plugin.database.postgresql import (
            PostgresDatabase,  # asyncpg takes a tenth of a second, for SQLite in vain
        )

        return PostgresDatabase(location)
    assert location.path is not None
    refuse_network(location.path)
    if create:
        create_file(location.path)
    elif not is_there(location.path):
        if os.path.isdir(location.path):
            raise StoreUnreadable(f"{location.shown} is a folder, and a store on SQLite is a file. Name the file, with --url.")
        raise StoreMissing(
            f"there is no store at {location.shown}. Name another with --url, or start a run that enables checkpoint."
        )
    return SqliteDatabase(location)
