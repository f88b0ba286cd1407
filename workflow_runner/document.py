"""A graph's document, of which every problem is told at once, and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hookspecs import TaggedValueError, from_tagged, shorten, to_tagged
from workflow_runner.errors import GraphInvalid
from workflow_runner.failure import ON_FAILURE, OnFailure
from workflow_runner.specs import SYNC_MODES, EdgeSpec, NodeSpec

__all__ = ["TAGGED", "read_document", "tag_document", "write_document"]

TAGGED: Final = "tagged"
"""The key that says that values which JSON lacks are written as tagged JSON; without it all are what they look like."""


def read_document(document: Any) -> tuple[Sequence[NodeSpec], Sequence[EdgeSpec], Mapping[str, Any], OnFailure | None]:
    """The nodes, the edges, what is enabled, and what a failure ends, as a document tells.

    Raises:
        GraphInvalid: it does not have the form of one; every problem is listed.
    """
    problems: list[str] = []
    if isinstance(document, Mapping):
        document = _untagged(document, problems)
    if not isinstance(document, Mapping):
        raise GraphInvalid([f"a graph is an object with nodes and edges, not {type(document).__name__}."])
    nodes = [_node(item, place, problems) for place, item in enumerate(_list(document, "nodes", problems))]
    edges = [_edge(item, place, problems) for place, item in enumerate(_list(document, "edges", problems))]
    enable = {} if document.get("enable") is None else document["enable"]
    if not isinstance(enable, Mapping):
        problems.append('"enable" is an object of plugin names, like {"checkpoint": true}.')
    if "nodes" not in document:
        problems.append('a graph needs "nodes".')
    on_failure = document.get("on_failure")
    if on_failure is not None and on_failure not in ON_FAILURE:
        problems.append(f'"on_failure" is one of {", ".join(ON_FAILURE)}, not {shorten(on_failure)}.')
    if problems:
        raise GraphInvalid(problems)
    return [node for node in nodes if node], [edge for edge in edges if edge], enable, on_failure


def tag_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document in forms that JSON has; where they are not the values themselves, it says that they are tagged.

    Raises:
        TaggedValueError: a value has no such form.
    """
    tagged: dict[str, Any] = to_tagged(document)
    return tagged if tagged == document else {TAGGED: True, **tagged}


def write_document(
    nodes: Sequence[NodeSpec], edges: Sequence[EdgeSpec], enable: Mapping[str, Any], on_failure: OnFailure | None
) -> dict[str, Any]:
    """The document that `read_document` reads back, with Python values in `data`."""
    return {
        "nodes": [
            {
                "id": node.id,
                "type": node.type,
                "data": dict(node.data),
                "sync_mode": node.sync_mode,
                **({"failure": dict(node.failure)} if node.failure else {}),
                **({"lanes": node.lanes} if node.has_lanes else {}),
            }
            for node in nodes
        ],
        "edges": [
            {
                **({} if edge.id is None else {"id": edge.id}),
                "source": edge.source,
                "sourceHandle": edge.source_handle,
                "target": edge.target,
                "targetHandle": edge.target_handle,
            }
            for edge in edges
        ],
        **({"enable": enable} if enable else {}),
        **({"on_failure": on_failure} if on_failure is not None else {}),
    }


def _untagged(document: Mapping[str, Any], problems: list[str]) -> Any:
    """The values of a document that says that they are tagged; it may be a value of another type itself."""
    tagged = document.get(TAGGED)
    if tagged is not None and type(tagged) is not bool:
        problems.append(f'"{TAGGED}" is true or false, not {shorten(tagged)}.')
    if tagged is not True:
        return document
    try:
        return from_tagged({key: value for key, value in document.items() if key != TAGGED})
    except TaggedValueError as error:
        problems.append(str(error))
        return {"nodes": []}


def _list(document: Mapping[str, Any], key: str, problems: list[str]) -> Sequence[Any]:
    found = document.get(key, [])
    if isinstance(found, list):
        return found
    problems.append(f'"{key}" is a list, not {type(found).__name__}.')
    return []


def _text(item: Mapping[str, Any], key: str, what: str, problems: list[str], default: str | None = None) -> str:
    found = item.get(key)
    if found is None:
        found = default
    if isinstance(found, str) and found:
        return found
    problems.append(f'{what}: "{key}" is text and needed, found {shorten(found)}.')
    return ""


def _node(item: Any, place: int, problems: list[str]) -> NodeSpec | None:
    if not isinstance(item, Mapping):
        problems.append(f"nodes[{place}] is an object with id and type, not {type(item).__name__}.")
        return None
    what = f"node {item['id']!r}" if isinstance(item.get("id"), str) else f"nodes[{place}]"
    data = item.get("data")
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        problems.append(f'{what}: "data" is an object of properties, not {type(data).__name__}.')
        data = {}
    mode: Any = item.get("sync_mode")
    if mode is None:
        mode = "on_any"
    if mode not in SYNC_MODES:
        problems.append(f"{what}: sync_mode {shorten(mode)} is unknown. It is one of {', '.join(SYNC_MODES)}.")
    failure = item.get("failure")
    if not isinstance(failure, Mapping | None):
        problems.append(f'{what}: "failure" is an object like {{"retries": 3}}, not {type(failure).__name__}.')
        failure = None
    lanes = 1 if item.get("lanes") is None else item["lanes"]
    node_id, type_name = _text(item, "id", f"nodes[{place}]", problems), _text(item, "type", what, problems)
    return NodeSpec(node_id, type_name, dict(data), mode, dict(failure or {}), lanes)


def _edge(item: Any, place: int, problems: list[str]) -> EdgeSpec | None:
    if not isinstance(item, Mapping):
        problems.append(f"edges[{place}] is an object with source, target and targetHandle, not {type(item).__name__}.")
        return None
    edge_id = item.get("id")
    if edge_id is not None and not (isinstance(edge_id, str) and edge_id):
        problems.append(f'edges[{place}]: "id" is text, found {shorten(edge_id)}.')
    what = f"edge {edge_id!r}" if isinstance(edge_id, str) else f"edges[{place}]"
    return EdgeSpec(
        _text(item, "source", what, problems),
        _text(item, "sourceHandle", what, problems, "output"),
        _text(item, "target", what, problems),
        _text(item, "targetHandle", what, problems),
        edge_id,
    )
