"""Attention masks as boolean tensors, where True means that the query may attend to the key."""

from keras import ops


def real_tokens(x, mask=None):
    """A mask of the real tokens.

    Args:
        x: float (b, t, h, d), the tokens.
        mask: bool or int (b, t), nonzero = real; with None all are real.

    Returns:
        bool (b, t).
    """
    if mask is None:
        return ops.ones_like(x[:, :, 0, 0], dtype="bool")
    return ops.cast(mask, "bool")


def expand_mask(mask):
    """A boolean mask that broadcasts to (b, h, t, s), from one over keys or over pairs.

    Args:
        mask: bool or int (b, s), (b, t, s) or (b|1, h|1, t|1, s).

    Returns:
        bool (b, 1, 1, s) or (b, 1, t, s); a mask with four axes keeps its shape.

    Raises:
        ValueError: the mask has another number of axes.
    """
    rank = len(mask.shape)
    if rank not in (2, 3, 4):
        raise ValueError(
            "An attention mask must have shape (batch, keys), (batch, queries, keys) or "
            f"(batch, heads, queries, keys). Received: shape={tuple(mask.shape)}"
        )
    mask = ops.cast(mask, "bool")
    if rank == 2:
        return ops.expand_dims(ops.expand_dims(mask, 1), 1)
    return ops.expand_dims(mask, 1) if rank == 3 else mask


def band_mask(query_positions, key_positions, causal=False, window=None):
    """Allows key j to query i if `j <= i` (causal) and `-left <= j - i <= right` (window).

    Args:
        query_positions: int (t,).
        key_positions: int (s,).
        causal: forbid keys after the query.
        window: None or inclusive (left, right), each side an int or None for unbounded.

    Returns:
        bool (1, 1, t, s), or None if every pair is allowed.
    """
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    if left is None and right is None:
        return None
    distance = ops.subtract(ops.expand_dims(key_positions, 0), ops.expand_dims(query_positions, 1))
    distance = ops.expand_dims(ops.expand_dims(distance, 0), 0)
    return combine_masks(
        None if left is None else ops.greater_equal(distance, -left),
        None if right is None else ops.less_equal(distance, right),
    )


def combine_masks(*masks):
    """The logical and of the masks that are not None; None if all of them are None."""
    combined = None
    for mask in masks:
        if mask is not None:
            combined = mask if combined is None else ops.logical_and(combined, mask)
    return combined
