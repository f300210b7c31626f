"""Many functions of keras.ops in one file, compared with Keras at several sizes."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
from keras import ops

from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply


def check_all(cases, shapes, *inputs, target="portable", compare=None):
    """Export the functions as one model and compare onnxruntime with Keras.

    Args:
        cases: dict of name -> function(*tensors) -> nested tensors.
        shapes: for each argument its shape with None for dynamic sizes.
        *inputs: lists of arrays, one for each argument. All lists have the same dtypes.
        target: name of the target.
        compare: dict of name -> function(actual, expected), for what cannot be equal.

    Returns:
        the `onnx_ir.Graph`.
    """
    session, graph = _exported(cases, shapes, inputs[0], target)
    for arrays in inputs:
        feed = {f"x{i}": a for i, a in enumerate(arrays)}
        names = [output.name for output in session.get_outputs()]
        actual = dict(zip(names, session.run(None, feed), strict=True))
        for name, function in cases.items():
            for i, expected in enumerate(_eager(function, arrays)):
                got = actual[f"{name}_{i}"]
                if compare and name in compare:
                    compare[name](got, expected)
                    continue
                assert got.shape == expected.shape, f"{name}: {got.shape} {expected.shape}"
                assert got.dtype == expected.dtype, f"{name}: {got.dtype} {expected.dtype}"
                # One operation or few: float32 rounding, nothing more.
                np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=name)
    return graph


def _eager(function, arrays):
    made = function(*[ops.convert_to_tensor(a) for a in arrays])
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(made)]


def _exported(cases, shapes, arrays, target):
    counts = {name: len(_eager(function, arrays)) for name, function in cases.items()}

    def call(*xs):
        made = {}
        for name, function in cases.items():
            parts = keras.tree.flatten(function(*xs))
            assert len(parts) == counts[name], name
            made |= {f"{name}_{i}": y for i, y in enumerate(parts)}
        return made

    spec = {
        f"{name}_{i}": keras.KerasTensor((None,)) for name in cases for i in range(counts[name])
    }
    inputs = [
        keras.Input(batch_shape=shape, dtype=str(a.dtype), name=f"x{i}")
        for i, (shape, a) in enumerate(zip(shapes, arrays, strict=True))
    ]
    model = keras.Model(inputs, Apply(call, spec, name="apply")(*inputs))
    graph = build_graph(model, target)
    proto = ir.to_proto(graph).SerializeToString()
    return onnxruntime.InferenceSession(proto), graph.graph
