"""The statistics of heads against values known in closed form."""

import numpy as np
import pytest

from keras_seqattn.analysis import attention_distance, attention_entropy

pytestmark = pytest.mark.backend_free


def test_entropy_of_one_key_and_of_all():
    scores = np.stack([np.eye(5), np.full((5, 5), 0.2)])
    np.testing.assert_allclose(attention_entropy(scores), [[0.0] * 5, [np.log(5)] * 5])


def test_distance_of_the_token_itself_and_of_the_one_before():
    before = np.eye(4, k=-1)
    before[0, 0] = 1
    np.testing.assert_allclose(
        attention_distance(np.stack([np.eye(4), before])), [[0, 0, 0, 0], [0, 1, 1, 1]]
    )
