"""Batches without rows and sequences without tokens: one rule for every layer and backend."""

import keras
import numpy as np
import pytest

from keras_seqattn.layers import (
    AdditiveAttention,
    LatentAttention,
    LuongAttention,
    MultiHeadAttention,
)
from tests.helpers import to_numpy
from tests.layers.zoo import LAYERS, STATES, WIDTH, takes_mask, zero_state


@pytest.mark.parametrize("name", LAYERS)
def test_no_rows_and_no_tokens(name):
    layer = LAYERS[name]()
    layer.build((None, None, WIDTH))
    shapes = [(0, 5), (0, 1), (2, 0)]
    if keras.backend.backend() != "tensorflow":
        # There Keras's own EinsumDense makes one row of no tokens out of none.
        shapes.append((0, 0))
    for shape in shapes:
        x = np.zeros((*shape, WIDTH), "float32")
        masks = [{}, {"attention_mask": np.ones(shape, "int32")}] if takes_mask(layer) else [{}]
        for mask in masks:
            y = to_numpy(layer(x, **mask))
            assert y.shape[:2] == shape and y.dtype == "float32"


def test_no_rows_without_tokens_run_in_latent_attention():
    """TensorFlow's einsum too makes one row of none there, which must not meet the others."""
    y = LatentAttention(2, 4, 2, 5)(np.zeros((0, 0, WIDTH), "float32"))
    assert tuple(y.shape) == (0, 0, WIDTH)


@pytest.mark.parametrize("name", STATES)
def test_no_tokens_leave_the_state_as_it_was(name):
    layer = LAYERS[name]()
    layer.build((None, None, WIDTH))
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 5, WIDTH)).astype("float32")
    _, state = layer(x, cache=zero_state(layer, 2))
    y, after = layer(x[:, :0], cache=state)
    assert tuple(y.shape) == (2, 0, WIDTH)
    for old, new in zip(to_numpy(state), to_numpy(after), strict=True):
        np.testing.assert_array_equal(new, old)
    _, empty = layer(x[:0], cache=zero_state(layer, 0))
    assert [tuple(x.shape) for x in empty] == [(0, *x.shape[1:]) for x in state]


@pytest.mark.parametrize("kind", [MultiHeadAttention, AdditiveAttention, LuongAttention])
def test_queries_without_keys_get_zeros(kind):
    arguments = (2, 5) if kind is MultiHeadAttention else ()
    layer = kind(*arguments, use_bias=False) if arguments else kind()
    query, keys = np.ones((2, 3, WIDTH), "float32"), np.ones((2, 0, WIDTH), "float32")
    layer.build((2, 3, WIDTH), (2, 4, WIDTH))
    assert not to_numpy(layer(query, keys)).any()
    y = to_numpy(layer(query[:, :0], np.ones((2, 4, WIDTH), "float32")))
    assert y.shape[:2] == (2, 0)


@pytest.mark.parametrize("kind", [AdditiveAttention, LuongAttention])
@pytest.mark.parametrize("keys", [1, 2])
def test_no_rows_of_two_inputs_give_no_rows(kind, keys):
    layer = kind()
    layer.build((2, 3, WIDTH), (2, keys, WIDTH))
    y = layer(np.ones((0, 3, WIDTH), "float32"), np.ones((0, keys, WIDTH), "float32"))
    assert tuple(y.shape)[:2] == (0, 3)


def test_a_cache_grows_by_nothing():
    layer = MultiHeadAttention(2, 5, causal=True)
    layer.build((None, None, WIDTH))
    x = np.random.default_rng(0).standard_normal((2, 3, WIDTH)).astype("float32")
    empty = tuple(np.zeros((2, 2, 0, 5), "float32") for _ in range(2))
    _, cache = layer(x, cache=empty)
    y, after = layer(x[:, :0], cache=cache)
    assert tuple(y.shape) == (2, 0, WIDTH)
    keras.tree.map_structure(np.testing.assert_array_equal, to_numpy(after), to_numpy(cache))
