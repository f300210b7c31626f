"""Linear attention as a mechanism: softmax is replaced by a product of features."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.linear import LinearAttention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Linearized(Mechanism):
    """Linear attention, O(n), bidirectional or causal (https://arxiv.org/abs/2006.16236).

    Its state is the sum of `phi(k)' [v 1]` over the past.

    Args:
        feature_map: phi, "elu" for `elu(x) + 1` or "relu".

    Raises:
        ValueError: the feature map is unknown; or it is called with a scale (there are no scores),
            or with a state but not `causal`.

    Example:
        MultiHeadAttention(8, 64, causal=True, attention=Linearized())
    """

    @checked
    def __init__(self, feature_map="elu", **kwargs):
        super().__init__(**kwargs)
        self.feature_map = LinearAttention(feature_map).feature_map

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        if scale is not None:
            raise ValueError(
                f"{self.path}: linear attention has no scores to scale. Received: scale={scale}"
            )
        return LinearAttention(self.feature_map, causal)(query, key, value, mask, state)

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        return {"sums": ((num_key_value_heads, head_dim, value_dim + 1), "float32")}

    def get_config(self):
        return {**super().get_config(), "feature_map": self.feature_map}
