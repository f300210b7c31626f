import keras
import numpy as np
import pytest

from keras_seqattn.errors import ConfigError
from keras_seqattn.ops import (
    alibi_bias,
    alibi_slopes,
    distance_buckets,
    position_ids,
    slot_positions,
)
from tests.helpers import to_numpy

MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 1, 0]], "int32")
EXPECTED = np.array([[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 0, 0, 0], [0, 0, 1, 2, 2]])


@pytest.mark.parametrize("length", [5, 3, 1])
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_last_columns(length, dtype):
    out = position_ids(MASK.astype(dtype), np.zeros((4, length), "int32"))
    np.testing.assert_array_equal(to_numpy(out), EXPECTED[:, 5 - length :])
    assert keras.backend.standardize_dtype(out.dtype) == "int32"


@pytest.mark.parametrize("shape", [(), (1,)])
def test_columns_of_a_fixed_buffer(shape):
    out = position_ids(MASK, np.zeros((4, 2), "int32"), np.full(shape, 1, "int32"))
    np.testing.assert_array_equal(to_numpy(out), EXPECTED[:, 1:3])


def test_in_a_functional_model():
    mask, ids = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    out = position_ids(mask, ids)
    assert out.shape == (None, None)
    model = keras.Model([mask, ids], out)
    model = keras.Model.from_config(model.get_config())
    result = model.predict([MASK, np.zeros((4, 2), "int32")], verbose=0)
    np.testing.assert_array_equal(result, EXPECTED[:, 3:])


def test_positions_by_slot():
    ids, past = np.zeros((2, 3), "int32"), np.zeros((2, 1, 7, 5), "float32")
    cases = [
        ((), (0, 3), 3),
        ((past,), (7, 10), 10),
        ((past[:, :, :0],), (0, 3), 3),
        ((past, np.array([4], "int32")), (4, 7), 7),
        ((past, np.array(2, "int32")), (2, 5), 7),
    ]
    for arguments, (start, stop), total in cases:
        queries, keys = slot_positions(ids, *arguments)
        np.testing.assert_array_equal(to_numpy(queries), np.arange(start, stop))
        np.testing.assert_array_equal(to_numpy(keys), np.arange(total))
        assert {keras.backend.standardize_dtype(x.dtype) for x in (queries, keys)} == {"int32"}


@pytest.mark.backend_free
@pytest.mark.parametrize("num_heads", [1, 7, 8, 11, 16])
def test_alibi_slopes_as_in_bloom(num_heads):
    """transformers' slopes, read from the bias of one token of distance 1."""
    import torch
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    bias = build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float32).numpy()
    np.testing.assert_allclose(alibi_slopes(num_heads), bias[:, 0, 1], rtol=1e-6)


def test_alibi_bias():
    slopes = alibi_slopes(3)
    bias = to_numpy(alibi_bias(slopes, np.arange(4, 6), np.arange(7)))
    assert bias.shape == (1, 3, 2, 7)
    for h, i, j in np.ndindex(3, 2, 7):
        np.testing.assert_allclose(bias[0, h, i, j], -slopes[h] * abs(i + 4 - j), rtol=1e-6)


# The second pair has edges of buckets at whole distances, as have the pairs of checkpoints.
SCALES = [
    (32, 128),
    (18, 128),
    (32, 256),
    (64, 96),
    (8, 20),
    (7, 11),
    (4, 3),
    (5, 1000),
    (128, 512),
]


@pytest.mark.backend_free
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("num_buckets, max_distance", SCALES)
def test_distance_buckets_as_in_transformers(num_buckets, max_distance, bidirectional):
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = np.arange(-1000, 1001)
    expected = T5Attention._relative_position_bucket(
        torch.tensor(distances), bidirectional, num_buckets, max_distance
    )
    table = distance_buckets(num_buckets, max_distance, bidirectional)
    rows = np.clip(distances, -max_distance, max_distance) + max_distance
    np.testing.assert_array_equal(table[rows], expected.numpy())


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "scale, bidirectional", [((3, 9), True), ((1, 9), False), ((32, 8), True), ((32, 16), False)]
)
def test_buckets_that_do_not_fit_are_refused(scale, bidirectional):
    with pytest.raises(ConfigError, match=f"{scale[0]} buckets up to distance {scale[1]}"):
        distance_buckets(*scale, bidirectional)
