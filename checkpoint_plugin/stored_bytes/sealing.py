"""What happens to bytes on their way into the store and back: nothing, or encryption (`encryption.Cipher`)."""

from __future__ import annotations

from typing import Final, Protocol

from checkpoint_plugin.stored_bytes.digests import digest_of, number_bytes, text_bytes

__all__ = ["PLAIN", "SEALED_TEXT", "Plain", "Seal", "items_place", "node_place", "payload_place", "series_place"]

SEALED_TEXT: Final = "aes:"
"""How text begins that was encrypted."""


class Seal(Protocol):
    """How the bytes of one run are stored."""

    def address(self, data: bytes) -> bytes:
        """The digest under which a value is stored."""

    def bind(self, data: bytes) -> bytes:
        """A digest of what belongs together; where there is a key, only who has it can make one, and none is an address."""

    def seal(self, data: bytes, *where: bytes) -> bytes:
        """The bytes as they are stored.

        Args:
            data: the bytes.
            where: what they are and where they stand; they cannot be opened anywhere else.
        """

    def open(self, data: bytes, *where: bytes) -> bytes:
        """What `seal` was given.

        Raises:
            MalformedValue: these bytes were not sealed with the run's key for this place.
        """

    def seal_text(self, text: str) -> str:
        """A text of people, like an error, as it is stored."""

    def open_text(self, text: str) -> str:
        """What `seal_text` was given."""


class Plain:
    """Stores bytes as they are."""

    def address(self, data: bytes) -> bytes:
        return digest_of(data)

    def bind(self, data: bytes) -> bytes:
        return digest_of(data)

    def seal(self, data: bytes, *where: bytes) -> bytes:
        return data

    def open(self, data: bytes, *where: bytes) -> bytes:
        return data

    def seal_text(self, text: str) -> str:
        return text

    def open_text(self, text: str) -> str:
        return text


PLAIN: Final[Seal] = Plain()


def node_place(node_id: str, number: int) -> tuple[bytes, ...]:
    """Where a node's row stands."""
    return b"node", text_bytes(node_id), number_bytes(number)


def completed_place(number: int) -> tuple[bytes, ...]:
    """Where a block of completed nodes stands."""
    return b"completed", number_bytes(number)


def items_place(node_id: str, log: int, first: int) -> tuple[bytes, ...]:
    """Where a segment of an output stands."""
    return b"items", text_bytes(node_id), number_bytes(log), number_bytes(first)


def payload_place(digest: bytes) -> tuple[bytes, ...]:
    """Where a payload stands."""
    return b"payload", digest


def series_place(series: int, start: int) -> tuple[bytes, ...]:
    """Where a part of a series stands."""
    return b"series", number_bytes(series), number_bytes(start)
