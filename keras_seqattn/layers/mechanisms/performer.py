"""Softmax attention, estimated by random features."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.performer import PerformerAttention, orthogonal_features


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Performer(Mechanism):
    """FAVOR+, O(n), bidirectional or causal (https://arxiv.org/abs/2009.14794).

    The vectors w are a weight that is not trained; all heads share it. The state is the sum of
    `phi(k)' [v 1]` over the past, and the logarithm of its scale.

    Args:
        num_features: number m of random features; the error of the attention falls as
            `1 / sqrt(m)`.
        seed: seed of the vectors.

    Raises:
        ValueError: it is called with a state but not `causal`.

    Example:
        MultiHeadAttention(8, 64, attention=Performer(256, seed=1))
    """

    @checked
    def __init__(self, num_features=256, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.num_features = num_features
        self.seed = seed

    def build(self, query_shape, key_shape=None, value_shape=None):
        self.projection = self.add_weight(
            name="projection",
            shape=(self.num_features, query_shape[-1]),
            initializer=lambda shape, dtype: keras.ops.cast(self._draw(shape, self.seed), dtype),
            trainable=False,
            # The vectors are in exponents: half precision would change the features by percents.
            autocast=False,
        )
        self.built = True

    def _draw(self, shape, seed):
        return orthogonal_features(*shape, seed).astype("float32")

    def redraw(self, seed):
        """Draw other vectors w, for example between steps of a training.

        Args:
            seed: seed of the new vectors.
        """
        self.projection.assign(self._draw(self.projection.shape, seed))

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        operation = PerformerAttention(causal, scale)
        return operation(query, key, value, self.projection, mask, state)

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        sums = (num_key_value_heads, self.num_features, value_dim + 1)
        return {"sums": (sums, "float32"), "log_scale": ((num_key_value_heads,), "float32")}

    def get_config(self):
        return {**super().get_config(), "num_features": self.num_features, "seed": self.seed}
