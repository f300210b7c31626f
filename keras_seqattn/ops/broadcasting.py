"""Sums of tensors of different shapes."""

import keras
from keras import ops


def add(x, y):
    """`x + y`. On TensorFlow, `keras.ops.add` may add along the wrong axis.

    If only one axis of y is longer than 1, and it is as long as the second or the last axis of x,
    Keras takes y for a bias of channels. It does so wherever that axis is in y.

    Args:
        x, y: tensors whose shapes broadcast.

    Returns:
        A tensor with the dtype that Keras gives to the sum.
    """
    dtypes = [keras.backend.standardize_dtype(z.dtype) for z in (x, y)]
    if dtypes[0] != dtypes[1]:
        # TensorFlow's operator accepts only tensors of the same dtype.
        dtype = keras.backend.result_type(*dtypes)
        x, y = ops.cast(x, dtype), ops.cast(y, dtype)
    return x + y
