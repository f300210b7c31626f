"""Sums of tensors of different shapes."""

import keras
from keras import ops


def add(x, y):
    """`x + y`; not `keras.ops.add`, which on TensorFlow may add along the wrong axis.

    Where y has a single axis above 1 that is as long as the second or the last axis of x, Keras
    takes it for a bias of channels, wherever in y that axis is.

    Args:
        x, y: tensors whose shapes broadcast.

    Returns:
        A tensor, of the dtype that Keras gives to a sum of both.
    """
    dtypes = [keras.backend.standardize_dtype(z.dtype) for z in (x, y)]
    if dtypes[0] != dtypes[1]:
        # TensorFlow's operator takes one dtype only.
        dtype = keras.backend.result_type(*dtypes)
        x, y = ops.cast(x, dtype), ops.cast(y, dtype)
    return x + y
