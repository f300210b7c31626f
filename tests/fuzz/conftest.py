"""Fixture of the fuzz tests; the options are those of tests/conftest.py."""

import pytest

from tests.fuzz.harness import Campaign


@pytest.fixture
def fuzz(request, tmp_path):
    """Run seeded cases of a function: `fuzz(case, short=30)`; see `tests.fuzz.harness.Campaign`."""
    return Campaign(
        request.node.nodeid,
        tmp_path,
        cases=request.config.getoption("--cases"),
        first=request.config.getoption("--first"),
        only=request.config.getoption("--case"),
    )
