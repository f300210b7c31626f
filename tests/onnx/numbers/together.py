"""Many functions in one model: each is compared with Keras, and the model is exported once."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime

from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply

# float32 rounding of a few operations; half types round to 11 and 8 bits.
TOLERANCES = {"float16": 2e-3, "bfloat16": 2e-2}


def differences(functions, *runs, target="portable", dtype="float32"):
    """What onnxruntime computes otherwise than Keras, as list of texts.

    Args:
        functions: dict of name -> function of the inputs by name, which returns a tensor.
        runs: dicts of name -> array, the inputs of each run. Axes that differ between runs are
            dynamic.
        target: of the export.
        dtype: in which the model computes.
    """
    expected = [_eager(functions, run) for run in runs]
    session, graph = _exported(functions, runs, expected[0], target, dtype)
    found = []
    for run, wanted in zip(runs, expected, strict=True):
        given = session.run(list(wanted), run)
        for (name, value), actual in zip(wanted.items(), given, strict=True):
            found.extend(f"{name}: {text}" for text in _difference(value, actual))
    return found


def _eager(functions, run):
    def results(tensors):
        return {
            name: keras.ops.convert_to_tensor(function(**tensors))
            for name, function in functions.items()
        }

    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in run.items()}
    if keras.backend.backend() == "jax":
        import jax

        # JAX compiles each function for each shape. At once, this takes a tenth of the time.
        return jax.jit(results)(tensors)
    return results(tensors)


def _exported(functions, runs, results, target, dtype):
    inputs = {}
    for name, array in runs[0].items():
        shapes = zip(*(run[name].shape for run in runs), strict=True)
        shape = [n[0] if len(set(n)) == 1 else None for n in shapes]
        inputs[name] = keras.Input(batch_shape=shape, dtype=str(array.dtype), name=name)

    def all_of_them(*tensors):
        given = dict(zip(inputs, tensors, strict=True))
        return {name: function(**given) for name, function in functions.items()}

    def spec(x):
        return keras.KerasTensor([None] * len(x.shape), keras.backend.standardize_dtype(x.dtype))

    specs = {name: spec(x) for name, x in results.items()}
    layer = Apply(all_of_them, specs, name="apply", dtype=dtype)
    model = keras.Model(inputs, layer(*inputs.values()))
    graph = build_graph(model, target)
    return onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString()), graph


def _difference(expected, actual):
    dtype = keras.backend.standardize_dtype(expected.dtype)
    expected = keras.ops.convert_to_numpy(keras.ops.cast(expected, _comparable(dtype)))
    if expected.shape != actual.shape:
        yield f"shape {actual.shape} for {expected.shape}"
        return
    tolerance = TOLERANCES.get(dtype, 1e-5)
    same = np.isclose(
        actual.astype(expected.dtype), expected, rtol=tolerance, atol=tolerance, equal_nan=True
    )
    if not same.all():
        at = np.argwhere(~same)[0]
        yield f"{actual[tuple(at)]} for {expected[tuple(at)]} at {at} of {expected.shape}"


def _comparable(dtype):
    return "float32" if dtype == "bfloat16" else dtype
