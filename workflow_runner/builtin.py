"""The built-in node types: what goes into a run, what comes out, what only a person looks at, and what moves items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from workflow_runner.handle import REQUIRED, Handle
from workflow_runner.nodetype import NodeType, Role

__all__ = ["BUILTIN_TYPES", "COLLECT", "EACH", "GATHER", "INPUT", "OUTPUT", "SPREAD"]

INPUT: Final = "workflow.Input"
OUTPUT: Final = "workflow.Output"
EACH: Final = "workflow.Each"
COLLECT: Final = "workflow.Collect"
SPREAD: Final = "workflow.Spread"
GATHER: Final = "workflow.Gather"
LISTED: Final = list[Any] | tuple[Any, ...]
"""What is taken apart: a text has letters, and a set no order."""


async def _give_value(arguments: Mapping[str, Any], context: Any) -> Any:
    return arguments["value"]


def _builtin(name: str, role: Role, handles: tuple[Handle, ...], outputs: tuple[str, ...] = ()) -> NodeType:
    return NodeType(
        name=name,
        handles={handle.name: handle for handle in handles},
        outputs=outputs,
        kind="coroutine",
        call=_give_value,
        stateless=False,
        definition=None,
        role=role,
    )


BUILTIN_TYPES: Final[Mapping[str, NodeType]] = {
    INPUT: _builtin(
        INPUT, "input", (Handle("name", str | None, False, None), Handle("value", Any, False, REQUIRED)), ("output",)
    ),
    OUTPUT: _builtin(OUTPUT, "output", (Handle("name", str | None, False, None), Handle("value", Any, False, REQUIRED))),
    EACH: _builtin(EACH, "each", (Handle("items", LISTED, False, REQUIRED, alone=True),), ("output",)),
    COLLECT: _builtin(COLLECT, "collect", (Handle("items", Any, False, REQUIRED),), ("output",)),
    "workflow.Preview": _builtin("workflow.Preview", "preview", (Handle("value", Any, False, None),)),
    "workflow.Comment": _builtin("workflow.Comment", "comment", ()),
    SPREAD: _builtin(SPREAD, "spread", (Handle("items", Any, False, REQUIRED),), ("output", "order")),
    GATHER: _builtin(
        GATHER, "gather", (Handle("items", list[Any], False, REQUIRED), Handle("order", int, False, REQUIRED)), ("output",)
    ),
}
