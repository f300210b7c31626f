"""Random layers: refused in words where they are made, or finite at every shape."""

import pytest

from tests.fuzz import layers
from tests.fuzz.harness import COMPILING

pytestmark = pytest.mark.fuzz


def test_layers(fuzz):
    fuzz(layers.case, short=15 if COMPILING else 100, **COMPILING)
