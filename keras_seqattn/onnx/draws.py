"""Random values of one input: masks of every form, and integers over the whole range."""

import numpy as np

# Ranges for integers that nothing limits, tried in this order. Products of the widest leave int32.
SPREADS = ((-(1 << 20), 1 << 20), (-1000, 1000), (0, 1000), (0, 10), (0, 2))
# What a width of values adds to the border cases near zero.
_NEAR = 10
# How many forms of flags there are.
_FORMS = 4


def integers(random, shape, least, below):
    """int64: the ends of the range, half of the others near zero, half over the whole range.

    Args:
        random: numpy.random.Generator.
        shape: of the result.
        least, below: the range.
    """
    anywhere = random.integers(least, below, shape)
    low, high = max(least, -_NEAR), min(below, _NEAR)
    if low < high:
        near = random.integers(low, high, shape)
        anywhere = np.where(random.random(shape) < 0.5, near, anywhere)
    anywhere = np.array(anywhere)
    if anywhere.size > 2:
        places = random.choice(anywhere.size, 2, replace=False)
        anywhere.flat[places] = least, below - 1
    return anywhere


def flags(random, shape, form=0):
    """bool, mostly True. They may be a mask, so each query sees a key at least.

    Args:
        random: numpy.random.Generator.
        shape: of the result; the last axis is that of keys, the one before it that of queries.
        form: int. The forms take turns: at random, causal, all, and padding at the end.
    """
    form %= _FORMS
    if not shape or form == 2:
        return np.ones(shape, bool)
    if form == 3:
        return padding_mask(shape, "right").astype(bool)
    drawn = random.random(shape) < 0.7
    drawn[..., :1] = True
    if len(shape) > 2:
        drawn |= np.eye(*shape[-2:], dtype=bool)
        drawn = np.tril(drawn) if form == 1 else drawn
    return drawn


def padding_mask(shape, side):
    """int64 (b, ..., t): about r/4 of the positions of row r are padding, at least one is real."""
    mask = np.ones(shape, np.int64)
    for row in range(shape[0]) if side else ():
        padded = min(row * shape[-1] // 4 + (row > 0), shape[-1] - 1)
        if side == "left":
            mask[row, ..., :padded] = 0
        else:
            mask[row, ..., shape[-1] - padded :] = 0
    return mask


def global_mask(random, shape, most):
    """int64 (b, t), up to three tokens of each row. They may be padding."""
    count = min(3, shape[1], most)
    mask = np.zeros(shape, np.int64)
    for row in mask:
        row[random.choice(shape[1], count, replace=False)] = 1
    return mask
