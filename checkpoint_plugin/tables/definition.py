"""What a run was started with, as its row keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.codec.shapes import type_name
from checkpoint_plugin.errors import ValueNotStorable
from checkpoint_plugin.policy import NAME
from hookspecs import GraphColumns, RunInfo, TaggedValueError, to_tagged

__all__ = [
    "INDEXED_BYTES",
    "Definition",
    "check_node_id",
    "check_run_id",
    "define",
    "graph_of",
    "is_storable_text",
    "json_text",
    "storable_text",
]

INDEXED_BYTES: Final = 1_000
"""Of an id. PostgreSQL indexes at most 2,700 bytes, and a node is found by its run's id, its own, and a number."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a run was started with, as bytes, and the JSON that people read."""

    body: bytes
    graph: str
    params: str


def define(run: RunInfo, codec: Codec | None = None) -> Definition:
    """What a resume of the run needs, encoded; urls, which may hold a password, are left out, and folders are absolute.

    Args:
        run: the run.
        codec: encodes its values; default: without types of plugins.

    Raises:
        ValueNotStorable: an id, an input or a property cannot be stored.
    """
    codec = codec or Codec()
    _check_ids(run)
    enable = {name: _kept(options) if name == NAME else dict(options) for name, options in run.enable.items()}
    columns = GraphColumns.of(run.graph)
    graph = {"graph": dict(run.graph)} if columns is None else {"columns": columns.stored()}
    parts = {**graph, "inputs": dict(run.inputs), "enable": enable}
    try:
        body = codec.encode(parts, _place(f"run {run.run_id!r}, definition"))
    except ValueNotStorable:
        _name_culprit(run, codec)
        raise
    return Definition(body, _json(run.graph) if columns is None else _graph_json(run.graph, columns), _json(run.inputs))


def graph_of(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The graph of a definition that was decoded: by column, or, before layout 7 and by hand, the document as it is.

    Args:
        found: what was decoded.

    Raises:
        MalformedValue: there is none.
    """
    if "columns" not in found:
        graph = found.get("graph")
        if type(graph) is not dict:
            raise MalformedValue("it has no graph")
        return graph
    try:
        return GraphColumns.read(found["columns"])
    except ValueError as error:
        raise MalformedValue(str(error)) from error


def _check_ids(run: RunInfo) -> None:
    where = f"run {run.run_id!r}"
    nodes, edges = run.graph.get("nodes", ()), run.graph.get("edges", ())
    ids = [run.run_id, *(node["id"] for node in nodes), *(edge.get("id", "") for edge in edges)]
    if "".join(ids).isprintable() and max(map(len, ids)) <= INDEXED_BYTES // 4:
        return  # nearly all are so, and are not looked at one by one
    _check_id(where, run.run_id)
    for node in nodes:
        _check_id(f"{where}, node id {node['id']!r}", node["id"], INDEXED_BYTES)
    for edge in edges:
        _check_id(f"{where}, edge id {edge.get('id')!r}", edge.get("id", ""))


def _name_culprit(run: RunInfo, codec: Codec) -> None:
    """Raise the error that names the input or the property that cannot be stored, if it is one."""
    where = f"run {run.run_id!r}"
    for name, value in run.inputs.items():
        codec.encode(value, _place(f"{where}, input {name!r}"))
    for node in run.graph.get("nodes", ()):
        for key, value in node["data"].items():
            codec.encode(value, _place(f"{where}, node {node['id']!r}, property {key!r}"))


def is_storable_text(text: str) -> bool:
    """Whether every database takes the text as it is."""
    return storable_text(text) == text


def check_run_id(run_id: object) -> None:
    """Refuse an id of a run that some database does not keep.

    Args:
        run_id: as a caller gave it.

    Raises:
        ValueError: it is no text, empty, or longer than an index takes.
    """
    if not isinstance(run_id, str) or not run_id or not is_storable_text(run_id):
        raise ValueError(f"a run id is text of at least one character that databases keep, not {run_id!r}. Give the run one.")
    if len(run_id.encode()) > INDEXED_BYTES:
        raise ValueError(f"run id {run_id[:20]!r}… is longer than {INDEXED_BYTES} bytes. Shorten it.")


def check_node_id(run_id: str, node_id: object) -> None:
    """Refuse an id of a node that some database does not keep.

    Args:
        run_id: the run, for the error.
        node_id: as a caller gave it.

    Raises:
        ValueNotStorable: it is no text, empty, or longer than an index takes.
    """
    if not isinstance(node_id, str) or not node_id or not is_storable_text(node_id):
        raise ValueNotStorable(f"run {run_id!r}, node id {node_id!r}", "it is no text that databases keep. Rename it.")
    if len(node_id.encode()) > INDEXED_BYTES:
        place = f"run {run_id!r}, node id {node_id[:20]!r}…"
        raise ValueNotStorable(place, f"it is longer than {INDEXED_BYTES} bytes. Shorten it.")


def storable_text(text: str) -> str:
    """Text as every database takes it: lone surrogates and NUL escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    """Our own options as a resume takes them: from whatever folder, its witness is the same."""
    kept = {name: value for name, value in options.items() if not _is_url(name, value)}
    if isinstance(folder := kept.get("witness"), str):
        kept["witness"] = str(Path(folder).absolute())
    return kept


def _is_url(option: str, value: Any) -> bool:
    return option == "url" or (option == "blobs" and isinstance(value, str))


def _json(value: Any) -> str:
    return json_text(_shown(value))


def json_text(document: Any) -> str:
    """JSON for people of what `to_tagged` gave. `json` takes three times as long as what pydantic brings."""
    try:
        return to_json(document).decode()
    except PydanticSerializationError:  # a lone surrogate, which UTF-8 has not
        return json.dumps(document, allow_nan=False)


def _graph_json(graph: Mapping[str, Any], columns: GraphColumns) -> str:
    """As `_json`, which looks at every value, where most are ids and the like."""
    told = columns.told
    nodes = [_shown_node(node) if place in told else node for place, node in enumerate(graph["nodes"])]
    return json_text({"nodes": nodes, "edges": graph["edges"], **_shown(columns.other)})


def _shown_node(node: Mapping[str, Any]) -> Any:
    return _shown(node) if "failure" in node else {**node, "data": _shown(node["data"])}


def _shown(value: Any) -> Any:
    """Tagged JSON for people; a value of a type that has none is shown by the name of its type."""
    try:
        return to_tagged(value)
    except TaggedValueError:
        if type(value) is list:
            return [_shown(item) for item in value]
        if isinstance(value, Mapping) and all(type(key) is str for key in value):
            return {key: _shown(item) for key, item in value.items()}
        return {"$type": type_name(type(value))}


def _check_id(place: str, found: Any, limit: int | None = None) -> None:
    if not is_storable_text(found):
        raise ValueNotStorable(place, "it holds NUL or a lone surrogate, which databases do not keep in text. Rename it.")
    if limit is not None and len(found.encode()) > limit:
        raise ValueNotStorable(place, f"it is longer than {limit} bytes. Shorten it.")


def _place(text: str) -> Callable[[], str]:
    return lambda: text
