"""A proxy before PostgreSQL that cuts the line at the worst moment: when the server has done it, and the client does not know."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

__all__ = ["COMMIT", "Proxy"]

CHUNK = 1 << 16
COMMIT = b"COMMIT;"
"""With its end: READ COMMITTED is another thing."""


class Proxy:
    """Forwards every connection, until it is told to cut one.

    Args:
        url: of a database.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._folder = Path(tempfile.mkdtemp(prefix="wfpx-", dir="/tmp"))  # the path of a socket has at most 107 bytes
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut_at: bytes | None = None
        self._reply = True
        self._after = b""
        self._late: asyncio.Event | None = None
        self.cuts = 0
        self.silent = False
        """Whether it swallows all that comes, as a network does that lost its way."""

    @property
    def url(self) -> str:
        """Of the same database, through the proxy."""
        query = f"host={quote(str(self._folder))}"
        return self._parts._replace(netloc=f"{self._parts.username or 'postgres'}@", query=query).geturl()

    def cut(self, at: bytes = COMMIT, *, reply: bool = True, after: bytes = b"", late: asyncio.Event | None = None) -> None:
        """Cut the next connection whose client sends this.

        Args:
            at: what it must send; nothing for whatever comes next.
            reply: cut when the server has answered; else before it hears of it.
            after: what some client must have sent before.
            late: cut at once, and let the server hear of it when this is set.
        """
        self._cut_at, self._reply, self._after, self._late = at, reply, after, late

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._folder / ".s.PGSQL.5432")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()
        shutil.rmtree(self._folder)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = parse_qs(self._parts.query)
        if "host" in query:
            server = await asyncio.open_unix_connection(f"{query['host'][0]}/.s.PGSQL.{self._parts.port or 5432}")
        else:
            server = await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        both = (writer, server[1])
        self._writers.update(both)
        cutting = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(CHUNK):
                if self._after in data:
                    self._after = b""
                if not self._after and self._cut_at is not None and self._cut_at in data:
                    self._cut_at = None
                    self.cuts += 1
                    if self._late is not None:
                        writer.close()
                        await self._late.wait()
                        server[1].write(data)
                        return
                    if not self._reply:
                        return
                    cutting.set()
                if not self.silent:
                    server[1].write(data)

        async def back() -> None:
            while data := await server[0].read(CHUNK):
                if cutting.is_set():
                    return  # the server has done it
                if not self.silent:
                    writer.write(data)

        ways = (asyncio.create_task(forward()), asyncio.create_task(back()))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in both:
                self._writers.discard(end)
                end.close()
