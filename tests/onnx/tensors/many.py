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
    if keras.backend.backend() == "jax":
        # It compiles for every size. The file, which has all sizes, is the same from each backend.
        inputs = inputs[-1:]
    results = [_expected(cases, arrays) for arrays in inputs]
    session, graph = _exported(cases, shapes, inputs[0], results[0], target)
    names = [output.name for output in session.get_outputs()]
    for arrays, expected in zip(inputs, results, strict=True):
        feed = {f"x{i}": a for i, a in enumerate(arrays)}
        actual = dict(zip(names, session.run(None, feed), strict=True))
        for name in cases:
            for i, wanted in enumerate(expected[name]):
                _compare(name, actual[f"{name}_{i}"], wanted, (compare or {}).get(name))
    return graph


def _compare(name, actual, expected, compare):
    if compare is not None:
        return compare(actual, expected)
    assert actual.shape == expected.shape, f"{name}: {actual.shape} {expected.shape}"
    # Keras says int32 of the positions for which PyTorch has int64.
    assert actual.dtype.kind == expected.dtype.kind, f"{name}: {actual.dtype} {expected.dtype}"
    # One operation or few: float32 rounding, nothing more.
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6, err_msg=name)


def _expected(cases, arrays):
    """The results of Keras, a list of arrays for each name."""
    given = [ops.convert_to_tensor(a) for a in arrays]
    made = {}
    if keras.backend.backend() == "jax":
        made = _compiled(cases, given)
    return {
        name: [
            ops.convert_to_numpy(y)
            for y in keras.tree.flatten(made[name] if name in made else function(*given))
        ]
        for name, function in cases.items()
    }


def _compiled(cases, given):
    """What JAX can compile, compiled at once. One by one, its operations take minutes."""
    import jax

    def fits(function):
        try:
            jax.eval_shape(function, *given)
        except Exception:  # lengths that depend on values
            return False
        return True

    chosen = {name: function for name, function in cases.items() if fits(function)}
    return jax.jit(lambda *xs: {name: f(*xs) for name, f in chosen.items()})(*given)


def _exported(cases, shapes, arrays, expected, target):
    counts = {name: len(parts) for name, parts in expected.items()}

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
