import numpy as np
import pytest
from keras import ops

from keras_seqattn.ops import distance_sinusoids, relative_shift
from tests.helpers import to_numpy


@pytest.mark.parametrize(("length", "keys"), [(1, 1), (1, 7), (5, 5), (3, 11)])
def test_each_key_gets_the_column_of_its_distance(length, keys):
    x = np.random.default_rng(0).standard_normal((2, 3, length, keys)).astype("float32")
    shifted = to_numpy(relative_shift(ops.convert_to_tensor(x)))
    for i in range(length):
        for j in range(keys):
            distance = i + keys - length - j
            if distance >= 0:
                expected = x[:, :, i, keys - 1 - distance]
                np.testing.assert_array_equal(shifted[:, :, i, j], expected)


@pytest.mark.parametrize("clamp", [None, 5])
def test_sinusoids(clamp):
    distances = np.minimum(np.arange(12, -1, -1), 12 if clamp is None else clamp)
    angles = np.outer(distances, 10000.0 ** (-np.arange(0, 6, 2) / 6))
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    # float32 of angles up to 12.
    np.testing.assert_allclose(to_numpy(distance_sinusoids(13, 6, clamp)), expected, atol=2e-6)
