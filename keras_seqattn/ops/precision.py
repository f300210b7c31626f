"""Half precision loses whole digits in long sums and softmaxes; these go on in float32."""

import keras
from keras import ops


def full_precision(dtype):
    """The name of the dtype to sum in: float64 for float64, else float32."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def in_full_precision(x):
    """A float tensor as float32; float64 stays as it is."""
    return ops.cast(x, full_precision(x.dtype))
