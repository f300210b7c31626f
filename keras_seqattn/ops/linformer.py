"""Attention to a fixed number of mixtures of the keys."""

import keras
from keras import ops

from keras_seqattn.ops.attention import attention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LinformerAttention(keras.Operation):
    """`softmax(Q (E' K)' scale) F' V` (https://arxiv.org/abs/2006.04768); one Attention node in it.

    Args:
        scale: factor of the scores; None is `1 / sqrt(d)`.
    """

    def __init__(self, scale=None, *, name=None):
        super().__init__(name=name)
        self.scale = scale

    def call(self, query, key, value, key_projection, value_projection, mask=None):
        length, longest = key.shape[1], key_projection.shape[0]
        if length is not None and length > longest:
            raise ValueError(
                f"Linformer's projections are for {longest} keys at most; there are {length}. "
                "Build it with a larger max_length."
            )
        key, value = _project(key, key_projection, mask), _project(value, value_projection, mask)
        return attention(query, key, value, scale=self.scale)

    def compute_output_spec(self, query, key, value, key_projection, value_projection, mask=None):
        return keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)


def _project(x, projection, mask):
    """float (b, s, g, d) -> (b, k, g, d), the real ones of s mixed by their rows."""
    length, (groups, width) = ops.shape(x)[1], x.shape[2:]
    x = ops.reshape(x, (-1, length, groups * width))
    if mask is not None:
        x = ops.where(ops.expand_dims(ops.cast(mask, "bool"), 2), x, 0.0)
    size = projection.shape[1]
    rows = ops.take(ops.cast(projection, x.dtype), ops.arange(length), axis=0)
    return ops.reshape(ops.matmul(ops.transpose(rows), x), (-1, size, groups, width))


def linformer_attention(
    query, key, value, key_projection, value_projection, mask=None, *, scale=None
):
    """Linformer's attention, O(n k), with grouped key/value heads.

    Args:
        query: float (b, t, h, d).
        key: float (b, s, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, s, g, e).
        key_projection: float (n, k), row j the part that key j has in each of the k mixtures; s is
            n at most.
        value_projection: float (n, k), the same for values.
        mask: bool or int (b, s), nonzero = real; the others are in no mixture.
        scale: as in `LinformerAttention`.

    Returns:
        float (b, t, h, e), zeros where there is no key.

    Raises:
        ValueError: more keys than the projections have rows, where the number is known.
    """
    operation = LinformerAttention(scale)
    return operation(query, key, value, key_projection, value_projection, mask)
