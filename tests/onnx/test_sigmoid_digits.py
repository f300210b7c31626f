"""What a normalisation or a logarithm makes of small values of sigmoid and SiLU is right."""

from collections import Counter

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers, ops

from keras_seqattn.layers import GatedDelta, StateSpace
from keras_seqattn.onnx import build_graph
from tests.helpers import randomise, to_numpy

TARGETS = ("ort", "portable")
STEEP = {
    "log": lambda x: ops.log(ops.sigmoid(x)),
    "share": lambda x: ops.sigmoid(x) / ops.sum(ops.sigmoid(x), axis=-1, keepdims=True),
    "norm": lambda x: layers.RMSNormalization(epsilon=1e-12)(ops.silu(x)),
    "norm_of_product": lambda x: layers.RMSNormalization(epsilon=1e-12)(ops.silu(x) * 3.0),
    "activation": lambda x: ops.log(-layers.Dense(3, "silu")(x)),
}
# Of a feed-forward layer, a gate of it, a residual, and a score.
SUMMED = {
    "dense": lambda x: layers.Dense(3)(ops.silu(x)),
    "gated": lambda x: layers.Dense(3)(ops.silu(x) * x),
    "added": lambda x: x + ops.silu(x),
    "output": ops.sigmoid,
}


def model_of(function, width=3):
    x = keras.Input((None, width), name="x")
    return keras.Model(x, function(x))


def run(graph, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), options)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", STEEP)
def test_small_values_keep_their_digits(name, target):
    model = model_of(STEEP[name])
    for dense in model.layers:
        if isinstance(dense, layers.Dense):
            dense.kernel.assign(np.eye(3))
    # All of a row are small, down to where float32 ends.
    x = -np.linspace(0.5, 80, 3 * 16).reshape(2, 8, 3).astype("float32")
    expected = to_numpy(model(x))
    # float32 through an exponential of up to 80, whose own argument is rounded.
    np.testing.assert_allclose(run(build_graph(model, target), x), expected, rtol=3e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SUMMED)
def test_where_they_are_added_up_one_node_does(name, target):
    graph = build_graph(model_of(SUMMED[name]), target)
    assert "Exp" not in Counter(node.op_type for node in graph.graph)


@pytest.mark.parametrize("target", TARGETS)
def test_infinities_and_large_values(target):
    model = model_of(lambda x: ops.concatenate([ops.silu(x), ops.sigmoid(x)], axis=-1), width=1)
    x = np.array([-np.inf, -3e38, -200, -89, -88, 0, 88, 89, 200, 3e38], "float32")[None, :, None]
    actual = run(build_graph(model, target), x)[0, 1:]
    # Of numbers below 1e-36 float32 has no more digits.
    np.testing.assert_allclose(actual, to_numpy(model(x))[0, 1:], rtol=1e-6, atol=1e-35)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "mixer",
    [lambda: GatedDelta(2, 1, value_dim=1, chunk_size=4), lambda: StateSpace(2, 1, 2)],
    ids=["gated_delta", "state_space"],
)
def test_mixers_of_small_heads(mixer, target):
    model = model_of(lambda x: mixer()(x), width=5)
    randomise(model, seed=3)
    x = 3 * np.random.default_rng(2).standard_normal((64, 9, 5)).astype("float32")
    expected = to_numpy(model(x))
    # float32 through a norm of values that are small themselves.
    bound = 5e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(run(build_graph(model, target), x), expected, rtol=0, atol=bound)
