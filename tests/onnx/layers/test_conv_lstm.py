"""Convolutional recurrent layers agree with Keras, as one convolution and a Scan."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.onnx.layers.agree import check, normal, operators

SAME = {"padding": "same", "return_sequences": True}
LAYERS = {
    "one": (layers.ConvLSTM1D(4, 3, **SAME, return_state=True), (7, 3)),
    "two": (
        layers.ConvLSTM2D(4, (3, 2), strides=2, recurrent_activation="hard_sigmoid"),
        (7, 5, 3),
    ),
    "three": (layers.ConvLSTM3D(2, 2, go_backwards=True, **SAME), (5, 4, 3, 2)),
    "both": (layers.Bidirectional(layers.ConvLSTM1D(2, 3, **SAME)), (7, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    layer, shape = LAYERS[name]
    x = keras.Input((None, *shape), name="x")
    graph = check(keras.Model(x, layer(x)), {"x": normal(2, 3, *shape)})
    # The inputs of all steps are one convolution.
    assert operators(graph).count("Conv") == operators(graph).count("Scan") in (1, 2)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow: not on a CPU")
def test_channels_first():
    x = keras.Input((None, 3, 7), name="x")
    layer = layers.ConvLSTM1D(4, 3, data_format="channels_first", **SAME)
    check(keras.Model(x, layer(x)), {"x": normal(2, 3, 3, 7)})


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="Keras on JAX takes no such mask")
def test_masks_and_first_states():
    x, mask = keras.Input((None, 7, 3), name="x"), keras.Input((None,), dtype="bool", name="mask")
    states = [keras.Input((7, 4), name=name) for name in ("h", "c")]
    layer = layers.ConvLSTM1D(4, 3, **SAME)
    model = keras.Model([x, mask, *states], layer(x, mask=mask, initial_state=states))
    real = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 0, 1]], bool)
    feed = {"x": normal(2, 5, 7, 3), "mask": real, "h": normal(2, 7, 4), "c": normal(2, 7, 4)}
    check(model, feed)
