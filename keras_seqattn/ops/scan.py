"""`keras.ops.scan` where Keras cannot do it."""

import math

import keras
from keras import ops


def scan(body, state, xs):
    """`keras.ops.scan` over several tensors, of unknown length too; ONNX Scan.

    Args:
        body: function of a state and one slice of each of `xs` to a new state and an output, which
            TensorFlow needs to have the shapes of the state.
        state: tuple of tensors.
        xs: tuple of tensors (n, ...).

    Returns:
        The last state and the stacked outputs.
    """
    if xs[0].shape[0] == 1:
        state, out = body(state, tuple(x[0] for x in xs))
        return state, keras.tree.map_structure(lambda x: ops.expand_dims(x, 0), out)
    traced = isinstance(xs[0], keras.KerasTensor)
    if traced or keras.backend.backend() != "tensorflow" or xs[0].shape[0] is not None:
        return ops.scan(body, state, xs)
    # Keras on TensorFlow fails on the second of several tensors whose length is unknown.
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
