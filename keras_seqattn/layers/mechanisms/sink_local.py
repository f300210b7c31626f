"""Attention to a window and to the first tokens as a mechanism."""

import keras
from keras import ops

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import real_tokens
from keras_seqattn.ops.nothing import is_empty
from keras_seqattn.ops.rotary import rotary_embedding
from keras_seqattn.ops.rotary_frequencies import DYNAMIC_TYPES
from keras_seqattn.ops.sink_local import SinkLocalAttention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class SinkLocal(Mechanism):
    """Attention sinks and a rolling window (https://arxiv.org/abs/2309.17453); causal, O(n left).

    Query i attends to the keys j with `i - left <= j <= i`, and to the sinks: the first `num_sinks`
    real tokens of its row. Padding on the left changes nothing. The state holds the sinks, the last
    `left` keys and values in order of time, and the number of real tokens.

    Args:
        num_sinks: number of sinks.
        left: number of keys before its own key that a query attends to.
        positions: None, or a `RotaryPositions` by which the mechanism rotates. The layer itself
            must have no positions then. They count real tokens with the help of the state. A key of
            the window has its true distance. For the sinks, query i is at position
            `min(i, num_sinks + left)`. No distance is larger than that, so a text may be longer
            than the texts of the training.

    Raises:
        ValueError: there are no sinks, the window is negative, or the positions depend on the
            length; or it is called without `causal`.

    Example:
        DecoderBlock(12, 64, 3072, attention=SinkLocal(4, 1019, RotaryPositions(64)))
    """

    @checked
    def __init__(self, num_sinks, left, positions=None, **kwargs):
        super().__init__(**kwargs)
        SinkLocalAttention(num_sinks, left)
        if getattr(positions, "rope_type", None) in DYNAMIC_TYPES:
            raise ValueError(
                "Positions inside a window cannot depend on the length of the text. Received: "
                f"positions with rope_type={positions.rope_type!r}"
            )
        self.num_sinks = num_sinks
        self.left = left
        self.positions = positions

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        if not causal:
            raise ValueError(
                f"{self.path}: SinkLocal is causal; without causal=True take Local or GlobalLocal."
            )
        real = real_tokens(key, mask)
        counts = ops.cumsum(ops.cast(real, "int32"), axis=1)
        if state is not None:
            *state, count = state
            counts = add(counts, ops.expand_dims(count, 1))
        far_query = None
        if self.positions is not None:
            query, far_query, key = self._rotate(query, key, ops.maximum(counts - 1, 0))
        operation = SinkLocalAttention(self.num_sinks, self.left, scale)
        if state is None:
            return operation(query, key, value, real, counts, far_query)
        out, *state = operation(query, key, value, real, counts, far_query, state)
        return out, (*state, count if is_empty(query) else counts[:, -1])

    def _rotate(self, query, key, places):
        """The queries for the window, the queries for the sinks, and the keys, all rotated."""
        near, far = (
            self.positions.angles(x)
            for x in (places, ops.minimum(places, self.num_sinks + self.left))
        )
        return tuple(
            rotary_embedding(x, *angles, interleaved=self.positions.interleaved)
            for x, angles in ((query, near), (query, far), (key, near))
        )

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        sinks, window = (
            (num_key_value_heads, self.num_sinks),
            (num_key_value_heads, self.left),
        )
        return {
            "sink_key": ((*sinks, head_dim), None),
            "sink_value": ((*sinks, value_dim), None),
            "key": ((*window, head_dim), None),
            "value": ((*window, value_dim), None),
            "mask": ((self.left,), "int32"),
            "count": ((), "int32"),
        }

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_sinks": self.num_sinks,
                "left": self.left,
                "positions": keras.saving.serialize_keras_object(self.positions),
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        positions = keras.saving.deserialize_keras_object(config["positions"])
        return super().from_config({**config, "positions": positions})
