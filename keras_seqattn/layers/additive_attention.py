"""Attention of recurrent models: Bahdanau's additive score, and Luong's three scores."""

import keras
from keras import ops

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.recording import record
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import expand_mask
from keras_seqattn.ops.precision import products
from keras_seqattn.ops.softmax import masked_softmax


class _ScoredAttention(keras.layers.Layer):
    """`softmax(score(q, k)) v` with one head; subclasses define the keys and the scores."""

    @checked
    def __init__(self, units=None, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def compute_keys(self, value):
        """The keys, computed from the attended vectors; they are the same for every query.

        Args:
            value: float (b, s, m).

        Returns:
            float (b, s, a).
        """
        raise NotImplementedError

    def compute_scores(self, query, keys):
        """The scores before the softmax.

        Args:
            query: float (b, t, n).
            keys: float (b, s, a).

        Returns:
            float (b, t, s).
        """
        raise NotImplementedError

    def attend(self, query, value, keys, allowed=None):
        """The result and the probabilities, as in `call` but without recording.

        Args:
            query: float (b, t, n).
            value: float (b, s, m).
            keys: float (b, s, a).
            allowed: None or bool (b, t|1, s).

        Returns:
            float (b, t, m) and float (b, t, s).
        """
        probabilities = masked_softmax(self.compute_scores(query, keys), allowed)
        probabilities = ops.cast(probabilities, value.dtype)
        return ops.matmul(probabilities, value), probabilities

    def call(
        self,
        query,
        value,
        attention_mask=None,
        keys=None,
        return_attention_scores=False,
        *,
        value_mask=None,
    ):
        if attention_mask is None:
            attention_mask = value_mask
        allowed = allowed_keys(attention_mask)
        keys = self.compute_keys(value) if keys is None else keys
        out, probabilities = self.attend(query, value, keys, allowed)
        record(self, probabilities)
        return (out, probabilities) if return_attention_scores else out

    def compute_output_spec(
        self,
        query,
        value,
        attention_mask=None,
        keys=None,
        return_attention_scores=False,
        **masks,
    ):
        batch, length, _ = query.shape
        out = keras.KerasTensor((batch, length, value.shape[2]), self.compute_dtype)
        if not return_attention_scores:
            return out
        return out, keras.KerasTensor((batch, length, value.shape[1]), self.compute_dtype)

    def _dense(self, name, input_dim, units):
        layer = keras.layers.Dense(
            units,
            use_bias=False,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, None, input_dim))
        return layer

    def _build_additive(self, query_dim, value_dim, units):
        self.query = self._dense("query", query_dim, units)
        self.key = self._dense("key", value_dim, units)
        self.score_vector = self._dense("score_vector", units, 1)

    def _additive_scores(self, query, keys):
        pairs = add(ops.expand_dims(self.query(query), 2), ops.expand_dims(keys, 1))
        return ops.squeeze(self.score_vector(ops.tanh(pairs)), axis=-1)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "units": self.units,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            }
        )
        return config


@keras.saving.register_keras_serializable(package="keras_seqattn")
class AdditiveAttention(_ScoredAttention):
    """`c = softmax(e) h` with `e = v tanh(W s + U h)` (https://arxiv.org/abs/1409.0473).

    ONNX MatMul, Tanh and Softmax.

    Args:
        units: width a of the alignment model; None is the width of the query.
        kernel_initializer: as in `keras.layers.Dense`.

    Call arguments:
        query: float (b, t, n), the s.
        value: float (b, s, m), the h.
        attention_mask: bool or int (b, s) or (b, t, s), nonzero = attend; None takes the implicit
            Keras mask of the value.
        keys: float (b, s, a), `U h`, the result of `compute_keys` for the value; None computes it.
        return_attention_scores: also return the probabilities.

    Returns:
        float (b, t, m), zeros if a query may attend to nothing; with `return_attention_scores`, a
        tuple of this and the probabilities (b, t, s).

    Example:
        layer = AdditiveAttention(256)
        context, scores = layer(states, encoded, attention_mask, return_attention_scores=True)
    """

    def build(self, query_shape, value_shape):
        self._build_additive(query_shape[-1], value_shape[-1], self.units or query_shape[-1])

    def compute_keys(self, value):
        return self.key(value)

    def compute_scores(self, query, keys):
        return self._additive_scores(query, keys)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LuongAttention(_ScoredAttention):
    """Attention by one of the three scores of https://arxiv.org/abs/1508.04025.

    ONNX MatMul and Softmax.

    Args:
        score: "dot" `q h`, "general" `q W h`, or "concat" `v tanh(W [q; h])`.
        units: for "concat", the width of its W; None is the width of the query.
        kernel_initializer: as in `keras.layers.Dense`.

    Call arguments and result are as in `AdditiveAttention`. `compute_keys` returns h, `W h`, or the
    part of `W [q; h]` that depends on h.

    Raises:
        ConfigError: the score is unknown, or it is "dot" and the vectors have two widths.

    Example:
        LuongAttention("general")(states, encoded, attention_mask)
    """

    @checked
    def __init__(self, score="general", units=None, **kwargs):
        super().__init__(units, **kwargs)
        self.score = score
        if score not in ("dot", "general", "concat"):
            raise ConfigError(f"Unknown score {score!r}; use 'dot', 'general' or 'concat'.")

    def build(self, query_shape, value_shape):
        query_dim, value_dim = query_shape[-1], value_shape[-1]
        if self.score == "concat":
            self._build_additive(query_dim, value_dim, self.units or query_dim)
        elif self.score == "general":
            self.key = self._dense("key", value_dim, query_dim)
        elif query_dim != value_dim:
            raise ConfigError(
                f"{self.path}: the score 'dot' needs queries as wide as the values, not "
                f"{query_dim} and {value_dim}; use 'general'."
            )

    def compute_keys(self, value):
        return value if self.score == "dot" else self.key(value)

    def compute_scores(self, query, keys):
        if self.score == "concat":
            return self._additive_scores(query, keys)
        return products(query, keys)

    def get_config(self):
        return {**super().get_config(), "score": self.score}


def allowed_keys(mask):
    """A mask as booleans, with an axis for the queries.

    Args:
        mask: bool or int (b, s) or (b, t, s), or None.

    Returns:
        bool (b, t|1, s), or None without a mask.
    """
    return None if mask is None else ops.squeeze(expand_mask(mask), axis=1)
