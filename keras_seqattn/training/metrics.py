"""Metrics for fit, over the tokens that are not ignored."""

import keras
from keras import ops

from keras_seqattn.arguments import integer
from keras_seqattn.training.losses import token_losses


class _MeanOverTokens(keras.metrics.Mean):
    """The mean of a value over the tokens that count, in all batches together."""

    def __init__(self, ignore_class, name, dtype):
        super().__init__(name=name, dtype=dtype)
        integer(ignore_class, "ignore_class", least=-(2**31), most=2**31 - 1)
        self.ignore_class = ignore_class

    def _add(self, values, counts, sample_weight):
        """Add values (b, t); counts are 1 for tokens that count; weights are (b,) or (b, t)."""
        if sample_weight is not None:
            weight = ops.cast(sample_weight, counts.dtype)
            counts = counts * (weight if len(weight.shape) == 2 else ops.reshape(weight, (-1, 1)))
        # Flat, because otherwise Keras would take the mean of each row first.
        super().update_state(ops.reshape(values, (-1,)), ops.reshape(counts, (-1,)))

    def get_config(self):
        return {**super().get_config(), "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Perplexity(_MeanOverTokens):
    """exp of the mean cross-entropy of the tokens that count, without label smoothing.

    Args:
        ignore_class: int, the label of tokens that do not count.
        name: str.
        dtype: dtype of the variables.

    Call arguments: labels int (b, t), logits float (b, t, v).
    """

    def __init__(self, ignore_class=-100, name="perplexity", dtype=None):
        super().__init__(ignore_class, name, dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        logits = ops.cast(y_pred, "float32")
        losses, counts = token_losses(y_true, logits, self.ignore_class)
        self._add(losses, counts, sample_weight)

    def result(self):
        return ops.exp(super().result())


@keras.saving.register_keras_serializable(package="keras_seqattn")
class MaskedAccuracy(_MeanOverTokens):
    """The share of tokens whose label has the largest logit, among the tokens that count.

    Args:
        ignore_class: int, the label of tokens that do not count.
        name: str.
        dtype: dtype of the variables.

    Call arguments: labels int (b, t), logits float (b, t, v).
    """

    def __init__(self, ignore_class=-100, name="accuracy", dtype=None):
        super().__init__(ignore_class, name, dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        labels = ops.cast(y_true, "int32")
        right = ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), labels)
        counts = ops.cast(ops.not_equal(labels, self.ignore_class), self.dtype)
        self._add(ops.cast(right, self.dtype), counts, sample_weight)
