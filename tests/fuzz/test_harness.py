"""The harness itself notices every kind of fault."""

import ctypes
import time

import pytest

from keras_seqattn.errors import InputError
from tests.fuzz.harness import Campaign, attempt

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]


def good_case(random, folder):
    """Refuses half of its inputs."""
    (folder / "file").write_text("content")
    attempt(_refuse_odd, int(random.integers(100)))
    return "accepted"


def raw_case(random, folder):
    """Lets an error of NumPy's through."""
    attempt(int, "x")


def silent_case(random, folder):
    """Refuses without a reason."""
    attempt(_refuse_silently)


def hanging_case(random, folder):
    """Does not end."""
    time.sleep(60)


def aborting_case(random, folder):
    """Ends its process."""
    ctypes.string_at(0)


def hungry_case(random, folder):
    """Takes 300 MiB."""
    (b"x" * (300 << 20)).count(b"y")


def _refuse_odd(number):
    if number % 2:
        raise InputError(f"{number} is odd")


def _refuse_silently():
    raise InputError("")


def test_outcomes_are_counted(tmp_path, capsys):
    # Not by the fixture: with --cases 1 there would be one outcome only.
    Campaign("tests/fuzz/test_x.py::test_y", tmp_path)(good_case, short=12)
    printed = capsys.readouterr().out
    assert "accepted" in printed and "refused" in printed


@pytest.mark.parametrize(
    "case, reason",
    [
        (raw_case, "raw ValueError"),
        (silent_case, "without a message"),
        (hanging_case, "no result after"),
        (aborting_case, "the process died"),
        (hungry_case, "the case took"),
    ],
)
def test_faults_are_found_and_can_be_replayed(case, reason, tmp_path):
    campaign = Campaign("tests/fuzz/test_x.py::test_y", tmp_path, only=7)
    with pytest.raises(AssertionError, match=reason) as caught:
        campaign(case, short=1, seconds=2, first_seconds=2, memory_mib=200)
    assert "pytest 'tests/fuzz/test_x.py::test_y' --case 7" in str(caught.value)
