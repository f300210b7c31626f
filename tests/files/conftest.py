"""Fixture of these tests."""

import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def quick_path(tmp_path):
    """Like tmp_path, in memory where the system has that: flushing to a disk is slow."""
    if not os.path.isdir("/dev/shm"):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)
