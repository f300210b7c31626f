"""Half precision loses whole digits in long sums and softmaxes; these go on in float32."""

import keras
from keras import ops

# float16 ends at 65,504, so that products of larger numbers than 256 may leave it.
_SHRINK = 2.0**-8


def full_precision(dtype):
    """The name of the dtype to sum in: float64 for float64, else float32."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def in_full_precision(x):
    """A float tensor as float32; float64 stays as it is."""
    return ops.cast(x, full_precision(x.dtype))


def products(query, key):
    """`q k'` over the last axis in full precision, also where half precision would overflow.

    Args:
        query: float (..., t, d).
        key: float (..., s, d).

    Returns:
        float32 (..., t, s), float64 for float64.
    """
    key = ops.swapaxes(key, -1, -2)
    if keras.backend.standardize_dtype(query.dtype) != "float16":
        return in_full_precision(ops.matmul(query, key))
    # A power of two is exact but for numbers that are far too small to count in a score.
    query, key = (ops.multiply(x, _SHRINK) for x in (query, key))
    return ops.multiply(in_full_precision(ops.matmul(query, key)), _SHRINK**-2)
