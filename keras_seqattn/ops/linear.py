"""Linear attention: a product of features replaces the kernel of softmax."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.feature_attention import feature_attention, feature_attention_spec
from keras_seqattn.ops.nothing import of_tokens

FEATURE_MAPS = ("elu", "relu")


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LinearAttention(keras.Operation):
    """`phi(q_i) sum_j phi(k_j)' v_j / phi(q_i) sum_j phi(k_j)` (https://arxiv.org/abs/2006.16236).

    Args:
        feature_map: phi, "elu" for `elu(x) + 1` or "relu".
        causal: sum over j <= i.

    Raises:
        ValueError: an unknown feature map.
    """

    @checked
    def __init__(self, feature_map="elu", causal=False, *, name=None):
        super().__init__(name=name)
        if feature_map not in FEATURE_MAPS:
            raise ValueError(
                f"feature_map must be one of {', '.join(FEATURE_MAPS)}. Received: {feature_map!r}"
            )
        self.feature_map = feature_map
        self.causal = causal

    @of_tokens("state")
    def call(self, query, key, value, mask=None, state=None):
        return feature_attention(query, key, value, self._features, mask, state, self.causal)

    def _features(self, x):
        positive = ops.relu(x)
        if self.feature_map == "relu":
            return positive, None
        # Not computed as elu(x) + 1, which keeps few digits near zero.
        return ops.add(positive, ops.exp(ops.minimum(x, 0.0))), None

    def compute_output_spec(self, query, key, value, mask=None, state=None):
        return feature_attention_spec(query, value, state)


def linear_attention(query, key, value, mask=None, state=None, *, feature_map="elu", causal=False):
    """Linear attention, O(n), with grouped key/value heads and a state of fixed size.

    Args:
        query: float (b, t, h, d).
        key: float (b, s, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, s, g, e).
        mask: bool or int (b, s), nonzero = real; with None all are real.
        state: tuple of the sums (b, g, d, e + 1) of `phi(k)' [v 1]` over earlier keys, zeros if
            there are none; only with `causal`.
        feature_map, causal: as in `LinearAttention`.

    Returns:
        float (b, t, h, e), zeros if a query has no keys; with `state`, a tuple of this and the new
        state.
    """
    return LinearAttention(feature_map, causal)(query, key, value, mask, state)
