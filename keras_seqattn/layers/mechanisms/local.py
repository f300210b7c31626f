"""Attention to a window around each query as a mechanism."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.local import LocalAttention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Local(Mechanism):
    """`softmax(q k' / sqrt(d)) v` over a window, O(n (left + right)); see `ops.LocalAttention`.

    Its state is the window: the last `left * dilation` keys and values in order of time, and a mask
    of the real ones. With a state, a token costs the same for a past of any length.

    Args:
        left, right: query i attends to its own key and to keys `i + dilation m` with
            `-left <= m <= right`. In a causal layer `right` counts as 0.
        dilation: distance between two neighbours among these keys.

    Raises:
        ValueError: a side is negative or the dilation is below 1; or it is called with a state but
            not `causal`.

    Example:
        EncoderBlock(12, 64, 3072, attention=Local(128, 128))
        DecoderBlock(12, 64, 3072, attention=Local(255))
    """

    @checked
    def __init__(self, left, right=0, dilation=1, **kwargs):
        super().__init__(**kwargs)
        LocalAttention(left, right, dilation)
        self.left = left
        self.right = right
        self.dilation = dilation

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        right = 0 if causal else self.right
        operation = LocalAttention(self.left, right, self.dilation, scale)
        if state is None:
            return operation(query, key, value, mask)
        out, *state = operation(query, key, value, mask, *state)
        return out, tuple(state)

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        slots = self.left * self.dilation
        return {
            "key": ((num_key_value_heads, slots, head_dim), None),
            "value": ((num_key_value_heads, slots, value_dim), None),
            "mask": ((slots,), "int32"),
        }

    def get_config(self):
        config = super().get_config()
        config.update({"left": self.left, "right": self.right, "dilation": self.dilation})
        return config
