"""Many layers in one exported model, each compared with Keras: one export for a whole topic."""

import math

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime

from keras_seqattn.onnx import build_graph
from tests.helpers import randomise

ON_JAX = keras.backend.backend() == "jax"
# JAX compiles each operation for each shape, for half a second. The files are those of TensorFlow,
# which is tried with everything.
TARGETS = ("ort",) if ON_JAX else ("portable", "ort")


def randomised(model, seed=3):
    """The model with random weights and batch statistics. Variances stay positive, and kernels do
    not let the values grow: saturated outputs would hide every error."""
    randomise(model, seed)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "variance" in variable.path:
            variable.assign(rng.uniform(0.3, 2.0, variable.shape))
        elif len(variable.shape) > 2:
            places = math.prod(variable.shape[:-2])
            variable.assign(variable.value / places**0.5)
    return model


def predicted(model, x):
    """What Keras computes."""
    result = model(keras.ops.convert_to_tensor(x), training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, result)


def session_of(graph):
    return onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())


def check_layers(shape, layers, lengths, *, target="ort", tolerance=2e-5, dtype="float32"):
    """Compare layers of one input with Keras.

    Args:
        shape: of the input without the batch axis. None is a dynamic size.
        layers: dict of name -> a layer, or a function of symbolic tensors.
        lengths: list of full shapes of inputs to run. On JAX, the first is run.
        tolerance: of the largest value of an output: sums of float32 in another order.

    Returns:
        The graph.
    """
    x = keras.Input(shape, dtype=dtype, name="x")
    model = keras.Model(x, {name: layer(x) for name, layer in layers.items()})
    randomised(model)
    graph = build_graph(model, target)
    session = session_of(graph)
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(11)
    for length in lengths[: 1 if ON_JAX else None]:
        given = rng.normal(size=length).astype(dtype) if "float" in dtype else rng.integers(
            -50, 50, size=length
        ).astype(dtype)  # fmt: skip
        expected = predicted(model, given)
        actual = dict(zip(names, session.run(names, {"x": given}), strict=True))
        for name in layers:
            e, a = expected[name], actual[name]
            assert a.shape == e.shape, f"{name} {length}: {a.shape}, Keras {e.shape}"
            assert a.dtype == e.dtype, f"{name} {length}: {a.dtype}, Keras {e.dtype}"
            error = np.abs(a - e).max(initial=0) / max(np.abs(e).max(initial=0), 1e-30)
            assert error <= tolerance, f"{name} {length}: error {error:.1e}"
    return graph
