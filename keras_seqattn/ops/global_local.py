"""Longformer's attention: a window of neighbours, and global tokens.

Every token attends to the global tokens, and the global tokens attend to every token.
"""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.attention import attention
from keras_seqattn.ops.gather import take_tokens
from keras_seqattn.ops.local import local_attention
from keras_seqattn.ops.nothing import of_tokens


@keras.saving.register_keras_serializable(package="keras_seqattn")
class GlobalTokens(keras.Operation):
    """The positions of the global tokens of each row, from left to right.

    Args:
        max_global_tokens: G, the maximum number of global tokens per row. More are an error if the
            values can be read. In a compiled function or a graph they cannot: there the first G
            are global and the others are ordinary tokens.

    Raises:
        ValueError: a row has more global tokens.
    """

    @checked
    def __init__(self, max_global_tokens, *, name=None):
        super().__init__(name=name)
        self.max_global_tokens = max_global_tokens

    def call(self, global_mask, mask=None):
        chosen = ops.cast(global_mask, "bool")
        if mask is not None:
            chosen = ops.logical_and(chosen, ops.cast(mask, "bool"))
        self._check_count(chosen)
        count = ops.cumsum(ops.cast(chosen, "int32"), axis=1)
        first = ops.logical_and(chosen, ops.less_equal(count, self.max_global_tokens))
        slots = ops.where(first, ops.subtract(count, 1), -1)
        # The position of global token j + 1 is the number of tokens that saw at most j of them.
        seen = ops.arange(self.max_global_tokens, dtype="int32")
        before = ops.less_equal(ops.expand_dims(count, -1), seen)
        return ops.sum(ops.cast(before, "int32"), axis=1), slots

    def _check_count(self, chosen):
        counts = _readable(ops.sum(ops.cast(chosen, "int32"), axis=1))
        most = 0 if counts is None else counts.max(initial=0)
        if most > self.max_global_tokens:
            raise ValueError(
                f"A row has {most} global tokens and max_global_tokens={self.max_global_tokens}. "
                "Mark fewer, or build the model with more."
            )

    def compute_output_spec(self, global_mask, mask=None):
        batch, length = global_mask.shape
        return (
            keras.KerasTensor((batch, self.max_global_tokens), "int32"),
            keras.KerasTensor((batch, length), "int32"),
        )


def global_tokens(global_mask, mask=None, *, max_global_tokens):
    """The positions of the global tokens of each row, from left to right.

    Args:
        global_mask: bool or int (b, n), nonzero = global.
        mask: None, or bool or int (b, n), nonzero = real; padding is never global.
        max_global_tokens: as in `GlobalTokens`.

    Returns:
        int32 (b, G), the position of each global token, filled with n if a row has fewer; and int32
        (b, n), the index of each token among the global tokens, -1 for ordinary tokens.
    """
    return GlobalTokens(max_global_tokens)(global_mask, mask)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class GlobalLocalAttention(keras.Operation):
    """Attention to a window and to global tokens, in O(n (left + right + G)).

    Args:
        left, right: a token attends to keys j with `-left <= j - i <= right`.
        scale: factor of the scores; None is `1 / sqrt(d)`.
    """

    @checked
    def __init__(self, left, right, scale=None, *, name=None):
        super().__init__(name=name)
        self.left = left
        self.right = right
        self.scale = scale

    @of_tokens()
    def call(
        self,
        query,
        key,
        value,
        places,
        slots,
        global_query,
        global_key,
        global_value,
        mask=None,
    ):
        is_global = ops.greater_equal(slots, 0)
        # A global key in the window counts with the global keys already.
        nearby = ops.logical_not(is_global)
        if mask is not None:
            nearby = ops.logical_and(nearby, ops.cast(mask, "bool"))
        local = local_attention(
            query,
            key,
            value,
            nearby,
            shared_key=take_tokens(key, places),
            shared_value=take_tokens(value, places),
            shared_mask=ops.less(places, ops.shape(query)[1]),
            left=self.left,
            right=self.right,
            scale=self.scale,
        )
        far = attention(global_query, global_key, global_value, mask, scale=self.scale)
        far = take_tokens(far, ops.maximum(slots, 0))
        return ops.where(ops.expand_dims(ops.expand_dims(is_global, -1), -1), far, local)

    def compute_output_spec(self, query, key, value, *args, **kwargs):
        return keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)


def global_local_attention(
    query,
    key,
    value,
    places,
    slots,
    global_query,
    global_key,
    global_value,
    mask=None,
    *,
    left,
    right,
    scale=None,
):
    """Longformer's attention (https://arxiv.org/abs/2004.05150).

    A token attends to the window around it and to the global tokens, to each key once. A global
    token attends to every token, with other queries, keys and values. The result is zero for a
    token that may attend to nothing.

    Args:
        query: float (b, n, h, d).
        key: float (b, n, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, n, g, e).
        places, slots: int (b, G) and (b, n), the results of `global_tokens`.
        global_query: float (b, G, h, d), the queries of the global tokens.
        global_key, global_value: float (b, n, g, d) and (b, n, g, e), the keys and values for the
            global tokens.
        mask: None, or bool or int (b, n), nonzero = real.
        left, right, scale: as in `GlobalLocalAttention`.

    Returns:
        float (b, n, h, e).
    """
    operation = GlobalLocalAttention(left, right, scale)
    far = global_query, global_key, global_value
    return operation(query, key, value, places, slots, *far, mask)


def _readable(x):
    """The array of a tensor, or None in a compiled function or a graph: it has no values there."""
    if isinstance(x, keras.KerasTensor):
        return None
    try:
        return np.asarray(ops.convert_to_numpy(x))
    # JAX and TensorFlow raise these errors then.
    except (TypeError, NotImplementedError):
        return None
