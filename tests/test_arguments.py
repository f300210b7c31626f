"""The checks that public functions share: what they take, and what they refuse in one line."""

import pathlib

import numpy as np
import pytest

from keras_seqattn import arguments
from keras_seqattn.errors import InputError

pytestmark = pytest.mark.backend_free

HOSTILE = [None, 3, 2.5, [], {}, set(), b"x", object(), 10**5000, [3] * 10**5, float("nan")]


def named(value):
    """A test id; a number of 5,000 digits has no text."""
    return type(value).__name__


class Unprintable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("value", [*HOSTILE, "\ud800\n", "x" * 10**7, Unprintable()], ids=named)
def test_whatever_it_is_is_shown_in_one_short_line(value):
    shown = arguments.shown(value)
    assert 0 < len(shown) <= 200 and shown.isprintable() and "\n" not in shown


@pytest.mark.parametrize(
    "check", [arguments.text, arguments.texts, arguments.path, arguments.flag, arguments.integer]
)
@pytest.mark.parametrize("value", [*HOSTILE, ["a", 3], [["a"]], "\ud800"], ids=named)
def test_what_is_no_such_value_is_refused(check, value):
    if check is arguments.integer and value == 3:
        return
    with pytest.raises(InputError) as refused:
        check(value, "name")
    message = str(refused.value)
    assert "name" in message and len(message) < 500 and "\n" not in message


@pytest.mark.parametrize("value", ["\0", "x" * 5000])
def test_paths_that_no_system_takes_are_refused(value):
    with pytest.raises(InputError, match="cannot be looked up"):
        arguments.path(value)


def test_good_values_pass():
    assert arguments.integer(np.int64(3), "n", least=3) == 3
    assert arguments.texts("a") == ["a"]
    assert arguments.texts(("a", "\0")) == ["a", "\0"]
    assert arguments.texts(np.array(["a", "b"])) == ["a", "b"]
    assert arguments.path("nowhere") == pathlib.Path("nowhere")
    assert arguments.flag(False, "name") is False
    assert arguments.choice("a", "name", ("a", "b")) == "a"


def test_a_tensor_of_pytorch_holds_no_text():
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="texts must be a str or a list"):
        arguments.texts(torch.tensor([1, 2]))
