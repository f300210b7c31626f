"""FAVOR+: attention through positive orthogonal random features."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.feature_attention import feature_attention, feature_attention_spec
from keras_seqattn.ops.nothing import of_tokens
from keras_seqattn.ops.softmax import score_scale


def orthogonal_features(num_features, head_dim, seed):
    """Gaussian vectors, orthogonal in blocks of `head_dim` (https://arxiv.org/abs/2009.14794).

    Args:
        num_features: number m of vectors.
        head_dim: size d of a vector.
        seed: seed of the generator.

    Returns:
        NumPy float64 (m, d). Each block of d rows is orthogonal. The norms of the rows have the
        distribution of the norms of Gaussian vectors: chi with d degrees of freedom.
    """
    rng = np.random.default_rng(seed)
    blocks = -(-num_features // head_dim)
    gaussian = rng.standard_normal((blocks, head_dim, head_dim))
    directions, triangle = np.linalg.qr(gaussian)
    # Without these signs, the directions would not be uniform.
    directions *= np.sign(np.diagonal(triangle, axis1=1, axis2=2))[:, None, :]
    directions = directions.transpose(0, 2, 1).reshape(-1, head_dim)[:num_features]
    norms = np.linalg.norm(rng.standard_normal((num_features, head_dim)), axis=1)
    return directions * norms[:, None]


@keras.saving.register_keras_serializable(package="keras_seqattn")
class PerformerAttention(keras.Operation):
    """Softmax attention estimated by features `phi(x) = exp(w x - |x|^2 / 2) / sqrt(m)`.

    `exp(q k) = E[phi(q) phi(k)]` for Gaussian w, so attention is a ratio of sums of features
    (FAVOR+, https://arxiv.org/abs/2009.14794). The features of each query and key are divided by
    their largest feature. For a key, this largest feature becomes its weight in the sums.

    Args:
        causal: attend to the past only.
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Raises:
        ValueError: a negative scale.
    """

    @checked
    def __init__(self, causal=False, scale=None, *, name=None):
        super().__init__(name=name)
        if scale is not None and scale < 0:
            raise ValueError(f"scale must be 0 or more. Received: scale={scale}")
        self.causal = causal
        self.scale = scale

    @of_tokens("state")
    def call(self, query, key, value, projection, mask=None, state=None):
        def features(x):
            return self._features(x, projection)

        return feature_attention(query, key, value, features, mask, state, self.causal)

    def _features(self, x, projection):
        """Features (..., m) divided by the largest, and the logarithm (..., 1) of the largest."""
        x = ops.multiply(x, score_scale(self.scale, x) ** 0.5)
        products = ops.matmul(x, ops.transpose(ops.cast(projection, x.dtype)))
        largest = ops.stop_gradient(ops.max(products, axis=-1, keepdims=True))
        norms = ops.multiply(ops.sum(ops.square(x), axis=-1, keepdims=True), 0.5)
        return ops.exp(ops.subtract(products, largest)), ops.subtract(largest, norms)

    def compute_output_spec(self, query, key, value, projection, mask=None, state=None):
        return feature_attention_spec(query, value, state)


def performer_attention(
    query, key, value, projection, mask=None, state=None, *, causal=False, scale=None
):
    """FAVOR+ attention, O(n), with grouped key/value heads and a state of fixed size.

    Args:
        query: float (b, t, h, d).
        key: float (b, s, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, s, g, e).
        projection: float (m, d), the vectors w, as `orthogonal_features` draws them.
        mask: bool or int (b, s), nonzero = real; with None all are real.
        state: tuple of the sums (b, g, m, e + 1) of `phi(k)' [v 1]` over earlier keys, and of the
            logarithm (b, g) of their scale. Zeros mean no keys. Only with `causal`.
        causal, scale: as in `PerformerAttention`.

    Returns:
        float (b, t, h, e), zeros if a query has no keys; with `state`, a tuple of this and the new
        state.
    """
    return PerformerAttention(causal, scale)(query, key, value, projection, mask, state)
