"""Layers between the last hidden states and the outputs of a task."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seqattn")
class FirstToken(keras.layers.Layer):
    """The vector of the first token of each row.

    Call arguments:
        hidden: float (b, t, m).

    Returns:
        float (b, m).
    """

    def call(self, hidden):
        return hidden[:, 0]

    def compute_output_spec(self, hidden):
        return keras.KerasTensor((hidden.shape[0], hidden.shape[2]), hidden.dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LastToken(keras.layers.Layer):
    """The vector of the last real token of each row, with padding on either side.

    Call arguments:
        hidden: float (b, t, m).
        attention_mask: int (b, t), 1 = real.

    Returns:
        float (b, m); zeros for a row without tokens.
    """

    def call(self, hidden, attention_mask):
        mask = ops.cast(attention_mask, "int32")
        count = ops.sum(mask, axis=1, keepdims=True)
        is_last = ops.logical_and(ops.equal(ops.cumsum(mask, axis=1), count), ops.equal(mask, 1))
        return ops.sum(ops.where(ops.expand_dims(is_last, -1), hidden, 0.0), axis=1)

    def compute_output_spec(self, hidden, attention_mask):
        return keras.KerasTensor((hidden.shape[0], hidden.shape[2]), hidden.dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Channel(keras.layers.Layer):
    """One channel of the last axis.

    Args:
        index: number of the channel.

    Call arguments:
        x: float (b, t, c).

    Returns:
        float (b, t).
    """

    def __init__(self, index, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def call(self, x):
        return x[..., self.index]

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape[:-1], x.dtype)

    def get_config(self):
        return {**super().get_config(), "index": self.index}


@keras.saving.register_keras_serializable(package="keras_seqattn")
class OutputBias(keras.layers.Layer):
    """Adds one learned bias per channel, for logits from a tied embedding.

    Call arguments:
        x: float (b, t, v).

    Returns:
        float (b, t, v).
    """

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros")

    def call(self, x):
        return ops.add(x, self.bias)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)
