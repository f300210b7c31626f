"""Two numbers that tell heads apart: how spread their attention is, and how far it reaches."""

import numpy as np


def attention_entropy(scores):
    """The entropy of every query's attention, `-sum_s p log p`: 0 for one key, log(s) for all.

    Args:
        scores: float (..., t, s), rows that sum to 1.

    Returns:
        float (..., t).
    """
    scores = np.asarray(scores)
    logs = np.log(np.where(scores > 0, scores, 1.0))
    return -np.sum(scores * logs, axis=-1)


def attention_distance(scores):
    """The mean distance of what every query attends to, `sum_s p |s - t|`.

    Args:
        scores: float (..., t, s), rows that sum to 1, queries and keys counted from the same start.

    Returns:
        float (..., t).
    """
    scores = np.asarray(scores)
    queries, keys = np.arange(scores.shape[-2]), np.arange(scores.shape[-1])
    return np.sum(scores * np.abs(keys - queries[:, None]), axis=-1)
