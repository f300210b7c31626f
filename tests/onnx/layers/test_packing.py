"""Projections of one input are one product, and each weight is stored once."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.onnx.layers.agree import check, normal, operators

pytestmark = pytest.mark.backend_free

FEED = {"x": normal(2, 3, 12)}


def stored(graph):
    """The number of floats in the initializers."""
    return sum(np.prod(v.shape.numpy()) for v in graph.graph.initializers.values() if len(v.shape))


def weights(model):
    return sum(np.prod(v.shape) for v in model.trainable_variables)


def test_heads_that_are_outputs():
    x = keras.Input((None, 12), name="x")
    graph = check(keras.Model(x, [layers.Dense(1)(x), layers.Dense(3)(x)]), FEED)
    assert operators(graph).count("MatMul") == 1
    free = {"use_bias": False}
    check(keras.Model(x, [layers.Dense(2, **free)(x), layers.Dense(3, **free)(x)]), FEED)


def test_attention_that_is_called_again():
    x = keras.Input((None, 12), name="x")
    shared = layers.MultiHeadAttention(3, 4)
    y = shared(x, x)
    # The second time, the query comes from elsewhere than key and value, which stay together.
    model = keras.Model(x, [shared(y, y), shared(layers.LayerNormalization()(x), y)])
    graph = check(model, FEED)
    # A few more are lengths and axes.
    assert stored(graph) < weights(model) + 50


def test_weights_that_are_partly_shared():
    x = keras.Input((None, 12), name="x")
    y = layers.LayerNormalization()(x)
    a, b, c = (layers.Dense(40) for _ in range(3))
    model = keras.Model(x, layers.Add()([a(x), b(x), a(y), c(y)]))
    graph = check(model, FEED)
    assert stored(graph) < weights(model) + 50


def test_a_vector_of_one_is_no_bias_to_pack():
    class Shifted(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4))
            self.shift = self.add_weight(shape=(1,))

        def call(self, x):
            return x @ self.kernel + self.shift

    x = keras.Input((None, 12), name="x")
    check(keras.Model(x, layers.Multiply()([Shifted()(x), Shifted()(x)])), FEED)
