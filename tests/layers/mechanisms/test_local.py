"""Local attention: the window's definition, its rolling state, its file."""

import numpy as np
import pytest

from keras_seqattn.layers.mechanisms.local import Local
from tests.mechanisms import check_export, check_mechanism, check_states, softmax_attention


def window(left, right, dilation=1):
    """The definition: keys `i + dilation m` with `-left <= m <= right`."""

    def definition(q, k, v, mask):
        places = np.arange(q.shape[1])
        steps, rest = np.divmod(places - places[:, None], dilation)
        band = (rest == 0) & (-left <= steps) & (steps <= right)
        return softmax_attention(q, k, v, band & mask[:, None, None])

    return definition


@pytest.mark.parametrize("left, right, dilation", [(3, 2, 1), (37, 0, 1), (0, 41, 1), (5, 4, 3)])
def test_both_directions(left, right, dilation):
    # Blocks have 32 queries.
    mechanism = Local(left, right, dilation)
    check_mechanism(mechanism, window(left, right, dilation), (31, 64, 107))


@pytest.mark.parametrize("left, dilation", [(4, 1), (35, 1), (3, 2)])
def test_causal(left, dilation):
    definition = window(left, 0, dilation)
    check_mechanism(Local(left, 7, dilation), definition, (32, 71), causal=True)


@pytest.mark.parametrize("left, dilation", [(5, 1), (40, 1), (3, 2), (1, 5)])
def test_rolling_state(left, dilation):
    check_states(Local(left, 0, dilation), 79, (3, 37, 39))


@pytest.mark.parametrize(
    "mechanism, causal",
    [(Local(64, 64), False), (Local(70), True), (Local(9, 5, 2), False)],
    ids=str,
)
def test_export(mechanism, causal, tmp_path):
    check_export(mechanism, tmp_path, causal)
