"""Every value of a run: read, unpacked, compared with its digest, decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.checking.run_notes import RunNotes
from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import telling_damage
from checkpoint_plugin.database.raw_rows import PAGE, raw
from checkpoint_plugin.errors import BlobsUnusable, StoreDamaged, ValueNotReadable
from checkpoint_plugin.models import PAYLOAD
from checkpoint_plugin.restoring.cut_queries import load_payloads
from checkpoint_plugin.stored_bytes.sealing import Seal

__all__ = ["PayloadCheck"]

BATCH_BYTES: Final = 64 << 20


class PayloadCheck:
    """The check of a run's values.

    Args:
        connection: in a transaction.
        notes: of the run.
        codec: decodes values.
        seal: of the run; without it only what is there is looked at.
        blobs: where large values lie as files.
    """

    def __init__(self, connection: Connection, notes: RunNotes, codec: Codec, seal: Seal | None, blobs: Blobs) -> None:
        self.present: set[bytes] = set()
        self.wrong: set[bytes] = set()
        self._connection = connection
        self._notes = notes
        self._codec = codec
        self._seal = seal
        self._blobs = blobs

    def look(self) -> None:
        """Look at all of them."""
        query = select(raw(PAYLOAD.c.digest), func.length(PAYLOAD.c.body).label("size")).where(
            PAYLOAD.c.run_id == self._notes.run_id
        )
        batch: list[bytes] = []
        size = 0
        for digest, length in self._connection.execute(query.order_by(PAYLOAD.c.digest)).all():
            if type(digest) is not bytes:
                self._notes.note("a payload has no digest")
                continue
            self.present.add(digest)
            batch.append(digest)
            size += length or 0
            if len(batch) >= PAGE or size >= BATCH_BYTES:
                self._look_at_batch(batch)
                batch, size = [], 0
        self._look_at_batch(batch)

    def _look_at_batch(self, batch: Sequence[bytes]) -> None:
        if not batch or self._seal is None:
            return
        try:
            with telling_damage(self._notes.run_id, "a payload"):
                reader = load_payloads(self._connection, self._notes.run_id, batch, self._seal, self._blobs)
        except StoreDamaged as error:
            if len(batch) == 1:
                self.wrong.add(batch[0])
                self._notes.note(f"payload {batch[0].hex()[:16]}: {error.what}")
                return
            half = len(batch) // 2
            self._look_at_batch(batch[:half])
            self._look_at_batch(batch[half:])
            return
        for digest in batch:
            try:
                with telling_damage(self._notes.run_id, "a payload"):
                    self._look_at_payload(reader.data(digest), digest)
            except (MalformedValue, StoreDamaged) as error:
                self.wrong.add(digest)
                self._notes.note(f"payload {digest.hex()[:16]}: {error.what if isinstance(error, StoreDamaged) else error}")
            except BlobsUnusable as error:
                self._notes.leave(str(error))
            except ValueNotReadable as error:
                self._notes.leave(f"values that cannot be read here: {error.why}")

    def _look_at_payload(self, data: bytes | None, digest: bytes) -> None:
        assert self._seal is not None
        if data is None or self._seal.address(data) != digest:
            raise MalformedValue("it was changed")
        self._codec.decode(data)
