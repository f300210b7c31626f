"""Additive attention biases that depend on the distance between query and key."""

import functools
import math

import numpy as np
from keras import ops

from keras_seqattn.errors import ConfigError


def alibi_slopes(num_heads):
    """The slopes of ALiBi: `2 ** (-8 i / h)`, with others in between if h is no power of two.

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


def check_buckets(num_buckets, max_distance, bidirectional=True):
    """Check the arguments of `distance_buckets`.

    Raises:
        ConfigError: there are too few buckets, or more than there are distances for.
    """
    count = num_buckets // 2 if bidirectional else num_buckets
    exact = count // 2
    if exact < 1 or max_distance <= exact:
        raise ConfigError(
            f"relative positions need {4 if bidirectional else 2} buckets or more, and a largest "
            f"distance above the {exact} that have a bucket each; got {num_buckets} buckets up to "
            f"distance {max_distance}."
        )


@functools.cache
def distance_buckets(num_buckets, max_distance, bidirectional=True):
    """The bucket of each distance from a query to a key (T5, https://arxiv.org/abs/1910.10683).

    Each bucket of the first half has one distance. The buckets of the second half have wider and
    wider ranges, on a logarithmic scale that ends at `max_distance`. With `bidirectional`, half of
    all buckets is for keys after the query. Otherwise such keys are in the bucket of distance 0.

    Args:
        num_buckets: number of buckets n.
        max_distance: distance r; this and all larger distances share the last bucket.
        bidirectional: whether keys may come after the query.

    Returns:
        NumPy int32 (2 r + 1,): the buckets of `key - query = -r, ..., r`. Do not write to it.

    Raises:
        ConfigError: there are too few buckets, or more than there are distances for.
    """
    check_buckets(num_buckets, max_distance, bidirectional)
    count = num_buckets // 2 if bidirectional else num_buckets
    exact = count // 2
    distances = np.arange(max_distance + 1)
    buckets = np.where(
        distances < exact,
        distances,
        np.minimum(exact + _steps_beyond(distances, exact, max_distance, count), count - 1),
    )
    after = count + buckets[1:] if bidirectional else np.zeros(max_distance, int)
    table = np.concatenate([buckets[::-1], after]).astype("int32")
    table.flags.writeable = False
    return table


def _steps_beyond(distances, exact, max_distance, count):
    # Models are trained with buckets computed in float32. Its rounding moves some distances on an
    # edge, for example distance 16 with 18 buckets and 128 as the largest distance.
    ratio = (np.maximum(distances, exact) / exact).astype("float32")
    logarithm = np.log(ratio.astype("float64")).astype("float32")
    steps = logarithm / np.float32(math.log(max_distance / exact)) * np.float32(count - exact)
    return steps.astype(int)


def relative_position_bias(table, buckets, query_positions, key_positions):
    """One learned bias for each head and bucket of distances; one Gather by distance in ONNX.

    Args:
        table: float (n, h), a row for each bucket.
        buckets: NumPy int (2 r + 1,), the result of `distance_buckets`.
        query_positions: int (t,).
        key_positions: int (s,).

    Returns:
        float (1, h, t, s).
    """
    reach = len(buckets) // 2
    columns = ops.subtract(
        ops.expand_dims(ops.add(key_positions, reach), 0), ops.expand_dims(query_positions, 1)
    )
    by_distance = ops.take(ops.transpose(table), buckets, axis=1)  # (h, 2 r + 1)
    return ops.expand_dims(ops.take(by_distance, ops.clip(columns, 0, 2 * reach), axis=1), 0)
