"""`keras.ops.scan`, also for cases that Keras cannot do or does in quadratic time."""

import math

import keras
from keras import ops


def scan(body, state, xs):
    """`keras.ops.scan` over several tensors, whose length may be unknown; ONNX Scan.

    Args:
        body: function of a state and a tuple with one slice of each of `xs`. It returns a new state
            and an output. On TensorFlow, the output must have the shapes of the state.
        state: tuple or list of tensors.
        xs: tuple of tensors (n, ...).

    Returns:
        The last state and the stacked outputs.
    """
    if xs[0].shape[0] == 1:
        state, out = body(state, tuple(x[0] for x in xs))
        return state, keras.tree.map_structure(lambda x: ops.expand_dims(x, 0), out)
    # A trace must give the same operations on every backend.
    backend = None if isinstance(xs[0], keras.KerasTensor) else keras.backend.backend()
    if backend == "torch":
        return _scan_slices(body, state, xs)
    if backend == "tensorflow" and len(xs) > 1 and xs[0].shape[0] is None:
        return _scan_rows(body, state, xs)
    return ops.scan(body, state, xs)


def _scan_slices(body, state, xs):
    """A loop over slices that are all taken at once.

    The gradient of a single slice is as large as the whole tensor. If n slices are taken one by
    one, as Keras does on PyTorch, the gradients take O(n^2) time.
    """
    state, xs = keras.tree.map_structure(ops.convert_to_tensor, (state, xs))
    outputs = []
    for slices in zip(*(ops.unstack(x) for x in xs), strict=True):
        state, output = body(state, slices)
        outputs.append(output)
    return state, keras.tree.map_structure(lambda *steps: ops.stack(steps), *outputs)


def _scan_rows(body, state, xs):
    """A loop over one tensor that holds the slices of all tensors side by side.

    Keras on TensorFlow fails on the second of several tensors if their length is unknown.
    """
    shapes = [ops.shape(x)[1:] for x in xs]
    sizes = [math.prod(shape) for shape in shapes]
    rows = [ops.reshape(x, (-1, size)) for x, size in zip(xs, sizes, strict=True)]

    def unpack(state, row):
        slices, start = [], 0
        for shape, size in zip(shapes, sizes, strict=True):
            slices.append(ops.reshape(row[start : start + size], shape))
            start += size
        return body(state, tuple(slices))

    return ops.scan(unpack, state, ops.concatenate(rows, axis=1))
