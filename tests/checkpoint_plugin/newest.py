"""Where a run stands, as its lease tells."""

from __future__ import annotations

from sqlalchemy import select

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.models import LEASE
from checkpoint_plugin.store import Store

__all__ = ["newest_number"]


async def newest_number(store: Store | str, run_id: str = "r") -> int:
    """The number of a run's newest checkpoint.

    Args:
        store: an open one, or its url.
        run_id: the run.
    """
    if isinstance(store, str):
        opened = Store(locate(store), create=False)
        try:
            return await newest_number(opened, run_id)
        finally:
            await opened.close()
    query = select(LEASE.c.newest_number).where(LEASE.c.run_id == run_id)
    found: int = await store.transact(lambda connection: connection.execute(query).scalar_one(), write=False)
    return found
