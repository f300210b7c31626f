"""Chat templates of strangers: each renders or is refused, soon and in little memory."""

import pytest

from tests.fuzz import templates

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]


def test_templates(fuzz):
    fuzz(templates.case, short=100)
