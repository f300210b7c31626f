"""Bundles of strangers: each is used, or refused in one line, soon and in little memory."""

import pytest

from tests.fuzz import bundles

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]


def test_bundles(fuzz):
    bundles.build(fuzz.folder / bundles.GOOD)
    fuzz(bundles.case, short=80)
