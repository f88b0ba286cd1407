"""Which plugins a run enables, with which options, and what else a caller gives by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from hookspecs import shorten
from workflow_runner.errors import InputInvalid

__all__ = ["Chosen", "by_name", "enabled", "merge_enable"]

Chosen = dict[str, dict[str, Any] | Literal[False]]


EXAMPLES: Final = {
    "enable": "plugins by name, like {'checkpoint': True}",
    "inputs": "values by name, like {'count': 3}",
    "updates": "answers by node, like {'approve': True}",
    "since": "times by node, like {'approve': result.suspensions['approve'].since}",
}


def by_name(given: Mapping[str, Any] | None, argument: str = "enable") -> Mapping[str, Any]:
    """What a graph enables, or a caller gives for an argument.

    Raises:
        InputInvalid: it is no mapping.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InputInvalid(f"{argument} takes {EXAMPLES[argument]}, not {shorten(given)}.")
    return given or {}


def merge_enable(document: Mapping[str, Any], given: Mapping[str, Any]) -> Chosen:
    """The options of every plugin that is named, `False` for off: those of the graph and of the caller, who wins."""
    merged: Chosen = {}
    for name in {**document, **given}:
        own, wanted = document.get(name), given.get(name, document.get(name))
        if wanted is True and isinstance(own, Mapping):
            wanted = own
        if wanted is None or wanted is False:
            merged[name] = False
            continue
        if wanted is not True and not isinstance(wanted, Mapping):
            raise InputInvalid(f"enable {name!r}: give true, false or an object of options, not {shorten(wanted)}.")
        merged[name] = {} if wanted is True else dict(wanted)
    return merged


def enabled(chosen: Chosen) -> dict[str, Any]:
    """The options of the plugins that are on."""
    return {name: options for name, options in chosen.items() if options is not False}
