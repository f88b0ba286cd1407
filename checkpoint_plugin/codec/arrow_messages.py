"""Messages of Arrow's stream format, looked at before they are read: a few bytes must not become gigabytes.

Arrow unpacks compressed buffers as it reads them, to whatever size they claim, and nothing of its Python tells beforehand. We
write none, so a message that has some is somebody else's.
"""

from __future__ import annotations

from struct import error as StructError
from struct import unpack_from
from typing import Any, Final

from pyarrow import ipc

__all__ = ["refuse_compressed"]

VERSIONS: Final = (ipc.MetadataVersion.V4, ipc.MetadataVersion.V5)
"""Arrow writes the former where `ARROW_PRE_1_0_METADATA_VERSION` is set."""
HEADER_TYPE, HEADER, METADATA = 1, 2, 4
"""Fields of a message, as the schema of the format (`Message.fbs`) numbers them."""
DICTIONARY, BATCH = 2, 3
"""Types of headers that have buffers."""
DICTIONARY_DATA: Final = 1
"""The field of a dictionary that is a batch."""
COMPRESSION: Final = 3
"""The field of a batch."""


def refuse_compressed(stream: Any) -> None:
    """Look at the messages of a stream.

    Args:
        stream: a buffer of Arrow.

    Raises:
        ValueError: one is compressed, or cannot be looked at.
    """
    for message in ipc.MessageReader.open_stream(stream):
        if message.metadata_version not in VERSIONS or _is_compressed(message.metadata.to_pybytes()):
            raise ValueError("a table is compressed, or of an old version, and none of ours is")


def _is_compressed(data: bytes) -> bool:
    try:
        message = _pointed(data, 0)
        if _field(data, message, METADATA) is not None:  # version 4 could name a compression there, too; ours have none
            return True
        kind, header = _field(data, message, HEADER_TYPE), _field(data, message, HEADER)
        if kind is None or header is None or data[kind] not in (DICTIONARY, BATCH):
            return False
        batch: int | None = _pointed(data, header)
        if data[kind] == DICTIONARY and batch is not None:
            inner = _field(data, batch, DICTIONARY_DATA)
            batch = None if inner is None else _pointed(data, inner)
        return batch is not None and _field(data, batch, COMPRESSION) is not None
    except (StructError, IndexError) as error:
        raise ValueError(f"a message of a table cannot be read ({error})") from error


def _pointed(data: bytes, place: int) -> int:
    """Where what a place points to begins."""
    return place + int(unpack_from("<I", data, place)[0])


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where a field of a table stands, as FlatBuffers lays it out: the table begins with the way back to its list of fields."""
    fields = table - int(unpack_from("<i", data, table)[0])
    entry = fields + 4 + 2 * number
    if entry + 2 > fields + unpack_from("<H", data, fields)[0]:
        return None
    offset = int(unpack_from("<H", data, entry)[0])
    return table + offset if offset else None
