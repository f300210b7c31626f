"""Scores by relative distance: their sinusoids, and the shift from distances to keys."""

import keras
from keras import ops

from keras_seqattn.ops.rotary_frequencies import base_frequencies


@keras.saving.register_keras_serializable(package="keras_seqattn")
class RelativeShift(keras.Operation):
    """`out[i, j] = x[i, j + t - 1 - i]` by a pad and two reshapes: linear in the size of x."""

    def call(self, x):
        batch, heads, length, keys = ops.shape(x)
        # With one more column, each row of the other length begins one position earlier.
        x = ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 0]])
        x = ops.reshape(x, (batch, heads, keys + 1, length))
        return ops.reshape(x[:, :, 1:], (batch, heads, length, keys))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def relative_shift(x):
    """From one column for each distance, the largest first, to one for each key (Transformer-XL).

    The last of t queries is at the position of the last of s keys. So query i is at distance
    `i + s - t - j` from key j. Keys after the query have no distance: their columns hold values of
    other rows.

    Args:
        x: float (b, h, t, s), column c for distance `s - 1 - c`.

    Returns:
        float (b, h, t, s), column j for key j.
    """
    return RelativeShift()(x)


def distance_sinusoids(length, dim, clamp_distance=None):
    """`sin(p / 10000 ** (2 i / m))`, then the cosines, for p = length - 1, ..., 1, 0.

    Args:
        length: number of distances s, which may be dynamic.
        dim: size m of a vector, even.
        clamp_distance: larger distances are treated as this one; None is no limit.

    Returns:
        float32 (s, m).
    """
    distances = ops.subtract(length - 1, ops.arange(length, dtype="int32"))
    if clamp_distance is not None:
        distances = ops.minimum(distances, clamp_distance)
    frequencies = base_frequencies(dim, 10000.0).astype("float32").reshape(1, -1)
    angles = ops.multiply(ops.expand_dims(ops.cast(distances, "float32"), 1), frequencies)
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=1)
