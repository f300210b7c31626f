"""Rotary position embedding."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.constants import shared_constant


@keras.saving.register_keras_serializable(package="keras_seqattn")
class RotaryEmbedding(keras.Operation):
    """Rotates pairs of channels by the angles of their positions; one ONNX RotaryEmbedding node.

    Args:
        interleaved: pairs are neighbours (0, 1), (2, 3), ...; otherwise channels i and i + r / 2
            are a pair.
    """

    @checked
    def __init__(self, interleaved=False, *, name=None):
        super().__init__(name=name)
        self.interleaved = interleaved

    def call(self, x, cos, sin, position_ids=None):
        if position_ids is not None:
            cos = ops.take(shared_constant(cos), position_ids, axis=0)
            sin = ops.take(shared_constant(sin), position_ids, axis=0)
        half = cos.shape[-1]
        cos = ops.expand_dims(ops.cast(cos, x.dtype), 2)  # (b, t, 1, r / 2)
        sin = ops.expand_dims(ops.cast(sin, x.dtype), 2)
        if self.interleaved:
            first, second = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
        else:
            first, second = x[..., :half], x[..., half : 2 * half]
        rotated = [
            ops.subtract(ops.multiply(first, cos), ops.multiply(second, sin)),
            ops.add(ops.multiply(first, sin), ops.multiply(second, cos)),
        ]
        if self.interleaved:
            pairs = ops.stack(rotated, axis=-1)
            batch, length, heads = ops.shape(x)[:3]
            rotated = [ops.reshape(pairs, (batch, length, heads, 2 * half))]
        if 2 * half < x.shape[-1]:
            rotated.append(x[..., 2 * half :])
        return ops.concatenate(rotated, axis=-1) if len(rotated) > 1 else rotated[0]

    def compute_output_spec(self, x, cos, sin, position_ids=None):
        return keras.KerasTensor(x.shape, x.dtype)


def rotary_embedding(x, cos, sin, position_ids=None, *, interleaved=False):
    """Rotary position embedding (https://arxiv.org/abs/2104.09864).

    Args:
        x: float (b, t, h, d); the first r of the d channels are rotated, the others stay.
        cos: float (max_position, r / 2) with `position_ids`, (b, t, r / 2) without.
        sin: float, with the shape of `cos`.
        position_ids: int (b, t), rows of the tables.
        interleaved: as in `RotaryEmbedding`.

    Returns:
        float (b, t, h, d).
    """
    return RotaryEmbedding(interleaved)(x, cos, sin, position_ids)
