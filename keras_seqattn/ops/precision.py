"""Long sums and softmaxes in float32, because half precision loses whole digits there."""

import keras
from keras import ops

# float16 ends at 65,504, so products of numbers above 256 may be too large.
_SHRINK = 2.0**-8


def full_precision(dtype):
    """The name of the dtype for sums: float64 for float64, else float32."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def in_full_precision(x):
    """A float tensor as float32; float64 stays as it is."""
    return ops.cast(x, full_precision(x.dtype))


def products(query, key):
    """`q k'` over the last axis in full precision, also if half precision would overflow.

    Args:
        query: float (..., t, d).
        key: float (..., s, d).

    Returns:
        float32 (..., t, s), float64 for float64.
    """
    key = ops.swapaxes(key, -1, -2)
    if keras.backend.standardize_dtype(query.dtype) != "float16":
        return in_full_precision(ops.matmul(query, key))
    # A power of two is exact, except for numbers that are too small to matter in a score.
    query, key = (ops.multiply(x, _SHRINK) for x in (query, key))
    return ops.multiply(in_full_precision(ops.matmul(query, key)), _SHRINK**-2)
