"""Random models: refused in words, or verified, and then right."""

import pytest

from tests.fuzz import models

pytestmark = pytest.mark.fuzz


def test_models(fuzz):
    fuzz(models.case, short=40)
