"""The definitions in NumPy float64, with loops over every axis."""

import numpy as np

# Batch, query length, key length, past length and value size; each its own prime.
B, T, S, P, E = 2, 3, 7, 5, 13
D = 11
# (heads, key/value heads): multi-head, grouped-query, multi-query.
HEADS = [(3, 3), (6, 2), (5, 1)]


def allowed_keys(shape, causal=False, window=None, mask=None):
    """Which keys each query may attend to, bool (b, h, t, s)."""
    allowed = np.ones(shape, bool)
    _, _, t, s = shape
    left, right = window or (None, None)
    for b, h, i, j in np.ndindex(*shape):
        distance = j - (i + s - t)
        if causal and distance > 0:
            allowed[b, h, i, j] = False
        if left is not None and distance < -left:
            allowed[b, h, i, j] = False
        if right is not None and distance > right:
            allowed[b, h, i, j] = False
        if mask is not None:
            index = {2: (b, j), 3: (b, i, j)}.get(mask.ndim)
            if index is None:
                index = tuple(
                    n if size > 1 else 0 for n, size in zip((b, h, i, j), mask.shape, strict=True)
                )
            allowed[b, h, i, j] &= bool(mask[index])
    return allowed


def attention(
    query,
    key,
    value,
    mask=None,
    bias=None,
    sinks=None,
    past_key=None,
    past_value=None,
    causal=False,
    window=None,
    scale=None,
    softcap=None,
):
    """The result (b, t, h, e) and the probabilities (b, h, t, s) of ops.attention."""
    query, key, value = (np.asarray(x, "float64") for x in (query, key, value))
    if past_key is not None:
        key = np.concatenate([past_key.transpose(0, 2, 1, 3), key], axis=1)
        value = np.concatenate([past_value.transpose(0, 2, 1, 3), value], axis=1)
    (b, t, h, d), (s, g) = query.shape, key.shape[1:3]
    allowed = allowed_keys((b, h, t, s), causal, window, mask)
    bias = np.zeros((1, 1, 1, 1)) if bias is None else bias
    bias = np.broadcast_to(bias, (b, h, t, s)).astype("float64")
    out = np.zeros((b, t, h, value.shape[3]))
    probabilities = np.zeros((b, h, t, s))
    for n, head, i in np.ndindex(b, h, t):
        weights = np.zeros(s)
        for j in range(s):
            if allowed[n, head, i, j]:
                score = query[n, i, head] @ key[n, j, head // (h // g)]
                score *= 1 / np.sqrt(d) if scale is None else scale
                if softcap is not None:
                    score = softcap * np.tanh(score / softcap)
                weights[j] = np.exp(score + bias[n, head, i, j])
        total = weights.sum() + (0 if sinks is None else np.exp(np.float64(sinks[head])))
        if weights.any():
            probabilities[n, head, i] = weights / total
        for j in range(s):
            out[n, i, head] += probabilities[n, head, i, j] * value[n, j, head // (h // g)]
    return out, probabilities


def rotary(x, cos, sin, interleaved=False):
    """x (b, t, h, d) rotated by cos and sin (b, t, r / 2)."""
    out = np.array(x, "float64")
    half = cos.shape[-1]
    for b, t, h in np.ndindex(*x.shape[:3]):
        for i in range(half):
            first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
            c, s = np.float64(cos[b, t, i]), np.float64(sin[b, t, i])
            p, q = np.float64(x[b, t, h, first]), np.float64(x[b, t, h, second])
            out[b, t, h, first], out[b, t, h, second] = p * c - q * s, p * s + q * c
    return out
