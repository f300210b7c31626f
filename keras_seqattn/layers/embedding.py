"""Token embeddings, which also give the logits; a scale, and the sum with other embeddings."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked


@keras.saving.register_keras_serializable(package="keras_seqattn")
class TokenEmbedding(keras.layers.ReversibleEmbedding):
    """From token ids to vectors; with `reverse=True` to logits; ONNX Gather and MatMul.

    Args:
        vocabulary_size: number of tokens v.
        hidden_dim: size m of a vector.
        tied: the logits use the same table; otherwise they use a second matrix
            `reverse_embeddings` (m, v).

    Call arguments:
        inputs: int (b, t), or float (b, t, m) with `reverse`.
        reverse: compute logits.

    Returns:
        float (b, t, m), or logits float (b, t, v) with `reverse`.
    """

    @checked
    def __init__(self, vocabulary_size, hidden_dim, tied=True, **kwargs):
        super().__init__(vocabulary_size, hidden_dim, tie_weights=tied, **kwargs)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.tied = tied

    def get_config(self):
        config = super().get_config()
        for name in ("input_dim", "output_dim", "tie_weights"):
            del config[name]
        config.update(
            {
                "vocabulary_size": self.vocabulary_size,
                "hidden_dim": self.hidden_dim,
                "tied": self.tied,
            }
        )
        return config


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Scale(keras.layers.Layer):
    """`factor * x`, for embeddings (`sqrt(m)`) or for hidden states before tied logits; ONNX Mul.

    Args:
        factor: a constant.

    Call arguments:
        x: float of any shape.

    Returns:
        float of the same shape.
    """

    @checked
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.factor = factor

    def call(self, x):
        return ops.multiply(x, self.factor)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="keras_seqattn")
class EmbeddingSum(keras.layers.Layer):
    """The sum of a token embedding and other embeddings that broadcast to it.

    Call arguments:
        embedding: float (b, t, m).
        others: float (b|1, t, m).

    Returns:
        float (b, t, m).
    """

    def call(self, embedding, *others):
        for other in others:
            embedding = ops.add(embedding, other)
        return embedding

    def compute_output_spec(self, embedding, *others):
        return keras.KerasTensor(embedding.shape, embedding.dtype)
