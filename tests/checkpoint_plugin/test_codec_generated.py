"""Values of every kind: equal and of the same type after the round trip, or refused before anything is written.

How many is the option `--values`.
"""

from __future__ import annotations

import random

import pytest

from checkpoint_plugin.codec import Codec
from checkpoint_plugin.errors import ValueNotStorable
from tests.checkpoint_plugin.values import Values, alike, make_registry

CODEC = Codec(make_registry())
# A set may compare a half float with a number that is too large for one.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")


def place() -> str:
    return "outputs"


def test_values_come_back(request: pytest.FixtureRequest) -> None:
    seed = random.SystemRandom().randrange(2**32)
    values = Values(seed)
    for number in range(request.config.getoption("--values")):
        value = values.make()
        data = CODEC.encode(value, place)
        back = CODEC.decode(data)
        assert alike(back, value), f"seed {seed}, value {number}: {value!r} came back as {back!r}"
        assert CODEC.encode(back, place) == data, f"seed {seed}, value {number}: {value!r}"


def test_with_strange_parts_they_come_back_or_are_refused_with_a_path() -> None:
    seed = random.SystemRandom().randrange(2**32)
    values = Values(seed, strange=0.1)
    refused: list[str] = []
    for number in range(1_000):
        value = values.make()
        try:
            data = CODEC.encode(value, place)
        except ValueNotStorable as error:
            refused.append(error.place)
            continue
        assert alike(CODEC.decode(data), value), f"seed {seed}, value {number}: {value!r}"
    assert 0 < len(refused) < 1_000, f"seed {seed}"
    assert all(path.startswith("outputs") for path in refused), f"seed {seed}"
