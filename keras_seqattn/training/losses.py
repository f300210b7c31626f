"""Cross-entropy over the tokens that count, with label smoothing."""

import keras
from keras import ops

from keras_seqattn.arguments import integer, number


@keras.saving.register_keras_serializable(package="keras_seqattn")
class MaskedCrossEntropy(keras.losses.Loss):
    """-(1 - e) log p(label) - e/v sum_j log p(j), averaged over the tokens that are not ignored.

    The smoothing is that of Szegedy et al. 2016, as in PyTorch and transformers. For a model whose
    outputs are a dict, write `compile(loss={"logits": MaskedCrossEntropy(0.1)})`.

    Args:
        label_smoothing: float e in [0, 1).
        ignore_class: int, the label of padding and of other tokens that do not count.
        reduction: "sum_over_batch_size", the mean over the tokens that count; "sum"; or None, the
            loss of every token, float (b, t).
        name: str.
        dtype: dtype of the computation; float32, because half precision cannot hold token ids.

    Call arguments: labels int (b, t), logits float (b, t, v).
    """

    def __init__(
        self,
        label_smoothing=0.0,
        ignore_class=-100,
        reduction="sum_over_batch_size",
        name="masked_cross_entropy",
        dtype="float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        integer(ignore_class, "ignore_class", least=-(2**31), most=2**31 - 1)
        if not 0 <= number(label_smoothing, "label_smoothing") < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class

    def call(self, y_true, y_pred):
        losses, counts = token_losses(y_true, y_pred, self.ignore_class, self.label_smoothing)
        if self.reduction != "sum_over_batch_size":
            return losses
        # Keras divides the sum by the number of all tokens; this corrects it to those that count.
        size = ops.cast(ops.size(losses), losses.dtype)
        return losses * (size / ops.maximum(ops.sum(counts), 1))

    def get_config(self):
        config = {"label_smoothing": self.label_smoothing, "ignore_class": self.ignore_class}
        return {**super().get_config(), **config}


def token_losses(labels, logits, ignore_class=-100, label_smoothing=0.0):
    """The cross-entropy of every token, and a mask of the tokens that count.

    Args:
        labels: int (b, t).
        logits: float (b, t, v).
        ignore_class: int, the label of tokens that do not count.
        label_smoothing: float e in [0, 1).

    Returns:
        (float (b, t), 0 for ignored tokens; float (b, t), 1 for tokens that count).
    """
    labels = ops.cast(labels, "int32")
    counts = ops.not_equal(labels, ignore_class)
    chosen = ops.where(counts, labels, 0)
    picked = ops.squeeze(ops.take_along_axis(logits, chosen[..., None], axis=-1), -1)
    losses = ops.logsumexp(logits, axis=-1) - (1 - label_smoothing) * picked
    if label_smoothing:
        losses = losses - label_smoothing * ops.mean(logits, axis=-1)
    counts = ops.cast(counts, losses.dtype)
    return losses * counts, counts
