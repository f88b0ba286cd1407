"""The names of edges without an id."""

from __future__ import annotations

from typing import Any

import pytest

from hookspecs import name_edges


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ([], []),
        ([None, None], ["e0", "e1"]),
        (["x", None, "y"], ["x", "e1", "y"]),
        (["e1", None], ["e1", "e1'"]),
        (["e1", None, "e1'"], ["e1", "e1''", "e1'"]),
        (["e1'", None], ["e1'", "e1"]),
        (["", 5, ["e2"]], ["e0", "e1", "e2"]),
    ],
)
def test_a_name_is_the_id_or_by_the_place_and_never_that_of_another(ids: list[Any], names: list[str]) -> None:
    edges = [{} if edge_id is None else {"id": edge_id} for edge_id in ids]
    assert name_edges(edges) == names
    assert name_edges([{"id": edge_id} for edge_id in ids]) == names
