"""A handle: one named input of a node type."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import InitVar, dataclass, field
from typing import Any, Final, get_origin

from workflow_runner.checker import (
    Checker,
    Mismatch,
    describe,
    is_list,
    make_adapter,
    make_checker,
    make_deep_checker,
    only_class,
)

__all__ = ["MADE", "REQUIRED", "Handle"]


class _Required:
    def __repr__(self) -> str:
        return "required"


class _Made:
    def __repr__(self) -> str:
        return "made anew"


REQUIRED: Final = _Required()
MADE: Final = _Made()
ITERATED: Final = (AsyncIterable, AsyncIterator, AsyncGenerator)


@dataclass(frozen=True, slots=True)
class Handle:
    """One input of a node type.

    Args:
        name: as in the graph.
        annotation: what an item must be; for a stream, one item of it.
        stream: whether the body reads it as a `Stream`.
        default: used when neither an edge nor a property gives a value; `REQUIRED` when there is none, `MADE` when the class
            makes one for each of its instances.
        collects: whether several edges may end here, one value of each making a list.
        alone: whether it takes a single edge, also where it is a list.
        check: the check by type, `None` when everything fits.
        exact: a class whose own instances fit; `None` where they have to be looked at.
    """

    name: str
    annotation: Any
    stream: bool
    default: Any = REQUIRED
    alone: InitVar[bool] = False
    collects: bool = field(init=False)
    check: Checker | None = field(init=False)
    exact: type | None = field(init=False)
    _converter: Any = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self, alone: bool) -> None:
        object.__setattr__(self, "collects", not (alone or self.stream) and is_list(self.annotation))
        object.__setattr__(self, "check", make_checker(self.annotation))
        object.__setattr__(self, "exact", only_class(self.annotation))

    @property
    def required(self) -> bool:
        """Whether a graph must give it a value."""
        return self.default is REQUIRED

    @property
    def expected(self) -> str:
        """The annotation, for people."""
        return describe(self.annotation)

    def mend(self, item: object) -> str:
        """What to do where an item does not fit."""
        if self.collects and not isinstance(item, list):
            return "One edge brings the list itself, only several make one of a value each. Send one, or change the annotation."
        if get_origin(self.annotation) in ITERATED:
            return "A body that reads the items of an edge takes a Stream[...]. Change the annotation."
        kind = type(item)  # not the class itself, in which something else was found that does not fit
        if self.exact is not None and self.exact is not kind and self.exact.__name__ == kind.__name__:
            return (
                "It is of another class of that name: its module was loaded twice, or its cell run again. Load it once (for a"
                " file that others import, give --nodes the name of the module), or define this node again, too."
            )
        if isinstance(item, (list, tuple)) and item and self.fits(item[0]) and not self.fits(item):
            return "A list is one item: to work on what is in it, put a `workflow.Each` before this node (`graph.each`)."
        return "Change what is sent there, or the annotation."

    def fits(self, item: object) -> bool:
        """Whether an item fits by its type."""
        if self.check is not None:
            try:
                self.check(item)
            except Mismatch:
                return False
        return True

    @property
    def converter(self) -> Any:
        """pydantic's `TypeAdapter` of the annotation, made for the first property of this handle: every run plans anew.

        Raises:
            AnnotationUnusable: there is none.
        """
        if self._converter is None:
            object.__setattr__(self, "_converter", make_adapter(self.annotation))
        return self._converter

    def deep_check(self) -> Checker | None:
        """The check all the way down, made anew."""
        return make_deep_checker(self.annotation)
