"""The types that users and plugins teach the codec, by class for encoding and by name for decoding.

A stored name is only ever looked up here: what is not in the registry is an error, never an import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, overload

from checkpoint_plugin.codec.leaves import ENCODERS
from checkpoint_plugin.codec.shapes import RegisteredType, TypeRefused, shape_of, type_name

__all__ = ["REGISTERED", "TypeRegistry", "register"]

K = TypeVar("K", bound=type)
NAME_LENGTH: Final = 200
BUILT_IN: Final = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set, frozenset, *ENCODERS})


class TypeRegistry:
    """Registered types.

    Args:
        parent: is asked for what is not found here.
    """

    def __init__(self, parent: TypeRegistry | None = None) -> None:
        self._parent = parent
        self._by_type: dict[type, RegisteredType] = {}
        self._by_name: dict[str, RegisteredType] = {}

    @overload
    def register(self, kind: K, /) -> K: ...

    @overload
    def register(
        self,
        kind: K,
        /,
        *,
        name: str | None = None,
        formerly: Iterable[str] = (),
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> K: ...

    @overload
    def register(
        self,
        kind: None = None,
        /,
        *,
        name: str | None = None,
        formerly: Iterable[str] = (),
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> Callable[[K], K]: ...

    def register(
        self,
        kind: Any = None,
        /,
        *,
        name: str | None = None,
        formerly: Iterable[str] = (),
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Make a type storable; also as a decorator, with or without arguments.

        Args:
            kind: an Enum, a dataclass, a NamedTuple or a pydantic model; any other class with `encode` and `decode`.
            name: under which its values are stored, for ever. Default: module and name of the class, where a script
                and a file of nodes go by their file's name.
            formerly: older names, under which values are read too.
            encode: gives a value that is made of storable ones.
            decode: gives the value back from that; it must be of exactly this class.

        Returns:
            The class.

        Raises:
            TypeRefused: the class cannot be stored exactly, the name belongs to another class, or `formerly` is one text.
        """
        if kind is None:
            return lambda decorated: self.register(decorated, name=name, formerly=formerly, encode=encode, decode=decode)
        if not isinstance(kind, type):
            raise TypeRefused(f"{kind!r} is not a class. Register the class of the values.")
        if kind in BUILT_IN:
            raise TypeRefused(f"{type_name(kind)} can be stored already. Register classes of your own.")
        if isinstance(formerly, str):
            raise TypeRefused(f"formerly is a list of names, not the text {formerly!r}. Give formerly=[{formerly!r}].")
        chosen = _default_name(kind) if name is None else name
        entry = RegisteredType(kind, chosen, shape_of(kind, encode, decode), checked=encode is not None)
        names = (chosen, *formerly)
        for each in names:
            self._check_name(each, kind)
        self._by_type[kind] = entry
        for each in names:
            self._by_name[each] = entry
        return kind

    def of(self, kind: type) -> RegisteredType | None:
        """How values of exactly this class are stored; `None` when it is not registered, or its name is another's now."""
        entry = self._by_type.get(kind)
        if entry is None:
            return None if self._parent is None else self._owned(self._parent.of(kind))
        return self._owned(entry)

    def named(self, name: str) -> RegisteredType | None:
        """What is stored under a name."""
        entry = self._by_name.get(name)
        return self._parent.named(name) if entry is None and self._parent is not None else entry

    def _owned(self, entry: RegisteredType | None) -> RegisteredType | None:
        """The entry, if what it writes would come back as its own class."""
        if entry is None:
            return None
        found = self.named(entry.name)
        return entry if found is not None and found.kind is entry.kind else None

    def _check_name(self, name: str, kind: type) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
            raise TypeRefused(f"{kind.__qualname__}: a name has 1 to {NAME_LENGTH} printable characters, not {name!r}.")
        owner = self._by_name.get(name)
        # A module that is loaded again (a reload, a notebook's cell) defines its classes again: the newer one stands.
        if owner is not None and owner.kind is not kind and _default_name(owner.kind) != _default_name(kind):
            raise TypeRefused(
                f"the name {name!r} belongs to {owner.kind.__module__}.{owner.kind.__qualname__}, so "
                f"{kind.__module__}.{kind.__qualname__} cannot have it. Register one of them with another name=…"
            )


def _default_name(kind: type) -> str:
    """Module and name; the name of a file is the same however it is loaded: run, imported, or given with `--nodes`."""
    module = sys.modules.get(kind.__module__)
    known: object = getattr(module, "__workflow_name__", None)
    if known is None and kind.__module__ in ("__main__", "__mp_main__"):  # the second in a process that was spawned
        spec = getattr(module, "__spec__", None)
        file = getattr(module, "__file__", None)
        if spec is not None:
            known = spec.name
        elif isinstance(file, str):
            known = file.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    return f"{known if isinstance(known, str) else kind.__module__}.{kind.__qualname__}"


REGISTERED: Final = TypeRegistry()
"""What modules register when they are imported: as lasting as the classes themselves, for every store of the process."""

register: Final = REGISTERED.register
