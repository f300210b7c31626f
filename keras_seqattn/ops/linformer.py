"""Attention to a fixed number of mixtures of keys."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.attention import attention
from keras_seqattn.ops.nothing import of_tokens


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LinformerAttention(keras.Operation):
    """`softmax(Q (E' K)' scale) F' V` (https://arxiv.org/abs/2006.04768), with one Attention node.

    The j-th real key uses row j of E and F, so padding on either side changes nothing.

    Args:
        scale: factor of the scores; None is `1 / sqrt(d)`.
    """

    @checked
    def __init__(self, scale=None, *, name=None):
        super().__init__(name=name)
        self.scale = scale

    @of_tokens()
    def call(self, query, key, value, key_projection, value_projection, mask=None):
        length, longest = key.shape[1], key_projection.shape[0]
        if length is not None and length > longest:
            raise ValueError(
                f"Linformer's projections are for {longest} keys at most; there are {length}. "
                "Build it with a larger max_length."
            )
        places = None
        if mask is not None:
            mask = ops.cast(ops.cast(mask, "bool"), "int32")
            places = ops.maximum(ops.subtract(ops.cumsum(mask, axis=1), 1), 0)
        keys = values = _rows(key_projection, places, mask, key)
        if value_projection is not key_projection:
            values = _rows(value_projection, places, mask, key)
        return attention(query, _mix(keys, key), _mix(values, value), scale=self.scale)

    def compute_output_spec(self, query, key, value, key_projection, value_projection, mask=None):
        return keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)


def _rows(projection, places, mask, key):
    """The row of each key, float (s, k), or (b, s, k) with zeros for keys that are not real."""
    projection = ops.cast(projection, key.dtype)
    if places is None:
        return ops.take(projection, ops.arange(ops.shape(key)[1]), axis=0)
    rows = ops.take(projection, places, axis=0)
    return ops.multiply(rows, ops.expand_dims(ops.cast(mask, rows.dtype), 2))


def _mix(rows, x):
    """float (b, s, g, d) -> (b, k, g, d)."""
    groups, width = x.shape[2:]
    x = ops.reshape(x, (-1, ops.shape(x)[1], groups * width))
    mixed = ops.matmul(ops.swapaxes(rows, -1, -2), x)
    return ops.reshape(mixed, (-1, rows.shape[-1], groups, width))


def linformer_attention(
    query, key, value, key_projection, value_projection, mask=None, *, scale=None
):
    """Linformer's attention, O(n k), with grouped key/value heads.

    Args:
        query: float (b, t, h, d).
        key: float (b, s, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, s, g, e).
        key_projection: float (n, k). Row j has the weight of the j-th real key in each of the k
            mixtures. s is at most n.
        value_projection: float (n, k), the same for values.
        mask: bool or int (b, s), nonzero = real; other keys are in no mixture.
        scale: as in `LinformerAttention`.

    Returns:
        float (b, t, h, e), zeros if there is no key.

    Raises:
        ValueError: there are more keys than rows in the projections, if the number is known.
    """
    operation = LinformerAttention(scale)
    return operation(query, key, value, key_projection, value_projection, mask)
