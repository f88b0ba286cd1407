"""What crosses the hooks of a save."""

from __future__ import annotations

from itertools import product

import pytest

from hookspecs import Prefix

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
