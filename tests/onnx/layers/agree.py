"""Compares the file of a model with `predict` of the backend, for the tests of layers."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
from keras import ops

from keras_seqattn.onnx import build_graph
from tests.helpers import randomise

TYPES = {
    "tensor(bool)": "bool",
    "tensor(float)": "float32",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


def check(model, *feeds, target="ort"):
    """Compare the outputs for dicts of arrays by the names of the inputs. Returns the graph."""
    graph = build_graph(randomise(model, seed=3), target)
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    for feed in feeds:
        expected = keras.tree.flatten(model.predict(feed, verbose=0))
        arrays = {i.name: feed[i.name].astype(TYPES[i.type]) for i in session.get_inputs()}
        for e, a in zip(expected, session.run(None, arrays), strict=True):
            assert a.shape == e.shape
            # float32 rounding in another order, over two layers at most.
            np.testing.assert_allclose(a, ops.convert_to_numpy(e), rtol=2e-5, atol=2e-5)
    return graph


def normal(*shape, seed=0):
    """float32, drawn from the normal distribution."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def operators(graph):
    """The operators of a graph, in order."""
    return [node.op_type for node in graph.graph]
