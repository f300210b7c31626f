"""The mutations change what they are given, and every one of them is a file of bytes."""

import json

import numpy as np
import pytest

from tests.fuzz.mutations import json_bytes, mutate_bytes, mutate_json

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]
GOOD = {"size": 3, "rate": 0.5, "flag": True, "name": "x", "list": [1, 2], "inner": {"a": [None]}}


def test_most_mutations_change_the_value_and_none_the_original():
    before = json.dumps(GOOD)
    changed = [
        mutate_json(np.random.default_rng(seed), GOOD, ("size", "new")) for seed in range(300)
    ]
    assert json.dumps(GOOD) == before
    assert sum(value != GOOD for value in changed) > 270
    assert sum(isinstance(value, dict) and value.keys() == GOOD.keys() for value in changed) > 100


def test_mutations_repeat_by_their_seed():
    first, second = ([json_bytes(np.random.default_rng(s), GOOD) for s in range(99)] for _ in "ab")
    assert first == second


def test_bytes_are_damaged():
    data = json.dumps(GOOD).encode()
    damaged = [mutate_bytes(np.random.default_rng(seed), data) for seed in range(100)]
    assert sum(other != data for other in damaged) > 90
