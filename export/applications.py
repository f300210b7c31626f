"""Every architecture of keras.applications as a file: is it right, how large, how fast to export.

Usage: python export/applications.py [--only NAME ...] [--size PIXELS] [--top] [--output FILE]

One size of each architecture is built without a download, and its weights and batch statistics are
random. The graph is made with a dynamic batch, and without its top also with dynamic height and
width, and onnxruntime runs it at several sizes. A row gives the greatest error, as a part of the
largest value of Keras, the nodes of the file, its transpositions, and the seconds of the trace,
without the writing of the weights. With --top, the sizes are fixed. KERAS_BACKEND chooses the
backend. Ends with 1 if an error is above 1e-3.
"""

import argparse
import collections
import gc
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from machine import description, table

NAMES = """ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionResNetV2 InceptionV3
MobileNet MobileNetV2 MobileNetV3Large MobileNetV3Small NASNetMobile ResNet50 ResNet50V2 VGG16
Xception""".split()
# Keras has it for the other backends only.
_NOT_ON_TORCH = ("NASNetMobile",)
# Its branches agree for no size if Keras does not know the size.
_FIXED = ("NASNetMobile",)
# The smallest pictures that Keras accepts for an architecture.
_LEAST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
_TOLERANCE = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--size", type=int, default=64, help="pixels on a side")
    parser.add_argument("--top", action="store_true", help="with the classifier, sizes are fixed")
    parser.add_argument("--output", type=pathlib.Path, help="also write the table here")
    arguments = parser.parse_args()
    rows, worst = [], 0.0
    import keras

    left_out = _NOT_ON_TORCH if keras.backend.backend() == "torch" else ()
    for name in (name for name in arguments.only if name not in left_out):
        cells, error = row(name, max(arguments.size, _LEAST.get(name, 32)), arguments.top)
        rows.append(cells)
        worst = max(worst, error)
        print(*cells, file=sys.stderr, flush=True)
    header = ["architecture", "error", "nodes", "transpositions", "most frequent", "trace, s"]
    text = f"{description(['keras', 'onnxruntime'])}.\n\n{table(header, rows)}"
    if arguments.output:
        arguments.output.write_text(text + "\n")
    print(text)
    sys.exit(worst > _TOLERANCE)


def row(name, size, top):
    """(cells of the table, error) of one architecture. For the arguments, see `random_model`."""
    model = random_model(name, size, top)
    from keras_seqattn.onnx import build_graph

    start = time.perf_counter()
    graph = build_graph(model)
    seconds = time.perf_counter() - start
    kinds = collections.Counter(node.op_type for node in graph.graph)
    shapes = [(2, size, size), (1, size, size)]
    if not _is_fixed(name, top):
        shapes += [(1, size + 32, size), (1, size + 13, size + 7)]
    error = max(_error(model, graph, shapes))
    frequent = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(4))
    cells = [name, f"{error:.1e}", sum(kinds.values()), kinds["Transpose"], frequent]
    del model, graph
    gc.collect()
    return [*cells, f"{seconds:.2f}"], error


def _is_fixed(name, top):
    return top or name in _FIXED


def random_model(name, size, top):
    """An architecture with random weights and batch statistics.

    Args:
        name: a name in keras.applications.
        size: pixels on a side.
        top: whether it has its classifier. If it has none, height and width are dynamic.
    """
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    shape = (size, size, 3) if _is_fixed(name, top) else (None, None, 3)
    model = getattr(keras.applications, name)(weights=None, include_top=top, input_shape=shape)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        leaf = variable.path.rpartition("/")[2]
        if "variance" in leaf:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) < 2:
            noise = 0.1 * rng.standard_normal(variable.shape)
            variable.assign(keras.ops.convert_to_numpy(variable.value) + noise)
    return model


def _error(model, graph, shapes):
    import keras
    import numpy as np
    import onnx_ir as ir
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    feed = session.get_inputs()[0].name
    rng = np.random.default_rng(1)
    for shape in shapes:
        x = rng.uniform(0, 255, (*shape, 3)).astype("float32")
        # JAX would compile each operation of a direct call.
        is_jax = keras.backend.backend() == "jax"
        result = model.predict_on_batch(x) if is_jax else model(x, training=False)
        expected = keras.ops.convert_to_numpy(result)
        (actual,) = session.run(None, {feed: x})
        yield float(np.abs(actual - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
