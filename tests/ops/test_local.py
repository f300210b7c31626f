"""Local attention as an operation: shared keys, sizes of blocks, lengths that are not known."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.ops import local_attention
from tests.helpers import compiled_on_jax, to_numpy
from tests.mechanisms import GROUPS, HEAD_DIM, HEADS, VALUE_DIM, heads, ragged_mask

SHARED = 3
# float32 sums of about ten products of size one.
TOLERANCE = 1e-5


def shared_keys(length, seed=3):
    """Query, key, value and mask of shared keys, the mask for each query."""
    random = np.random.default_rng([seed, length])
    shapes = (length, HEADS, HEAD_DIM), (SHARED, GROUPS, HEAD_DIM), (SHARED, GROUPS, VALUE_DIM)
    arrays = [random.standard_normal((4, *shape)).astype("float32") for shape in shapes]
    return *arrays, random.random((4, length, SHARED)) < 0.7


def definition(q, k, v, mask, shared, left, right):
    """One softmax over the keys of the window and the shared ones, pair by pair, in float64."""
    shared_q, shared_k, shared_v, shared_mask = shared
    k, v, shared_k, shared_v = (
        x.astype("float64").repeat(HEADS // GROUPS, 2) for x in (k, v, shared_k, shared_v)
    )
    places = np.arange(q.shape[1])
    distance = places - places[:, None]
    near = (-left <= distance) & (distance <= right) & mask[:, None].astype(bool)
    allowed = np.concatenate([near, shared_mask], axis=-1)[:, None]
    scores = [np.einsum("bthd,bshd->bhts", *pair) for pair in ((q, k), (shared_q, shared_k))]
    weights = np.exp(np.concatenate(scores, axis=-1) / HEAD_DIM**0.5) * allowed
    total = weights.sum(-1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    return np.einsum("bhts,bshe->bthe", weights, np.concatenate([v, shared_v], axis=1))


# Within one block of eight queries, and in several.
@pytest.mark.parametrize("length", [7, 43])
def test_shared_keys(length):
    q, k, v = heads(length)
    mask, shared = ragged_mask(length), shared_keys(length)
    window = {"left": 5, "right": 4, "block_size": 8}
    call = dict(
        zip(("shared_query", "shared_key", "shared_value", "shared_mask"), shared, strict=True)
    )
    run = compiled_on_jax(lambda q, k, v, **call: local_attention(q, k, v, **call, **window))
    out = run(q, k, v, mask=mask, **call)
    expected = definition(q, k, v, mask, shared, 5, 4)
    np.testing.assert_allclose(to_numpy(out), expected, rtol=0, atol=TOLERANCE)
    # The same for all queries, and multiplied with the queries themselves.
    call = {**call, "shared_query": None, "shared_mask": shared[3][:, 0].astype("int32")}
    expected = definition(
        q, k, v, mask, (q, *shared[1:3], shared[3][:, :1].repeat(length, 1)), 5, 4
    )
    out = run(q, k, v, mask=mask, **call)
    np.testing.assert_allclose(to_numpy(out), expected, rtol=0, atol=TOLERANCE)


def test_the_size_of_blocks_changes_nothing():
    q, k, v = heads(23)
    mask = ragged_mask(23)
    outs = []
    for size in (1, 9, 16, 64):
        window = functools.partial(local_attention, left=6, right=3, block_size=size)
        outs.append(to_numpy(compiled_on_jax(window)(q, k, v, mask)))
    for other in outs[1:]:
        np.testing.assert_allclose(other, outs[0], rtol=0, atol=TOLERANCE)


def test_half_precision_sums_in_float32():
    q, k, v = (ops.cast(x, "bfloat16") for x in heads(40))
    run = compiled_on_jax(lambda q, k, v: local_attention(q, k, v, left=30, block_size=16))
    out = run(q, k, v)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    exact = run(*(to_numpy(x) for x in (q, k, v)))
    # Two roundings to eight bits, of probabilities and of results up to about 3.
    np.testing.assert_allclose(to_numpy(out), to_numpy(exact), rtol=0, atol=0.03)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="lengths are known elsewhere")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_lengths_that_are_not_known(jit_compile):
    import tensorflow as tf

    shapes = (HEADS, HEAD_DIM), (GROUPS, HEAD_DIM), (GROUPS, VALUE_DIM)
    specs = [tf.TensorSpec((None, None, *shape)) for shape in shapes]

    @tf.function(input_signature=specs, jit_compile=jit_compile)
    def run(q, k, v):
        with tf.GradientTape() as tape:
            tape.watch(q)
            out = local_attention(q, k, v, left=4, right=2, dilation=2, block_size=8)
        return out, tape.gradient(out, q)

    for length in (3, 33):
        arrays = heads(length)
        out, gradient = run(*arrays)
        exact = local_attention(*arrays, left=4, right=2, dilation=2, block_size=8)
        np.testing.assert_allclose(out, exact, rtol=0, atol=TOLERANCE)
        assert np.isfinite(gradient).all() and gradient.shape == arrays[0].shape


def test_shared_keys_have_no_dilation():
    q, k, v = heads(5)
    _, *shared = shared_keys(5)
    with pytest.raises(ValueError, match="without dilation"):
        local_attention(q, k, v, None, None, None, None, *shared, left=2, dilation=2)
