"""Many small functions in one exported model, compared with Keras at several sizes."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime

from keras_seqattn.onnx import build_graph


def check_cases(cases, *feeds, fixed=(-1,), target="portable", rtol=1e-5, atol=1e-5, ties=0):
    """Export one model with an output for each case, and compare it with Keras.

    Args:
        cases: dict of name -> function of keras.ops or layer, of the inputs.
        feeds: tuples of arrays of the inputs. Each one is a call of the model.
        fixed: the axes, from the end, whose sizes are fixed; or a list of them for each input.
            All others are dynamic.
        target: name of the target.
        rtol, atol: tolerances of floats. The defaults allow the rounding of float32 in sums of a
            few numbers.
        ties: how much integers may differ. Bools are equal.

    Returns:
        The `onnx_ir.Model`.
    """
    fixed = fixed if isinstance(fixed, list) else [fixed] * len(feeds[0])
    inputs = [
        keras.Input(
            batch_shape=[n if i - a.ndim in known else None for i, n in enumerate(a.shape)],
            dtype=str(a.dtype),
            name=f"x{index}",
        )
        for index, (a, known) in enumerate(zip(feeds[0], fixed, strict=True))
    ]
    outputs = {}
    for name, function in cases.items():
        results = keras.tree.flatten(function(*inputs))
        outputs |= {f"{name}_{i}": result for i, result in enumerate(results)}
    model = keras.Model(inputs, outputs)
    graph = build_graph(model, target)
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    failures = []
    for arrays in feeds:
        # Some operations of Keras on PyTorch change their arguments, so each gets a copy.
        expected = _keras_results(model, [a.copy() for a in arrays])
        feed = {value.name: a for value, a in zip(session.get_inputs(), arrays, strict=True)}
        actual = dict(zip(names, session.run(None, feed), strict=True))
        for name, value in expected.items():
            difference = _difference(
                keras.ops.convert_to_numpy(value), actual[name], rtol, atol, ties
            )
            if difference:
                failures.append(f"{name} {arrays[0].shape}: {difference}")
    assert not failures, "\n".join(failures)
    return graph


def _keras_results(model, arrays):
    if keras.backend.backend() == "jax":
        # Without this, JAX compiles each operation for each shape, which takes minutes.
        return model.predict_on_batch(arrays)
    return model([keras.ops.convert_to_tensor(a) for a in arrays], training=False)


def _difference(expected, actual, rtol, atol, ties):
    if keras.backend.backend() == "jax" and actual.dtype == "int64":
        # JAX computes in int32 what Keras declares as int64.
        expected = expected.astype("int64")
    if (expected.shape, expected.dtype) != (actual.shape, actual.dtype):
        return f"{actual.dtype} {actual.shape} for {expected.dtype} {expected.shape}"
    if expected.dtype.kind != "f":
        rtol, atol = 0, ties if expected.dtype.kind in "iu" else 0
    wide = [a.astype("float64") for a in (actual, expected)]
    if np.allclose(*wide, rtol=rtol, atol=atol, equal_nan=True):
        return None
    return f"largest difference {np.nanmax(np.abs(wide[0] - wide[1]))}"
