"""Random models: refused in words, or verified, and then right."""

import pytest

from tests.fuzz import models
from tests.fuzz.harness import COMPILING

pytestmark = pytest.mark.fuzz


def test_models(fuzz):
    fuzz(models.case, short=3 if COMPILING else 40, **COMPILING)
