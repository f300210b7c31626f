"""Learned biases of attention scores that depend on the distance between query and key."""

import keras
from keras import ops

from keras_seqattn.ops.position_bias import distance_buckets, relative_position_bias


@keras.saving.register_keras_serializable(package="keras_seqattn")
class RelativePositionBias(keras.layers.Layer):
    """T5's learned bias per head and distance (https://arxiv.org/abs/1910.10683); ONNX Gather.

    One layer serves every attention of a stack, as the `bias` that these add to their scores.

    Args:
        num_heads: number of heads h.
        num_buckets: number of ranges of distances that share a bias.
        max_distance: distance from which on all share the last range.
        bidirectional: whether keys may lie after the query.
        embeddings_initializer: initializer of the table (num_buckets, h).

    Call arguments:
        inputs: (b, t) or (b, t, m), what the queries are made of; only its length is used.
        past_key: float (b, g, p, d), keys before the first query; None has none.
        cache_position: int () or (1,), the slot of the first query where `past_key` is a buffer
            of fixed size that has room for its key.

    Returns:
        float (1, h, t, s) over the s keys: t, or p + t with `past_key`, or its p slots with
        `cache_position`.
    """

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

    def build(self, inputs_shape=None, past_key_shape=None):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.num_buckets, self.num_heads),
            initializer=self.embeddings_initializer,
        )

    def call(self, inputs, past_key=None, cache_position=None):
        length = ops.shape(inputs)[1]
        queries, key_length = ops.arange(length, dtype="int32"), length
        if past_key is not None:
            start = key_length = ops.shape(past_key)[2]
            if cache_position is None:
                key_length = start + length
            else:
                start = ops.reshape(ops.cast(cache_position, "int32"), ())
            queries = ops.add(queries, start)
        keys = ops.arange(key_length, dtype="int32")
        bias = relative_position_bias(self.embeddings, self.buckets, queries, keys)
        return ops.cast(bias, self.compute_dtype)

    def compute_output_spec(self, inputs, past_key=None, cache_position=None):
        length = inputs.shape[1]
        past_length = 0 if past_key is None else past_key.shape[2]
        known = length is not None and past_length is not None
        key_length = past_length + length if known else None
        if cache_position is not None:
            key_length = past_length
        return keras.KerasTensor((1, self.num_heads, length, key_length), self.compute_dtype)

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
