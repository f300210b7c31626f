"""Attention by features of queries and keys: the common part of linear attention and FAVOR+."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.blocks import check_self_attention, cut
from keras_seqattn.ops.precision import in_full_precision
from keras_seqattn.ops.scan import scan
from keras_seqattn.ops.softmax import NEVER

# The states before the chunks take n / CHUNK times m (e + 1) numbers, the features n m, and the
# products inside the chunks n CHUNK. With the usual sizes these three are about equal.
CHUNK = 128
# The largest logarithm if there are no keys. It is far above NEVER, so that a key without weight
# keeps a weight of 0.
_NOTHING = NEVER / 2


def feature_attention(query, key, value, features, mask=None, state=None, causal=False):
    """`sum_j w_j (f(q_i) f(k_j)) v_j / sum_j w_j (f(q_i) f(k_j))` in time and memory O(n).

    The causal form (j <= i) works in chunks. A scan carries the sums of `w f(k)' [v 1]` over the
    earlier chunks, and the lower triangle inside the chunk is added. The weights are scaled by the
    largest weight so far. So the result of a query depends only on earlier keys, to the last bit.
    The result is zero for a query without keys, and for one whose products are all zero.

    Args:
        query: float (b, t, h, d).
        key: float (b, s, g, d), where g divides h.
        value: float (b, s, g, e).
        features: function of float (..., d) in full precision. It returns f, float (..., m), 0 or
            more, and the logarithm of w, (..., 1), or None if w is 1.
        mask: bool or int (b, s), nonzero = real; with None all are real.
        state: tuple of the sums (b, g, m, e + 1) over earlier keys, whose last column sums the
            features alone, and, if there is a w, of the logarithm (b, g) of their scale. Zeros
            mean no keys.
        causal: attend to the past and to the query's own key.

    Returns:
        float (b, t, h, e); with `state`, a tuple of this and the new state.

    Raises:
        ValueError: a state without `causal`, or causal attention between two sequences.
    """
    if state is not None and not causal:
        raise ValueError("Attention with a state of the past must be causal.")
    if causal:
        check_self_attention("Causal attention through features", query, key)
    query, key = in_full_precision(query), in_full_precision(key)
    if not causal:
        out = _attend_whole(query, key, in_full_precision(value), features, mask)
        return ops.cast(out, value.dtype)
    past = None if state is None else _past(state)
    arguments = (query, key, _with_ones(value, mask), features, past)
    if past is not None and query.shape[1] == 1:
        out, sums = _attend_one(*arguments)
    elif past is not None and query.shape[1] is None:
        # A chunk with one token costs as much as CHUNK tokens.
        single = ops.equal(ops.shape(query)[1], 1)
        out, sums = ops.cond(
            single, lambda: _attend_one(*arguments), lambda: _attend_chunks(*arguments)
        )
    else:
        out, sums = _attend_chunks(*arguments)
    out = ops.cast(_ratio(out[..., :-1], out[..., -1:]), value.dtype)
    return out if state is None else (out, _state(sums))


def feature_attention_spec(query, value, state=None):
    """The shapes and dtypes of the results of `feature_attention`."""
    out = keras.KerasTensor((*query.shape[:3], value.shape[3]), value.dtype)
    if state is None:
        return out
    return out, tuple(keras.KerasTensor(old.shape, old.dtype) for old in state)


def _with_ones(value, mask):
    """Values with an additional column of 1; for keys that are not real, everything is 0."""
    value = in_full_precision(value)
    value = ops.concatenate([value, ops.ones_like(value[..., :1])], axis=-1)
    if mask is None:
        return value
    return ops.where(ops.expand_dims(ops.cast(mask, "bool"), (2, 3)), value, 0.0)


def _past(state):
    """The sums of a state, and the logarithm (b, g, 1, 1) of their scale, if they have one."""
    if len(state) == 1:
        return tuple(state)
    sums, largest = state
    empty = ops.equal(ops.sum(sums[..., -1], axis=-1), 0.0)
    return sums, ops.expand_dims(ops.where(empty, _NOTHING, largest), (2, 3))


def _state(sums):
    return sums if len(sums) == 1 else (sums[0], sums[1][..., 0, 0])


def _join(old, new):
    """Add the sums over two sets of keys, scaled by the larger of the two weights."""
    if len(old) == 1:
        return (ops.add(old[0], new[0]),)
    largest = ops.maximum(old[1], new[1])
    parts = (ops.multiply(x, ops.exp(ops.subtract(m, largest))) for x, m in (old, new))
    return ops.add(*parts), largest


def _key_features(features, key, value):
    """The features of the keys, and their log weights: NEVER for keys that are not real."""
    key, log_weights = features(key)
    if log_weights is not None:
        log_weights = ops.where(ops.greater(value[..., -1:], 0.0), log_weights, NEVER)
    return key, log_weights


def _largest(log_weights, axis):
    largest = ops.maximum(ops.amax(log_weights, axis=axis, keepdims=True), _NOTHING)
    return ops.stop_gradient(largest)


def _sums(key, value, log_weights=None, largest=None):
    """`k' v` for keys (..., s, m) and their values (..., s, e + 1), and the scale of the result."""
    products = ops.swapaxes(key, -1, -2)
    if log_weights is None:
        return (ops.matmul(products, value),)
    value = ops.multiply(value, ops.exp(ops.subtract(log_weights, largest)))
    return ops.matmul(products, value), largest


def _attend_whole(query, key, value, features, mask):
    """Every query attends to all keys.

    There is no column of ones, because in long texts a copy of the values costs as much as a
    product.
    """
    query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    query, _ = features(query)
    key, weights = features(key)
    real = None if mask is None else ops.expand_dims(ops.cast(mask, "bool"), (1, 3))
    if weights is not None:
        weights = weights if real is None else ops.where(real, weights, NEVER)
        # The weights are multiplied with the values, which are narrower than the features.
        weights = ops.exp(ops.subtract(weights, _largest(weights, 2)))
        value = ops.multiply(value, weights)
        weights = ops.expand_dims(ops.squeeze(weights, 3), 2)  # (b, g, 1, s)
    elif real is not None:
        key = ops.where(real, key, 0.0)
    heads, groups, length = query.shape[1], key.shape[1], ops.shape(query)[2]
    query = ops.reshape(query, (-1, groups, heads // groups * length, query.shape[3]))
    # The values are transposed, because they are narrower than the features.
    sums = ops.swapaxes(ops.matmul(ops.swapaxes(value, 2, 3), key), 2, 3)
    total = ops.sum(key, axis=2, keepdims=True) if weights is None else ops.matmul(weights, key)
    total = ops.expand_dims(ops.squeeze(total, 2), 3)  # (b, g, m, 1)
    out, total = ops.matmul(query, sums), ops.matmul(query, total)
    out = ops.reshape(_ratio(out, total), (-1, heads, length, value.shape[3]))
    return ops.transpose(out, (0, 2, 1, 3))


def _attend_one(query, key, value, features, past):
    """A single query attends to the past and to its own key."""
    query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    query, _ = features(query)
    key, log_weights = _key_features(features, key, value)
    largest = None if log_weights is None else _largest(log_weights, 2)
    sums = _sums(key, value, log_weights, largest)
    sums = _join(past, sums)
    heads, groups, length = query.shape[1], key.shape[1], ops.shape(query)[2]
    query = ops.reshape(query, (-1, groups, heads // groups * length, query.shape[3]))
    out = ops.reshape(ops.matmul(query, sums[0]), (-1, heads, length, value.shape[3]))
    return ops.transpose(out, (0, 2, 1, 3)), sums


def _attend_chunks(query, key, value, features, past):
    """Query i attends to the past and to the keys up to i."""
    length, size = ops.shape(query)[1], min(query.shape[1] or CHUNK, CHUNK)
    query, key, value = (_chunks(x, size) for x in (query, key, value))
    query, _ = features(query)
    key, log_weights = _key_features(features, key, value)
    lower = np.tri(size, dtype="float32")
    if log_weights is None:
        before, last = _before_chunks(_sums(key, value), past)
        pairs, scale = lower, None
    else:
        earlier = ops.where(lower > 0, ops.swapaxes(log_weights, 3, 4), NEVER)
        largest = _largest(earlier, 4)
        sums = _sums(key, value, log_weights, largest[..., -1:, :])
        before, last = _before_chunks(sums, past)
        largest = ops.maximum(largest, before[1])
        pairs = ops.exp(ops.subtract(earlier, largest))
        scale = ops.exp(ops.subtract(before[1], largest))
    out = _inside_and_before(query, key, value, pairs, before[0], scale)
    return _join_chunks(out, length), last


def _chunks(x, size):
    """Cut float (b, n, h, c) into chunks, the last one padded: (ceil(n / size), b, h, size, c)."""
    blocks = (ops.shape(x)[1] + size - 1) // size
    return ops.transpose(cut(x, blocks, size), (1, 0, 3, 2, 4))


def _join_chunks(x, length):
    """The inverse of `_chunks`: the first `length` positions."""
    blocks, batch, heads, size, width = ops.shape(x)
    x = ops.reshape(ops.transpose(x, (1, 0, 3, 2, 4)), (batch, blocks * size, heads, width))
    return x[:, :length]


def _before_chunks(sums, past):
    """The sums before each chunk, from the sums of each chunk, and the sum after the last chunk."""
    if past is None:
        shape = ops.shape(sums[0])[1:]
        past = (ops.zeros(shape, sums[0].dtype),)
        if len(sums) == 2:
            past += (ops.full((*shape[:2], 1, 1), _NOTHING, sums[1].dtype),)
    last, before = scan(_carry_on, past, sums)
    return before, last


# Made once, not for each call, because JAX compiles each new function.
def _carry_on(before, sums):
    return _join(before, sums), before


def _inside_and_before(query, key, value, pairs, before, scale):
    """`((q k') pairs) v + scale q before`, with grouped key/value heads."""
    blocks, batch, heads, size, features = ops.shape(query)
    groups, width = key.shape[2], value.shape[4]
    query = ops.reshape(query, (blocks, batch, groups, heads // groups * size, features))
    scores = ops.matmul(query, ops.swapaxes(key, 3, 4))
    scores = ops.reshape(scores, (blocks, batch, groups, heads // groups, size, size))
    scores = ops.multiply(scores, pairs if scale is None else ops.expand_dims(pairs, 3))
    scores = ops.reshape(scores, (blocks, batch, groups, heads // groups * size, size))
    inside = ops.reshape(ops.matmul(scores, value), (blocks, batch, heads, size, width))
    before = ops.matmul(query, before)
    if scale is not None:
        before = ops.reshape(before, (blocks, batch, groups, heads // groups, size, width))
        before = ops.multiply(before, ops.expand_dims(scale, 3))
    before = ops.reshape(before, (blocks, batch, heads, size, width))
    return ops.add(inside, before)


def _ratio(sums, total):
    """`sums / total`, or zero if the total is zero."""
    # Features and weights are not negative: if the total is zero, the numerator is zero too.
    return ops.divide(sums, ops.where(ops.greater(total, 0.0), total, 1.0))
