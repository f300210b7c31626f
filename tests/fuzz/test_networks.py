"""Random networks of pictures and tables: refused in words, or right without verification."""

import pytest

from tests.fuzz import networks
from tests.fuzz.harness import COMPILING

pytestmark = pytest.mark.fuzz


def test_networks(fuzz):
    fuzz(networks.case, short=2 if COMPILING else 40, **COMPILING)
