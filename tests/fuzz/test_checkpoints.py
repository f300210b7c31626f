"""Whatever a checkpoint holds, it is loaded or refused; what is exported and verified works."""

import pytest

from tests.fuzz import checkpoints

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]


def test_checkpoints(fuzz):
    fuzz(checkpoints.case, short=25, seconds=20)
