"""Which plugins a run enables, and with which options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from workflow_runner.errors import InputInvalid

__all__ = ["Chosen", "by_name", "enabled", "merge_enable"]

Chosen = dict[str, dict[str, Any] | Literal[False]]


def by_name(enable: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a graph or a caller enables.

    Raises:
        InputInvalid: it is no mapping.
    """
    if enable is not None and not isinstance(enable, Mapping):
        raise InputInvalid(f"enable takes plugins by name, like {{'checkpoint': True}}, not {enable!r}.")
    return enable or {}


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
            raise InputInvalid(f"enable {name!r}: give true, false or an object of options, not {wanted!r}.")
        merged[name] = {} if wanted is True else dict(wanted)
    return merged


def enabled(chosen: Chosen) -> dict[str, Any]:
    """The options of the plugins that are on."""
    return {name: options for name, options in chosen.items() if options is not False}
