"""Position ids of tokens, computed from the mask of real tokens."""

import keras
from keras import ops

from keras_seqattn.ops.broadcasting import add


@keras.saving.register_keras_serializable(package="keras_seqattn")
class PositionIds(keras.Operation):
    """`max(cumsum(mask) - 1, 0)` at the columns of the current tokens."""

    def call(self, attention_mask, input_ids, cache_position=None):
        counts = ops.cumsum(ops.cast(attention_mask, "int32"), axis=-1)
        return _new_columns(ops.maximum(ops.subtract(counts, 1), 0), input_ids, cache_position)

    def compute_output_spec(self, attention_mask, input_ids, cache_position=None):
        return keras.KerasTensor(tuple(input_ids.shape[:2]), "int32")


def position_ids(attention_mask, input_ids, cache_position=None):
    """Positions that count only real tokens, so padding on either side does not change them.

    Args:
        attention_mask: bool or int (b, s), over the past and the current tokens; 1 = real.
        input_ids: (b, t) or (b, t, m), the current tokens; only their length is used.
        cache_position: int () or (1,), the column of the first current token in a buffer of fixed
            size; None means that the current tokens are the last t columns.

    Returns:
        int32 (b, t).
    """
    return PositionIds()(attention_mask, input_ids, cache_position)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class NewTokens(keras.Operation):
    """The columns of the current tokens, from a mask over past and current tokens."""

    def call(self, attention_mask, input_ids, cache_position=None):
        return _new_columns(attention_mask, input_ids, cache_position)

    def compute_output_spec(self, attention_mask, input_ids, cache_position=None):
        return keras.KerasTensor(tuple(input_ids.shape[:2]), attention_mask.dtype)


def new_tokens(attention_mask, input_ids, cache_position=None):
    """A mask of the current tokens that are real; arguments as for `position_ids`.

    Returns:
        (b, t), with the dtype of the mask.
    """
    return NewTokens()(attention_mask, input_ids, cache_position)


def _new_columns(columns, input_ids, cache_position):
    length, total = ops.shape(input_ids)[1], ops.shape(columns)[1]
    if cache_position is None:
        return columns[:, total - length :]
    start = ops.reshape(ops.cast(cache_position, "int32"), ())
    return ops.take(columns, ops.add(ops.arange(length, dtype="int32"), start), axis=1)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class StreamPositions(keras.Operation):
    """`max(length + cumsum(mask) - 1, 0)`, and `length + sum(mask)`."""

    def call(self, attention_mask, length):
        counts = ops.cumsum(ops.cast(attention_mask, "int32"), axis=-1)
        counts = add(counts, ops.expand_dims(ops.cast(length, "int32"), 1))
        return ops.maximum(ops.subtract(counts, 1), 0), counts[:, -1]

    def compute_output_spec(self, attention_mask, length):
        return (
            keras.KerasTensor(tuple(attention_mask.shape), "int32"),
            keras.KerasTensor(tuple(length.shape), "int32"),
        )


def stream_positions(attention_mask, length):
    """Positions of tokens if only the number of earlier tokens is known.

    Args:
        attention_mask: bool or int (b, t), over the current tokens; 1 = real.
        length: int (b,), the number of real tokens before them.

    Returns:
        int32 (b, t), and int32 (b,), the number of real tokens including these.
    """
    return StreamPositions()(attention_mask, length)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class SlotPositions(keras.Operation):
    """Positions of the current tokens and of all keys; they count padding too."""

    def call(self, x, past_key=None, cache_position=None):
        length = ops.shape(x)[1]
        past = 0 if past_key is None else ops.shape(past_key)[2]
        start, total = past, past + length
        if cache_position is not None:
            start, total = ops.reshape(ops.cast(cache_position, "int32"), ()), past
        queries = ops.add(ops.arange(length, dtype="int32"), start)
        return queries, ops.arange(total, dtype="int32")

    def compute_output_spec(self, x, past_key=None, cache_position=None):
        length, past = x.shape[1], 0 if past_key is None else past_key.shape[2]
        total = None if past is None or length is None else past + length
        if cache_position is not None:
            total = past
        return keras.KerasTensor((length,), "int32"), keras.KerasTensor((total,), "int32")


def slot_positions(x, past_key=None, cache_position=None):
    """Positions by index: `p, ..., p + t - 1` for queries and `0, ..., p + t - 1` for keys.

    Args:
        x: (b, t) or (b, t, m), the current tokens; only their length is used.
        past_key: float (b, g, p, d), the cache before them; None is an empty cache.
        cache_position: int () or (1,), the slot of the first token if `past_key` is a buffer. The
            p slots of the buffer are then all the keys.

    Returns:
        int32 (t,) and int32 (p + t,), or (p,) with `cache_position`.
    """
    return SlotPositions()(x, past_key, cache_position)
