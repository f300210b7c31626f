"""Local attention: the window's definition, its rolling state, its file."""

import numpy as np
import pytest

from keras_seqattn.layers import MultiHeadAttention
from keras_seqattn.layers.mechanisms import Local
from tests.helpers import check_layer
from tests.mechanisms import check_export, check_mechanism, check_states, heads, softmax_attention


def window(left, right, dilation=1):
    """The definition: keys `i + dilation m` with `-left <= m <= right`."""

    def definition(q, k, v, mask):
        places = np.arange(q.shape[1])
        steps, rest = np.divmod(places - places[:, None], dilation)
        band = (rest == 0) & (-left <= steps) & (steps <= right)
        return softmax_attention(q, k, v, band & mask[:, None, None])

    return definition


# Blocks have 32 queries; 37 and 41 need frames of several.
@pytest.mark.parametrize("left, right, dilation", [(3, 2, 1), (37, 41, 1), (5, 4, 3)])
def test_both_directions(left, right, dilation):
    definition = window(left, right, dilation)
    check_mechanism(Local(left, right, dilation), definition, (32, 107))


@pytest.mark.parametrize("left, dilation", [(35, 1), (3, 2)])
def test_causal(left, dilation):
    definition = window(left, 0, dilation)
    check_mechanism(Local(left, 7, dilation), definition, (71,), causal=True)


def test_a_window_that_is_off_by_one_does_not_pass():
    with pytest.raises(AssertionError):
        check_mechanism(Local(4), window(5, 0), (9,), causal=True)


@pytest.mark.parametrize("left, dilation", [(40, 1), (3, 2)])
def test_rolling_state(left, dilation):
    check_states(Local(left, 0, dilation), 47, (3, 37, 7))


@pytest.mark.parametrize(
    "mechanism, causal",
    [(Local(64, 64), False), (Local(70), True), (Local(9, 5, 2), False)],
    ids=["both", "causal", "dilated"],
)
def test_export(mechanism, causal, tmp_path):
    check_export(mechanism, tmp_path, causal)


@pytest.mark.backend_free
def test_layer(tmp_path):
    layer = MultiHeadAttention(4, 5, 2, attention=Local(3, 2, 2))
    x = np.random.default_rng(1).standard_normal((3, 37, 11)).astype("float32")
    mask = np.ones((3, 37), "int32")
    mask[0, :7] = 0
    check_layer(layer, {"query": x, "attention_mask": mask}, tmp_path)


def test_what_cannot_be():
    for settings in ({"left": -1}, {"left": 3, "right": -2}, {"left": 3, "dilation": 0}):
        with pytest.raises(ValueError, match="must be a whole number from [01]"):
            Local(**settings)
    q, k, v = heads(5)
    with pytest.raises(ValueError, match="no later keys"):
        Local(3, 2)(q, k, v, state=[np.zeros(1)] * 3)
    with pytest.raises(ValueError, match="of one sequence"):
        Local(3)(q, k[:, 1:], v[:, 1:])
