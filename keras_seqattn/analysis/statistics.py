"""Two numbers for each head: how widely its attention is spread, and how far it reaches."""

import numpy as np

from keras_seqattn.errors import InputError
from keras_seqattn.generation.prompts import as_array


def score_array(scores, axes=None):
    """`scores` as an array of numbers with at least two axes, or with `axes` axes."""
    scores = as_array(scores, "scores")
    fits = scores.ndim >= 2 if axes is None else scores.ndim in axes
    if not fits or scores.dtype.kind not in "fiu":
        raise InputError(
            "scores must be numbers (..., queries, keys), of one layer and for a plot of one row, "
            f"not {scores.dtype} {scores.shape}"
        )
    return scores


def attention_entropy(scores):
    """The entropy of the attention of each query, `-sum_s p log p`.

    It is 0 for attention to one key, and log(s) for equal attention to all keys.

    Args:
        scores: float (..., t, s), rows that sum to 1.

    Returns:
        float (..., t).
    """
    scores = score_array(scores)
    logs = np.log(np.where(scores > 0, scores, 1.0))
    return -np.sum(scores * logs, axis=-1)


def attention_distance(scores):
    """The mean distance between each query and its keys, `sum_s p |s - t|`.

    Args:
        scores: float (..., t, s), rows that sum to 1; queries and keys have the same first
            position.

    Returns:
        float (..., t).
    """
    scores = score_array(scores)
    queries, keys = np.arange(scores.shape[-2]), np.arange(scores.shape[-1])
    return np.sum(scores * np.abs(keys - queries[:, None]), axis=-1)
