"""What crosses the hooks of a save."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from itertools import product
from typing import Any

import pytest

from hookspecs import EdgeDraft, EdgeSnapshot, NodeDraft, NodeSnapshot, Prefix

BOUNDS = (None, -9, -3, -1, 0, 1, 3, 5, 9)


def test_a_prefix_is_sliced_as_the_list_that_it_shows() -> None:
    source = [10, 11, 12, 13, 14]
    prefix = Prefix(source)
    source.extend([15, 16])
    shown = source[:5]
    for start, stop, step in product(BOUNDS, BOUNDS, (None, 1, 2, -1, -2)):
        assert prefix[start:stop:step] == shown[start:stop:step], (start, stop, step)
    assert [prefix[place] for place in range(-5, 5)] == [shown[place] for place in range(-5, 5)]
    for outside in (-6, 5, 6):
        with pytest.raises(IndexError):
            prefix[outside]


@pytest.mark.parametrize(("kind", "draft"), [(NodeSnapshot, NodeDraft()), (EdgeSnapshot, EdgeDraft())])
def test_a_draft_becomes_what_the_frozen_class_would_have_made(kind: Any, draft: Any) -> None:
    values = {field.name: object() for field in fields(kind)}
    for name, value in values.items():
        setattr(draft, name, value)
    made = draft.frozen()
    assert type(made) is kind
    assert {name: getattr(made, name) for name in values} == values
    with pytest.raises(FrozenInstanceError):
        setattr(made, next(iter(values)), None)


def test_a_draft_has_the_fields_of_its_snapshot_alone() -> None:
    with pytest.raises(AttributeError):
        NodeDraft().stat = "idle"
