"""Teacher forcing and next tokens."""

import numpy as np
import pytest
import torch
from transformers.models.bart.modeling_bart import shift_tokens_right

from keras_seqattn.training import IGNORED, next_tokens, shift_right

pytestmark = pytest.mark.backend_free


def test_shift_right_is_that_of_transformers():
    labels = np.array([[5, 6, 7, 2], [8, 2, IGNORED, IGNORED], [2, IGNORED, IGNORED, IGNORED]])
    expected = shift_tokens_right(torch.tensor(labels), 1, 3).numpy()
    actual = shift_right(labels, 3, 1)
    assert actual.dtype == "int32"
    np.testing.assert_array_equal(actual, expected)


def test_shift_right_of_one_token():
    np.testing.assert_array_equal(shift_right([[5], [6]], 3, 0), [[3], [3]])


def test_next_tokens_ignore_padding_on_either_side():
    ids = [[5, 6, 7, 0], [0, 5, 6, 7], [9, 0, 0, 0]]
    mask = [[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]]
    expected = [[6, 7, -100, -100], [-100, 6, 7, -100], [-100] * 4]
    np.testing.assert_array_equal(next_tokens(ids, mask), expected)
    np.testing.assert_array_equal(next_tokens([[5, 6, 7]]), [[6, 7, -100]])
