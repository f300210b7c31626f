"""Settings that must hold before a backend is imported, and the markers of the suite."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest


def pytest_addoption(parser):
    """How much fuzzing: see tests/fuzz."""
    parser.addoption("--cases", type=int, help="cases of each fuzz test (default: a few)")
    parser.addoption("--first", type=int, default=0, help="number of the first of these cases")
    parser.addoption("--case", type=int, help="replay one case of a fuzz test")


def pytest_collection_modifyitems(items):
    """Tests that do not depend on the backend run in the TensorFlow pass only."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        return
    skip = pytest.mark.skip(reason="backend_free: runs in the tensorflow pass")
    for item in items:
        if "backend_free" in item.keywords:
            item.add_marker(skip)
