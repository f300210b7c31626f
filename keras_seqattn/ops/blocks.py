"""Sequences cut into blocks, and attention between blocks: the parts of sparse patterns."""

from keras import ops

from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import real_tokens
from keras_seqattn.ops.precision import products
from keras_seqattn.ops.softmax import NEVER, softmax


def real_blocks(query, mask, blocks, size):
    """Which positions hold a real token.

    Args:
        query: float (b, t, h, d).
        mask: bool or int (b, t), nonzero = real; with None all are real.
        blocks, size: as in `head_blocks`.

    Returns:
        bool (b, nb, size), False after the end of the sequence.
    """
    return cut(real_tokens(query, mask), blocks, size)


def cut(x, blocks, size):
    """Cut a sequence into blocks.

    Args:
        x: (b, t, ...).
        blocks: number of blocks nb, at least `t / size`.
        size: number of positions in a block.

    Returns:
        (b, nb, size, ...), zeros after the end of the sequence.
    """
    behind = [[0, blocks * size - ops.shape(x)[1]]]
    x = ops.pad(x, [[0, 0], *behind, *[[0, 0]] * (len(x.shape) - 2)])
    return ops.reshape(x, (-1, blocks, size, *x.shape[2:]))


def head_blocks(x, blocks, size, groups):
    """Cut heads into blocks.

    Args:
        x: float (b, t, h, d).
        blocks: number of blocks nb, `ceil(t / size)`.
        size: number of positions in a block.
        groups: number of key/value heads g.

    Returns:
        float (b, g, nb, h / g, size, d), zeros after the end of the sequence.
    """
    heads, width = x.shape[2], x.shape[3]
    x = ops.reshape(cut(x, blocks, size), (-1, blocks, size, groups, heads // groups, width))
    return ops.transpose(x, (0, 3, 1, 4, 2, 5))


def from_head_blocks(x, length):
    """The inverse of `head_blocks`: float (b, t, h, e)."""
    _, groups, blocks, heads, size, width = ops.shape(x)
    x = ops.transpose(x, (0, 2, 4, 1, 3, 5))  # (b, nb, size, g, h / g, e)
    return ops.reshape(x, (-1, blocks * size, groups * heads, width))[:, :length]


def flatten(x, axis):
    """Join an axis with the next axis."""
    sizes = ops.shape(x)
    return ops.reshape(x, (*sizes[:axis], sizes[axis] * sizes[axis + 1], *sizes[axis + 2 :]))


def attend_blocks(query, key, value, bias):
    """`softmax(q k' + bias) v` for blocks of queries and keys.

    Args:
        query: float (b, g, u, x, y, d), scaled.
        key, value: float (b, g, u, s, d) and (b, g, u, s, e).
        bias: float, broadcasts to (b, g, u, x, y, s); `NEVER` forbids a key.

    Returns:
        float (b, g, u, x, y, e), zeros where no key is allowed.
    """
    some = ops.any(ops.greater(bias, 0.5 * NEVER), axis=-1, keepdims=True)
    return ops.where(some, weigh_blocks(block_scores(query, key, bias), value), 0.0)


def attend_part(query, key, value, bias):
    """Attention to a part of the keys, for `merge`.

    Args:
        query, key, value, bias: as in `attend_blocks`.

    Returns:
        float (b, g, u, x, y, e), and the logarithm of the sum of the exponentials, float
        (b, g, u, x, y, 1). If no key is allowed, the first is arbitrary and the second is near
        `NEVER`.
    """
    scores = block_scores(query, key, bias)
    return weigh_blocks(scores, value), ops.logsumexp(scores, axis=-1, keepdims=True)


def merge(near, far):
    """One softmax over the keys of two parts. No key is in both parts.

    Args:
        near, far: pairs that `attend_part` returned.

    Returns:
        float (b, g, u, x, y, e), zeros where neither part has a key.
    """
    (near, near_total), (far, far_total) = near, far
    # Two sigmoids, because a part without keys must have a weight of exactly 0.
    near_share = ops.sigmoid(ops.subtract(near_total, far_total))
    far_share = ops.sigmoid(ops.subtract(far_total, near_total))
    near = ops.multiply(near, ops.cast(near_share, near.dtype))
    far = ops.multiply(far, ops.cast(far_share, far.dtype))
    some = ops.greater(ops.maximum(near_total, far_total), 0.5 * NEVER)
    return ops.where(some, ops.add(near, far), 0.0)


def check_self_attention(name, query, key):
    """Check that queries and keys can be of the same sequence, as patterns over positions need it.

    Raises:
        ValueError: their lengths are known and differ.
    """
    lengths = query.shape[1], key.shape[1]
    if None not in lengths and lengths[0] != lengths[1]:
        raise ValueError(
            f"{name} is self-attention: queries and keys must be of one sequence. Received: "
            f"{lengths[0]} queries, {lengths[1]} keys"
        )


def block_scores(query, key, bias):
    """`q k' + bias`, arguments as in `attend_blocks`: float32 or float64 (b, g, u, x, y, s)."""
    sizes = ops.shape(query)
    scores = products(flatten(query, 3), key)
    scores = ops.reshape(scores, (*sizes[:5], ops.shape(key)[3]))
    return add(scores, ops.cast(bias, scores.dtype))


def weigh_blocks(scores, value):
    """`softmax(scores) v` for (b, g, u, x, y, s) and (b, g, u, s, e): float (b, g, u, x, y, e)."""
    # TensorFlow's softmax accepts at most five axes.
    probabilities = ops.cast(softmax(flatten(scores, 3)), value.dtype)
    return ops.reshape(ops.matmul(probabilities, value), (*ops.shape(scores)[:5], value.shape[4]))
