"""The skeleton of bidirectional encoders: embeddings, a stack of blocks, normalisations."""

import keras
from keras import ops

from keras_seqattn.layers.blocks import EncoderBlock
from keras_seqattn.layers.normalization import normalization


@keras.saving.register_keras_serializable(package="keras_seqattn")
class EmbeddingSum(keras.layers.Layer):
    """The sum of a token embedding and others that broadcast to it.

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


def embed(parts, width, epsilon, dropout):
    """The sum of embeddings, normalised.

    Args:
        parts: list of float (b, t, m), the tokens' first, or (1, t, m).
        width: m.
        epsilon: of the layer normalisation.
        dropout: rate.

    Returns:
        float (b, t, m).
    """
    x = EmbeddingSum(name="embeddings_sum")(*parts)
    policy = keras.config.dtype_policy()
    x = normalization("layer_norm", epsilon, width, policy, "embeddings_norm")(x)
    return keras.layers.Dropout(dropout, name="embeddings_dropout")(x) if dropout else x


def encode(x, attention_mask, num_layers, **block):
    """A stack of encoder blocks named layers_0, layers_1, ...

    Args:
        x: float (b, t, m).
        attention_mask: int (b, t), 1 = real.
        num_layers: number of blocks.
        block: arguments of `EncoderBlock`; initializers as functions that make one.

    Returns:
        float (b, t, m).
    """
    initializer = block.pop("kernel_initializer")
    for index in range(num_layers):
        layer = EncoderBlock(**block, kernel_initializer=initializer(), name=f"layers_{index}")
        x = layer(x, attention_mask=attention_mask)
    return x
