"""PostgreSQL for the benchmarks: the server of the tests, but one whose commits wait for the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.postgres import Server, start_server

__all__ = ["DurableServer", "durable_server"]


class DurableServer(Server):
    """With fsync and synchronous_commit on."""

    durable = True


@contextmanager
def durable_server() -> Iterator[tuple[str | None, str]]:
    """The url of a server's maintenance database, or `None` and why there is none. `TEST_PG_DSN` names one that runs already."""
    if dsn := os.environ.get("TEST_PG_DSN"):
        yield dsn, ""
        return
    try:
        server = start_server(DurableServer)
    except RuntimeError as error:
        yield None, str(error)
        return
    try:
        yield server.dsn(), ""
    finally:
        server.stop()
