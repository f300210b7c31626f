"""The recurrence of the gated linear family, parallel inside chunks and carried between them."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.blocks import cut
from keras_seqattn.ops.nothing import of_tokens
from keras_seqattn.ops.precision import full_precision
from keras_seqattn.ops.scan import scan


@keras.saving.register_keras_serializable(package="keras_seqattn")
class ChunkedScan(keras.Operation):
    """`S_t = decay_t S_{t-1} + k_t v_t'`, or the gated delta rule; gives `S_t' q_t`. ONNX Scan.

    The sum over the past of a token has two parts: an attention matrix inside its chunk, and a
    product with the state at the start of the chunk. This takes O(n) time and memory. No decay is
    divided by another decay, so nothing overflows. A single token uses the recurrence directly.

    Args:
        chunk_size: length of a chunk, a power of two.

    Raises:
        ValueError: another chunk size.
    """

    @checked
    def __init__(self, chunk_size=64, *, name=None):
        super().__init__(name=name)
        if chunk_size < 1 or chunk_size & (chunk_size - 1):
            raise ValueError(f"chunk_size must be a power of two. Received: {chunk_size}")
        self.chunk_size = chunk_size

    @of_tokens("state")
    def call(self, query, key, value, log_decay=None, beta=None, mask=None, state=None):
        _check_shapes(query, value, log_decay)
        dtype, wide = value.dtype, full_precision(value.dtype)
        if log_decay is None:
            log_decay = ops.zeros(ops.shape(value)[:3], wide)
        if state is None:
            shape = (ops.shape(value)[0], value.shape[2], key.shape[3], value.shape[3])
            state = ops.zeros(shape, wide)
        if mask is not None:
            key, log_decay = _masked(key, mask), _masked(log_decay, mask)
        arguments = (query, key, value, _per_key(log_decay), _per_key(beta), state)
        arguments = [None if x is None else ops.cast(x, wide) for x in arguments]
        length = query.shape[1]
        # A compiled TensorFlow function fails on gradients through a condition on its shapes.
        if length is None and not isinstance(query, keras.KerasTensor):
            out, state = self._chunks(arguments)
        elif length is None:
            alone = ops.equal(ops.shape(query)[1], 1)
            out, state = ops.cond(alone, lambda: _step(*arguments), lambda: self._chunks(arguments))
        else:
            out, state = _step(*arguments) if length == 1 else self._chunks(arguments)
        return ops.cast(out, dtype), state

    def _chunks(self, arguments):
        query, key, value, log_decay, beta, state = arguments
        length, size = ops.shape(query)[1], self.chunk_size
        if query.shape[1] is not None:
            size = min(size, 1 << (query.shape[1] - 1).bit_length())
        groups = key.shape[2]
        chunks = [
            None if x is None else _split(x, groups, length, size)
            for x in (query, key, value, log_decay, beta)
        ]
        out, state = _scan_chunks(*chunks, _by_group(state, groups))
        out = ops.transpose(out, (1, 0, 4, 2, 3, 5))
        batch, blocks = ops.shape(out)[:2]
        out = ops.reshape(out, (batch, blocks * size, *value.shape[2:]))[:, :length]
        return out, ops.reshape(state, (batch, value.shape[2], *state.shape[3:]))

    def compute_output_spec(
        self, query, key, value, log_decay=None, beta=None, mask=None, state=None
    ):
        _check_shapes(query, value, log_decay)
        state = (value.shape[0], value.shape[2], key.shape[3], value.shape[3])
        return (
            keras.KerasTensor(value.shape, value.dtype),
            keras.KerasTensor(state, full_precision(value.dtype)),
        )


def chunked_scan(
    query, key, value, log_decay=None, beta=None, mask=None, state=None, *, chunk_size=64
):
    """Gated linear attention and related recurrences: a matrix that decays and to which one adds.

    The decay a is `exp(log_decay)`. The recurrences are:

    - no decay: linear attention without a normaliser;
    - one decay for each head: the state-space duality of Mamba-2
      (https://arxiv.org/abs/2405.21060);
    - one decay for each key channel: gated linear attention (https://arxiv.org/abs/2312.06635);
    - with `beta`: the gated delta rule (https://arxiv.org/abs/2412.06464),
      `S_t = (I - beta_t k_t k_t') a_t S_{t-1} + beta_t k_t v_t'`, for keys with a norm of at
      most 1.

    Args:
        query: float (b, t, g, d), already scaled.
        key: float (b, t, g, d).
        value: float (b, t, h, e), where g divides h; value head i uses key head `i // (h / g)`.
        log_decay: finite float, at most 0: (b, t, h), or (b, t, g, d) for each channel of the key;
            None is no decay.
        beta: float (b, t, h), the part of a key's old value that is replaced; with None nothing is
            replaced, and values are added.
        mask: bool or int (b, t); tokens with 0 do not change the state.
        state: float (b, h, d, e), the state after the earlier tokens; None is zeros.
        chunk_size: as in `ChunkedScan`.

    Returns:
        tuple of float (b, t, h, e) and the last state, float32 (b, h, d, e) (float64 for float64).

    Raises:
        ValueError: g does not divide h, or the decay has another shape.
    """
    return ChunkedScan(chunk_size)(query, key, value, log_decay, beta, mask, state)


def _step(query, key, value, log_decay, beta, state):
    """Compute one token with the recurrence itself."""
    # The length is 1, but both branches of the choice must return the same shape.
    (batch, length), groups = ops.shape(query)[:2], key.shape[2]
    query, key, value, log_decay, beta = (
        None if x is None else _by_group(x[:, 0], groups)
        for x in (query, key, value, log_decay, beta)
    )
    decay = ops.expand_dims(ops.exp(log_decay), -1)
    grouped = ops.multiply(_by_group(state, groups), decay)
    if beta is not None:
        held = ops.squeeze(ops.matmul(ops.expand_dims(key, -2), grouped), -2)
        value = ops.multiply(beta, ops.subtract(value, held))
    grouped = ops.add(grouped, ops.multiply(ops.expand_dims(key, -1), ops.expand_dims(value, -2)))
    out = ops.matmul(ops.expand_dims(query, -2), grouped)
    out = ops.reshape(out, (batch, length, state.shape[1], state.shape[3]))
    return out, ops.reshape(grouped, (batch, *state.shape[1:]))


def _scan_chunks(query, key, value, log_decay, beta, state):
    """Compute all chunks (n, b, g, r, c, d|e|1) from the state (b, g, r, d, e) before the first."""
    weights = _scores((query,) if beta is None else (query, key), key, log_decay)
    since_start = ops.exp(ops.cumsum(log_decay, axis=-2))
    kept = ops.swapaxes(since_start[..., -1:, :], -1, -2)
    reading = ops.multiply(query, since_start)
    writing = ops.swapaxes(ops.multiply(key, ops.exp(_sum_after(log_decay))), -1, -2)
    if beta is None:
        state, states = scan(_add, state, (kept, ops.matmul(writing, value)))
    else:
        inverse = _inverse(ops.multiply(beta, weights[1]))
        value = ops.matmul(inverse, ops.multiply(beta, value))
        own = ops.matmul(inverse, ops.multiply(beta, ops.multiply(key, since_start)))
        state, states = scan(_replace, state, (kept, writing, value, own))
        value = ops.subtract(value, ops.matmul(own, states))
    return ops.add(ops.matmul(weights[0], value), ops.matmul(reading, states)), state


# The bodies of the loops are made once, not for each call, because JAX compiles each new function.
def _add(state, inputs):
    kept, update = inputs
    return ops.add(ops.multiply(kept, state), update), state


def _replace(state, inputs):
    kept, writing, value, own = inputs
    update = ops.matmul(writing, ops.subtract(value, ops.matmul(own, state)))
    return ops.add(ops.multiply(kept, state), update), state


def _scores(rows, key, log_decay):
    """`sum_d x_id k_jd exp(sum of log_decay from j + 1 to i)` if j <= i, else 0, for x in rows."""
    if log_decay.shape[-1] > 1:
        return [_channel_scores(row, key, log_decay) for row in rows]
    # Sum for each pair separately: a difference of two long sums would lose digits.
    after = np.tri(key.shape[-2], k=-1, dtype="bool")
    decay = ops.tril(ops.exp(ops.cumsum(ops.where(after, log_decay, 0.0), axis=-2)))
    return [ops.multiply(ops.matmul(row, ops.swapaxes(key, -1, -2)), decay) for row in rows]


def _channel_scores(row, key, log_decay):
    """The same for a decay of each channel, computed by halves.

    If the middle of a block is between j and i, the decay is a product of two factors: from j to
    the middle, and from the middle to i. Both are at most 1.
    """
    *lead, size, dim = (*ops.shape(key)[:4], *key.shape[4:])
    row, key, log_decay = (ops.reshape(x, (-1, size, 1, dim)) for x in (row, key, log_decay))
    scores = ops.sum(ops.multiply(row, key), axis=-1, keepdims=True)
    half = 1
    while half < size:
        _, later = _halves(row, half)
        earlier, _ = _halves(key, half)
        before, after = _halves(log_decay, half)
        later = ops.multiply(later, ops.exp(ops.cumsum(after, axis=-2)))
        earlier = ops.multiply(earlier, ops.exp(_sum_after(before)))
        corner = ops.matmul(later, ops.swapaxes(earlier, -1, -2))
        scores = ops.reshape(scores, (-1, size // (2 * half), 2, half, half))
        scores = _join(scores[:, :, 0], corner, scores[:, :, 1])
        half *= 2
    return ops.reshape(scores, (*lead, size, size))


def _halves(x, half):
    """Cut a chunk (l, ..., d) into blocks; return both halves of them, (l, blocks, half, d)."""
    size = x.shape[1] * x.shape[2]
    x = ops.reshape(x, (-1, size // (2 * half), 2, half, x.shape[-1]))
    return x[:, :, 0], x[:, :, 1]


def _inverse(lower):
    """`(I + L)^-1` for the strictly lower part L of matrices (..., c, c).

    It is computed by halves, `[[A, 0], [B, D]]^-1 = [[A^-1, 0], [-D^-1 B A^-1, D^-1]]`. This is as
    exact as substitution. A series in L would lose every digit if keys repeat.
    """
    *lead, size, _ = (*ops.shape(lower)[:4], *lower.shape[4:])
    inverse = _unit_inverse(ops.reshape(lower, (-1, size, size)), size)
    return ops.reshape(inverse, (*lead, size, size))


def _unit_inverse(lower, size):
    if size == 1:
        return ops.ones_like(lower)
    half = size // 2
    diagonal = ops.stack([lower[:, :half, :half], lower[:, half:, half:]], axis=1)
    inverses = _unit_inverse(ops.reshape(diagonal, (-1, half, half)), half)
    inverses = ops.reshape(inverses, (-1, 2, half, half))
    first, second = inverses[:, 0], inverses[:, 1]
    corner = ops.matmul(ops.matmul(second, lower[:, half:, :half]), first)
    return _join(first, ops.negative(corner), second)


def _join(first, corner, second):
    """`[[first, 0], [corner, second]]` of matrices (..., s, s)."""
    half = first.shape[-1]
    top = ops.pad(first, [[0, 0]] * (len(first.shape) - 1) + [[0, half]])
    return ops.concatenate([top, ops.concatenate([corner, second], axis=-1)], axis=-2)


def _sum_after(x):
    """For each element, the sum of all later elements of the second last axis."""
    later = ops.pad(x[..., 1:, :], [[0, 0]] * (len(x.shape) - 2) + [[0, 1], [0, 0]])
    return ops.flip(ops.cumsum(ops.flip(later, -2), axis=-2), -2)


def _split(x, groups, length, size):
    """Cut (b, t, h, d) into chunks (n, b, g, r, c, d), padded with zeros that change no state."""
    blocks, (heads, dim) = (length + size - 1) // size, x.shape[2:]
    x = ops.reshape(cut(x, blocks, size), (-1, blocks, size, groups, heads // groups, dim))
    return ops.transpose(x, (1, 0, 3, 4, 2, 5))


def _by_group(x, groups):
    """(b, h, ...) as (b, g, r, ...)."""
    return ops.reshape(x, (ops.shape(x)[0], groups, x.shape[1] // groups, *x.shape[2:]))


def _per_key(x):
    """A number for each head, (b, t, h), as (b, t, h, 1)."""
    return ops.expand_dims(x, -1) if x is not None and len(x.shape) == 3 else x


def _masked(x, mask):
    mask = ops.cast(ops.cast(mask, "bool"), x.dtype)
    return ops.multiply(x, ops.reshape(mask, (*ops.shape(mask), *[1] * (len(x.shape) - 2))))


def _check_shapes(query, value, log_decay):
    groups, heads = query.shape[2], value.shape[2]
    if heads % groups:
        raise ValueError(
            "The number of key heads must divide the number of value heads. Received: "
            f"{groups} key heads, {heads} value heads"
        )
    own = None if log_decay is None else tuple(log_decay.shape[2:])
    if own not in (None, (heads,), tuple(query.shape[2:])):
        raise ValueError(
            f"log_decay must have shape (b, t, {heads}), or (b, t, {groups}, {query.shape[3]}) for "
            f"one of each channel. Received: shape={tuple(log_decay.shape)}"
        )
