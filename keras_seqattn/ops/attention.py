"""Scaled dot-product attention as one operation, with every variation that the families need."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import band_mask, combine_masks, expand_mask
from keras_seqattn.ops.nothing import is_empty
from keras_seqattn.ops.precision import products
from keras_seqattn.ops.softmax import NEVER, score_scale, softmax


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Attention(keras.Operation):
    """`softmax(softcap(scale q k') + bias) v` over the allowed keys; one ONNX Attention node.

    Args:
        causal: query i attends to keys up to `i + s - t`. This is aligned bottom-right, so it is
            also correct with a cache.
        window: None or inclusive (left, right): keys j with `-left <= j - i <= right`, where i is
            the position of the query among the keys. A side that is None is unbounded.
        scale: factor of the scores; None is `1 / sqrt(d)`.
        softcap: c in `c tanh(score / c)`, applied before bias and mask; None is no softcap.
        return_scores: also return the probabilities.

    Raises:
        ValueError: if a side of the window is negative.
    """

    @checked
    def __init__(
        self, causal=False, window=None, scale=None, softcap=None, return_scores=False, *, name=None
    ):
        super().__init__(name=name)
        if window is not None and any(side is not None and side < 0 for side in window):
            raise ValueError(
                "Both sides of an attention window must be 0 or more, or None for unbounded. "
                f"Received: window={window}"
            )
        self.causal = causal
        self.window = None if window is None else tuple(window)
        self.scale = scale
        self.softcap = softcap
        self.return_scores = return_scores

    def call(
        self,
        query,
        key=None,
        value=None,
        mask=None,
        bias=None,
        sinks=None,
        past_key=None,
        past_value=None,
    ):
        extends = key is not None and past_key is not None
        key, value = join_past(key, value, past_key, past_value)
        _check_heads(query.shape[2], key.shape[1])
        if is_empty(query, key):
            out, probabilities = self._nothing(query, key, value)
        elif self._has_fused_kernel(query, key, value, sinks):
            out, probabilities = self._fused(query, key, value, mask, bias), None
        else:
            probabilities = self.probabilities(query, key, mask, bias, sinks)
            out = attend(probabilities, value)
        outputs = [out]
        if extends:
            outputs += [key, value]
        if self.return_scores:
            outputs.append(probabilities)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def probabilities(self, query, key, mask=None, bias=None, sinks=None):
        """The attention probabilities, computed by the formula.

        Args:
            query: float (b, t, h, d).
            key: float (b, g, s, d), with the cached keys.
            mask, bias, sinks: as in `attention`.

        Returns:
            float (b, h, t, s); a row without any allowed key is zero.
        """
        scaled = ops.multiply(query, score_scale(self.scale, query))
        scores = products(_group_heads(scaled, key.shape[1]), key)
        batch, length = ops.shape(query)[:2]
        scores = ops.reshape(scores, (batch, query.shape[2], length, ops.shape(key)[2]))
        if self.softcap is not None:
            scores = ops.multiply(ops.tanh(ops.divide(scores, self.softcap)), self.softcap)
        if bias is not None:
            scores = add(scores, ops.cast(bias, scores.dtype))
        allowed = self._allowed(query, key, mask)
        if allowed is not None:
            scores = ops.where(allowed, scores, NEVER)
        if sinks is not None:
            sinks = ops.reshape(ops.cast(sinks, scores.dtype), (1, -1, 1, 1))
        probabilities = softmax(scores, sinks)
        if self._may_leave_rows_empty(query, key, mask):
            probabilities = ops.where(_any_key(allowed), probabilities, 0.0)
        return ops.cast(probabilities, query.dtype)

    def _nothing(self, query, key, value):
        """The result without queries or without keys; `keras_seqattn.ops.nothing` has the rule."""
        batch, length = ops.shape(query)[:2]
        heads = query.shape[2]
        return (
            ops.zeros((batch, length, heads, value.shape[3]), query.dtype),
            ops.zeros((batch, heads, length, ops.shape(key)[2]), query.dtype),
        )

    def _allowed(self, query, key, mask):
        band = None
        if self.causal or self.window is not None:
            query_length, key_length = ops.shape(query)[1], ops.shape(key)[2]
            positions = ops.add(ops.arange(query_length), key_length - query_length)
            band = band_mask(positions, ops.arange(key_length), self.causal, self.window)
        return combine_masks(None if mask is None else expand_mask(mask), band)

    def _may_leave_rows_empty(self, query, key, mask):
        if mask is not None:
            return True
        if not self.causal and self.window in (None, (None, None)):
            return False
        query_length, key_length = query.shape[1], key.shape[2]
        return query_length is None or key_length is None or query_length > key_length

    def _has_fused_kernel(self, query, key, value, sinks):
        if sinks is not None or self.softcap is not None or self.return_scores:
            return False
        # A trace must give the same operations on every backend.
        if isinstance(query, keras.KerasTensor):
            return False
        backend = keras.backend.backend()
        if backend == "jax":
            return query.shape[-1] == value.shape[-1] and _jax_has_products(query)
        # Keras repeats grouped keys on torch, and has no kernel on TensorFlow.
        return backend == "torch" and query.shape[2] == key.shape[1]

    def _fused(self, query, key, value, mask, bias):
        key_length = key.shape[2]
        # Keras aligns causality top-left. That is the same only if the scores are square.
        plain_causal = (
            self.causal
            and self.window is None
            and mask is None
            and bias is None
            and query.shape[1] == key_length
        )
        allowed = None if plain_causal else self._allowed(query, key, mask)
        out = ops.dot_product_attention(
            query,
            ops.transpose(key, (0, 2, 1, 3)),
            ops.transpose(value, (0, 2, 1, 3)),
            bias=_additive_bias(allowed, bias, query.dtype),
            scale=score_scale(self.scale, query),
            is_causal=plain_causal,
        )
        if self._may_leave_rows_empty(query, key, mask):
            out = ops.where(ops.transpose(_any_key(allowed), (0, 2, 1, 3)), out, 0.0)
        return out

    def compute_output_spec(
        self,
        query,
        key=None,
        value=None,
        mask=None,
        bias=None,
        sinks=None,
        past_key=None,
        past_value=None,
    ):
        batch, query_length, heads, _ = query.shape
        extends = key is not None and past_key is not None
        if key is None:
            _, groups, key_length, head_dim = past_key.shape
            value = past_value
        else:
            _, key_length, groups, head_dim = key.shape
        _check_heads(heads, groups)
        outputs = [keras.KerasTensor((batch, query_length, heads, value.shape[3]), query.dtype)]
        if extends:
            key_length = _total(past_key.shape[2], key_length)
            outputs.append(keras.KerasTensor((batch, groups, key_length, head_dim), key.dtype))
            outputs.append(
                keras.KerasTensor((batch, groups, key_length, value.shape[3]), value.dtype)
            )
        if self.return_scores:
            outputs.append(keras.KerasTensor((batch, heads, query_length, key_length), query.dtype))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def attention(
    query,
    key=None,
    value=None,
    mask=None,
    bias=None,
    sinks=None,
    past_key=None,
    past_value=None,
    *,
    causal=False,
    window=None,
    scale=None,
    softcap=None,
    return_scores=False,
):
    """Scaled dot-product attention (https://arxiv.org/abs/1706.03762) with grouped key/value heads.

    The result is zero for a query that may attend to nothing.

    Args:
        query: float (b, t, h, d).
        key: float (b, s, g, d), where g divides h; query head i uses key head `i // (h / g)`. With
            None the queries attend to the past only.
        value: float (b, s, g, e); None if `key` is None.
        mask: bool or int (b, s), (b, t, s) or (b|1, h|1, t, s); nonzero = attend.
        bias: finite float (b|1, h|1, t, s), added to the scaled scores.
        sinks: float (h,), one additional logit in the softmax of each query, without a value.
        past_key: float (b, g, p, d), put before `key`; mask and bias then have p + s keys.
        past_value: float (b, g, p, e), put before `value`.
        causal, window, scale, softcap, return_scores: as in `Attention`.

    Returns:
        float (b, t, h, e). With `key` and `past_key`, a tuple of this, the present key
        (b, g, p + s, d) and the present value (b, g, p + s, e). With `return_scores`, the
        probabilities, float (b, h, t, p + s), come last.
    """
    operation = Attention(causal, window, scale, softcap, return_scores)
    return operation(query, key, value, mask, bias, sinks, past_key, past_value)


def apply_attention(
    operation, query, key, value, mask=None, bias=None, sinks=None, past=None, dropout=None
):
    """Apply an `Attention`, with dropout, and return its results separately.

    Args:
        operation: the `Attention`.
        query, key, value, mask, bias, sinks: as in `attention`.
        past: None, or a tuple of past_key and past_value.
        dropout: None, or a function that is applied to the probabilities.

    Returns:
        Three results: float (b, t, h, e); the present key and value, or an empty tuple if
        `attention` returns none; and the probabilities, or None if the operation does not return
        them and there is no dropout.
    """
    past_key, past_value = past or (None, None)
    if dropout is None:
        outputs = operation(query, key, value, mask, bias, sinks, past_key, past_value)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        scores = outputs.pop() if operation.return_scores else None
        return outputs[0], tuple(outputs[1:]), scores
    key, value = join_past(key, value, past_key, past_value)
    scores = dropout(operation.probabilities(query, key, mask, bias, sinks))
    return attend(scores, value), (key, value) if past is not None else (), scores


def attend(probabilities, value):
    """The weighted sums of the values, `p v`, with grouped value heads.

    Args:
        probabilities: float (b, h, t, s).
        value: float (b, g, s, e).

    Returns:
        float (b, t, h, e).
    """
    heads, groups = probabilities.shape[1], value.shape[1]
    length, key_length = ops.shape(probabilities)[2], ops.shape(probabilities)[3]
    grouped = ops.reshape(probabilities, (-1, groups, heads // groups * length, key_length))
    out = ops.reshape(ops.matmul(grouped, value), (-1, heads, length, value.shape[3]))
    return ops.transpose(out, (0, 2, 1, 3))


def join_past(key, value, past_key=None, past_value=None):
    """Put new keys and values behind those of the past, in the layout of a cache.

    Args:
        key, value: float (b, s, g, d) and (b, s, g, e), or None.
        past_key, past_value: float (b, g, p, d) and (b, g, p, e), or None.

    Returns:
        float (b, g, p + s, d) and (b, g, p + s, e).
    """
    if key is None:
        return past_key, past_value
    key, value = ops.transpose(key, (0, 2, 1, 3)), ops.transpose(value, (0, 2, 1, 3))
    if past_key is None:
        return key, value
    return ops.concatenate([past_key, key], axis=2), ops.concatenate([past_value, value], axis=2)


def _check_heads(heads, groups):
    if heads % groups:
        raise ValueError(
            "The number of key/value heads must divide the number of heads. Received: "
            f"{groups} key/value heads, {heads} heads"
        )


def _jax_has_products(query):
    """False for float16 on a CPU; JAX's kernel notices that only in eager calls."""
    import jax

    is_half = keras.backend.standardize_dtype(query.dtype) == "float16"
    return not is_half or jax.default_backend() != "cpu"


def _group_heads(query, groups):
    heads, head_dim = query.shape[2], query.shape[3]
    length = ops.shape(query)[1]
    query = ops.transpose(query, (0, 2, 1, 3))
    return ops.reshape(query, (-1, groups, heads // groups * length, head_dim))


def _any_key(allowed):
    return ops.any(allowed, axis=-1, keepdims=True)


def _additive_bias(allowed, bias, dtype):
    dtype = keras.backend.standardize_dtype(dtype)
    if bias is not None:
        # Larger values would be infinite in half precision, and a row of infinities gives NaN.
        limited = ops.clip(bias, -6e4, 6e4) if dtype == "float16" else bias
        bias = ops.cast(limited, dtype)
    if allowed is None:
        return bias
    never = NEVER
    if dtype == "float16":
        # No 16-bit number is far below every score, so infinity is used. A row without keys sees
        # all keys here; otherwise it would become NaN.
        never = -np.inf
        allowed = ops.logical_or(allowed, ops.logical_not(_any_key(allowed)))
    return ops.where(allowed, ops.zeros((), dtype) if bias is None else bias, never)


def _total(past_length, length):
    return None if past_length is None or length is None else past_length + length
