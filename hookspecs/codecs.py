"""What a plugin or package is given to teach a store the types of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

__all__ = ["CodecRegistry", "TeachCodecs"]

K = TypeVar("K", bound=type)


class CodecRegistry(Protocol):
    """Classes whose values can be stored, and the names under which they are."""

    def register(
        self,
        kind: K,
        /,
        *,
        name: str | None = None,
        formerly: Iterable[str] = (),
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> K:
        """Make a class storable.

        Args:
            kind: an Enum, a dataclass, a NamedTuple or a pydantic model; any other class with `encode` and `decode`.
            name: under which its values are stored, for ever. Default: module and name of the class.
            formerly: older names, under which values are read too.
            encode: gives a value that is made of storable ones.
            decode: gives the value back from that.

        Returns:
            The class.

        Raises:
            Exception: the class cannot be stored exactly, or the name belongs to another class.
        """


TeachCodecs = Callable[[CodecRegistry], None]
"""Has everybody register their types: installed packages, and the plugins of a run."""
