"""Position ids of tokens, from the mask that says which tokens are real."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seqattn")
class PositionIds(keras.Operation):
    """`max(cumsum(mask) - 1, 0)` at the columns of the current tokens."""

    def call(self, attention_mask, input_ids, cache_position=None):
        counts = ops.cumsum(ops.cast(attention_mask, "int32"), axis=-1)
        positions = ops.maximum(ops.subtract(counts, 1), 0)
        length, total = ops.shape(input_ids)[1], ops.shape(attention_mask)[1]
        if cache_position is None:
            return positions[:, total - length :]
        start = ops.reshape(ops.cast(cache_position, "int32"), ())
        return ops.take(positions, ops.add(ops.arange(length, dtype="int32"), start), axis=1)

    def compute_output_spec(self, attention_mask, input_ids, cache_position=None):
        return keras.KerasTensor(tuple(input_ids.shape[:2]), "int32")


def position_ids(attention_mask, input_ids, cache_position=None):
    """Positions that count real tokens only, so that padding on either side moves nothing.

    Args:
        attention_mask: bool or int (b, s), over the past and the current tokens; 1 = real.
        input_ids: (b, t) or (b, t, m), the current tokens; only their length is used.
        cache_position: int () or (1,), the column of the first current token in a buffer of fixed
            size; None means that the current tokens are the last t columns.

    Returns:
        int32 (b, t).
    """
    return PositionIds()(attention_mask, input_ids, cache_position)
