"""Tokens taken by their positions in a row."""

from keras import ops

from keras_seqattn.ops.broadcasting import add


def take_tokens(x, places):
    """The tokens at given positions of each row.

    Args:
        x: float (b, n, ...).
        places: int (b, k), at least 0. A position of n or more gives the last token.

    Returns:
        float (b, k, ...).
    """
    batch, length = ops.shape(x)[0], ops.shape(x)[1]
    starts = ops.expand_dims(ops.multiply(ops.arange(batch, dtype="int32"), length), 1)
    flat = ops.reshape(x, (-1, *x.shape[2:]))
    return ops.take(flat, add(starts, ops.minimum(places, length - 1)), axis=0)
