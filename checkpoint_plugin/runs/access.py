"""The store that a part works on: an open one of the caller, or one that is open only while it is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checkpoint_plugin.codec import Codec
    from checkpoint_plugin.store import Store

__all__ = ["StoreAccess"]


class StoreAccess:
    """Opens the store for a call and closes it after, so that a part without an end of its own leaves nothing open.

    Args:
        url: of the store; `None` for the default. Nothing is opened, or looked at, before it is needed.
        store: an open one instead; its owner closes it.
    """

    def __init__(self, url: str | None, store: Store | None) -> None:
        self._url = url
        self._given = store
        self._held: Store | None = None
        self._codec: Codec | None = None

    @property
    def codec(self) -> Codec:
        """How values are written and read; made once, for it looks for installed packages."""
        kept = self._given or self._held
        if kept is not None:
            return kept.codec
        if self._codec is None:
            from checkpoint_plugin.codec import Codec

            self._codec = Codec.taught()
        return self._codec

    @asynccontextmanager
    async def open(self, *, create: bool) -> AsyncIterator[Store]:
        """The store, for the body of the statement.

        Args:
            create: make it where there is none.

        Raises:
            StoreUrlInvalid: the url names no store.
            StoreMissing: there is none, and `create` is off.
        """
        kept = self._given or self._held
        if kept is not None:
            yield kept
            return
        store = self._make(create)
        try:
            yield store
        finally:
            await store.close()

    def hold(self, *, create: bool) -> Store:
        """Keep the store open from now on; harmless when it is."""
        kept = self._given or self._held
        if kept is None:
            kept = self._held = self._make(create)
        return kept

    async def close(self) -> None:
        """Close what `hold` keeps open."""
        held, self._held = self._held, None
        if held is not None:
            await held.close()

    def _make(self, create: bool) -> Store:
        from checkpoint_plugin.blobs.files import Blobs
        from checkpoint_plugin.database.location import locate
        from checkpoint_plugin.opening.connections import Connections
        from checkpoint_plugin.store import Store
        from checkpoint_plugin.stored_bytes.encryption import KeyRing

        location = locate(self._url)
        ring, blobs = KeyRing.from_environment(), Blobs(location)  # first: what is refused here takes no connections
        connections = Connections.share(location, create=create)
        return Store(location, create=create, codec=self._codec, ring=ring, blobs=blobs, connections=connections)
