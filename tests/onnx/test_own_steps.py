"""Layers that compute a known operation step by step become its node: norms, projections."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import ops

from keras_seqattn.onnx import build_graph, write_onnx
from tests.helpers import randomise

pytestmark = pytest.mark.backend_free

WIDTH = 7


class Norm(keras.layers.Layer):
    """An RMS normalisation as many models write it.

    Args:
        form: function of x, the mean of squares and the scale -> the result.
        square: function of x -> its square.
        axis: of the mean.
    """

    def __init__(self, form, square, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.form, self.square, self.axis = form, square, axis

    def build(self, shape):
        self.scale = self.add_weight(shape=(WIDTH,), initializer="ones")

    def call(self, x):
        mean = ops.mean(self.square(x), axis=self.axis, keepdims=True)
        return self.form(x, mean, self.scale)


def rsqrt(x, mean, scale):
    return x * ops.rsqrt(mean + 1e-3) * scale


def one_plus(x, mean, scale):
    return (x * ops.reciprocal(ops.sqrt(mean + 1e-3))) * (1 + scale)


def two_readers(x, mean, scale):
    root = ops.rsqrt(mean + 1e-3)
    return x * root * scale + root


def of_another(x, mean, scale):
    return ops.tanh(x) * ops.rsqrt(mean + 1e-3) * scale


def without_scale(x, mean, scale):
    return x * ops.rsqrt(mean + 1e-3) * scale[:1]


# name -> (layer, whether it is an RMS normalisation)
NORMS = {
    "Llama": (Norm(rsqrt, lambda x: ops.power(x, 2)), True),
    "Gemma": (Norm(one_plus, ops.square), True),
    "a product": (Norm(rsqrt, lambda x: x * x), True),
    "a cube": (Norm(rsqrt, lambda x: ops.abs(ops.power(x, 3))), False),
    "another axis": (Norm(rsqrt, ops.square, axis=1), False),
    "two readers": (Norm(two_readers, ops.square), False),
    "of another value": (Norm(of_another, ops.square), False),
    "one number as scale": (Norm(without_scale, ops.square), False),
}
# Equation, shape of the result, and whether it is one matrix product.
PROJECTIONS = {
    "abc,cd->abd": ((None, 5), True),
    "bsd,kdh->bskh": ((None, 3, 5), True),
    "bsd,hkd->bshk": ((None, 5, 3), True),
    "bsd,sdh->bsh": ((11, 3), False),
}


def run(model, x, tmp_path):
    """The results of the file, after those of Keras were compared with them."""
    graph = build_graph(model)
    write_onnx(graph, tmp_path / "m.onnx", inline=True)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (actual,) = session.run(None, {session.get_inputs()[0].name: x})
    expected = ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    return [node.op_type for node in graph.graph]


@pytest.mark.parametrize("name", NORMS)
def test_norm(name, tmp_path):
    layer, is_one = NORMS[name]
    x = keras.Input((None, WIDTH))
    model = randomise(keras.Model(x, layer(x)), seed=1)
    x = np.random.default_rng(1).normal(size=(2, 11, WIDTH)).astype("float32")
    nodes = run(model, x, tmp_path)
    assert ("RMSNormalization" in nodes) == is_one
    assert ("Reciprocal" in nodes) != is_one


@pytest.mark.parametrize("equation", PROJECTIONS)
def test_projection(equation, tmp_path):
    shape, is_product = PROJECTIONS[equation]
    x = keras.Input((11 if shape[0] else None, WIDTH))
    model = keras.Model(x, keras.layers.EinsumDense(equation, shape)(x))
    x = np.random.default_rng(1).normal(size=(2, 11, WIDTH)).astype("float32")
    nodes = run(randomise(model, seed=1), x, tmp_path)
    assert ("MatMul" in nodes) == is_product and ("Einsum" in nodes) != is_product
