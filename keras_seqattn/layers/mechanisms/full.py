"""Attention to every key."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.layers.templates import template
from keras_seqattn.ops.attention import attention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Full(Mechanism):
    """`softmax(q k' / sqrt(d)) v` over all keys, O(n^2); the same as `attention=None`.

    A `MultiHeadAttention` with this mechanism computes the attention itself, so a bias, returned
    scores and a growing cache are possible.

    Example:
        MultiHeadAttention(8, 64, attention=Full())
    """

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        self.refuse(state)
        return attention(query, key, value, mask, causal=causal, scale=scale)


def mechanism_template(attention):
    """`template` of an `attention=`. None for `Full`: a layer computes that itself."""
    return None if isinstance(attention, Full) else template(attention, "mechanism")
