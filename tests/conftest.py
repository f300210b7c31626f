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
    """Each test with the marker `only` runs in the pass of one backend."""
    for item in items:
        names = [mark.args[0] for mark in item.iter_markers("only")]
        names += ["tensorflow"] if "backend_free" in item.keywords else []
        if names and names[0] != os.environ["KERAS_BACKEND"]:
            item.add_marker(pytest.mark.skip(reason=f"runs in the pass of {names[0]}"))
