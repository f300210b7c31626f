"""Whatever a GGUF file holds, it is loaded or refused; what is exported and verified works."""

import pytest

from tests.fuzz import gguf_files

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]


def test_gguf_files(fuzz):
    fuzz(gguf_files.case, short=25, seconds=20)
