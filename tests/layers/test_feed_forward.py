import math

import keras
import numpy as np
import pytest

from keras_seqattn.layers import CausalConv1D, FeedForward
from tests.helpers import check_layer, to_numpy

B, T, M, F, OUTPUT = 2, 3, 5, 7, 11
ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + ERF(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}


def inputs(seed=0):
    return np.random.default_rng(seed).standard_normal((B, T, M)).astype("float32")


def dense(layer, x):
    kernel, *bias = (np.asarray(w, "float64") for w in layer.get_weights())
    return x @ kernel + (bias[0] if bias else 0.0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
def test_formula(activation, gated, tmp_path):
    layer = FeedForward(F, OUTPUT, activation=activation, gated=gated, use_bias=not gated)
    x = inputs()
    out = check_layer(layer, {"inputs": x}, tmp_path)
    activate = ACTIVATIONS[activation]
    hidden = dense(layer.up, x)
    hidden = activate(dense(layer.gate, x)) * hidden if gated else activate(hidden)
    np.testing.assert_allclose(out, dense(layer.down, hidden), rtol=0, atol=2e-5)
    assert len(layer.weights) == (3 if gated else 4)


def test_width_defaults_to_the_input():
    layer = FeedForward(F)
    assert layer(inputs()).shape == (B, T, M)
    assert layer(keras.KerasTensor((None, None, M))).shape == (None, None, M)


def test_callable_activation_survives_its_configuration():
    layer = FeedForward(F, activation=keras.activations.tanh)
    x = inputs()
    out = to_numpy(layer(x))
    copy = FeedForward.from_config(layer.get_config())
    copy(x)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(to_numpy(copy(x)), out)


@pytest.mark.parametrize("gated", [False, True])
def test_a_layer_as_activation_is_built_with_its_weights(gated):
    """A symbolic call asks for shapes alone, so that only `build` can do it."""
    layer = FeedForward(F, activation=keras.layers.PReLU(shared_axes=[1]), gated=gated)
    layer(keras.KerasTensor((None, None, M)))
    assert len(layer.weights) == (7 if gated else 5)
    copy = FeedForward.from_config(layer.get_config())
    copy.build((None, None, M))
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(to_numpy(copy(inputs())), to_numpy(layer(inputs())))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", [lambda x: x[..., :1], lambda x: x[0], lambda x: None])
def test_what_changes_the_shape_is_no_activation(activation, gated):
    with pytest.raises(ValueError, match="activation must keep the shape of what it is given"):
        FeedForward(F, activation=activation, gated=gated)(inputs())
    with pytest.raises(ValueError, match="activation must keep the shape of what it is given"):
        CausalConv1D(3, activation=activation)(inputs())
    other = keras.layers.Dense(2)
    with pytest.raises(ValueError, match=r"Dense.*gives \(2, 3, 2\) for \(2, 3, 7\)"):
        FeedForward(F, activation=other, gated=gated)(inputs())


def test_dropout_acts_in_training_only():
    layer = FeedForward(F, dropout=0.5)
    x = inputs()
    plain = to_numpy(layer(x))
    np.testing.assert_array_equal(to_numpy(layer(x, training=False)), plain)
    assert np.abs(to_numpy(layer(x, training=True)) - plain).max() > 1e-3


def test_kernels_differ_under_a_seeded_initializer():
    layer = FeedForward(M, gated=True, kernel_initializer=keras.initializers.GlorotUniform())
    layer(inputs())
    assert np.abs(layer.up.get_weights()[0] - layer.gate.get_weights()[0]).max() > 0.1
