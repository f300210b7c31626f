"""Additive attention biases that depend on the distance between query and key."""

import math

import numpy as np
from keras import ops


def alibi_slopes(num_heads):
    """The slopes of ALiBi: `2 ** (-8 i / h)`, and those of 2h in between if h is no power of two.

    Args:
        num_heads: number of heads h.

    Returns:
        NumPy float64 (h,).
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = 2.0 ** (-8.0 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * (num_heads - power), 2) / power)
    return np.concatenate([slopes, between])


def alibi_bias(slopes, query_positions, key_positions):
    """Attention with linear biases, `-slope |i - j|` (https://arxiv.org/abs/2108.12409).

    Args:
        slopes: NumPy float (h,).
        query_positions: int (t,).
        key_positions: int (s,).

    Returns:
        float32 (1, h, t, s).
    """
    distance = ops.absolute(
        ops.subtract(ops.expand_dims(key_positions, 0), ops.expand_dims(query_positions, 1))
    )
    distance = ops.expand_dims(ops.expand_dims(ops.cast(distance, "float32"), 0), 0)
    return ops.multiply(distance, -np.asarray(slopes, "float32").reshape(1, -1, 1, 1))
