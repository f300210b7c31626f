"""Learned biases of attention scores that depend on the distance between query and key."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.position_bias import distance_buckets, relative_position_bias


@keras.saving.register_keras_serializable(package="keras_seqattn")
class RelativePositionBias(keras.layers.Layer):
    """T5's learned bias per head and distance (https://arxiv.org/abs/1910.10683); ONNX Gather.

    One layer serves every attention of a stack: they add its result to their scores as `bias`.

    Args:
        num_heads: number of heads h.
        num_buckets: number of ranges of distances that share a bias.
        max_distance: this and all larger distances share the last range.
        bidirectional: whether keys may come after the query.
        embeddings_initializer: initializer of the table (num_buckets, h).

    Call arguments:
        query_positions: int (t,).
        key_positions: int (s,).

    Returns:
        float (1, h, t, s).
    """

    @checked
    def __init__(
        self,
        num_heads,
        num_buckets=32,
        max_distance=128,
        bidirectional=True,
        embeddings_initializer="uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.buckets = distance_buckets(num_buckets, max_distance, bidirectional)

    def build(self, query_positions_shape=None, key_positions_shape=None):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.num_buckets, self.num_heads),
            initializer=self.embeddings_initializer,
        )

    def call(self, query_positions, key_positions):
        bias = relative_position_bias(self.embeddings, self.buckets, query_positions, key_positions)
        return ops.cast(bias, self.compute_dtype)

    def compute_output_spec(self, query_positions, key_positions):
        shape = (1, self.num_heads, query_positions.shape[0], key_positions.shape[0])
        return keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "num_buckets": self.num_buckets,
                "max_distance": self.max_distance,
                "bidirectional": self.bidirectional,
                "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            }
        )
        return config
