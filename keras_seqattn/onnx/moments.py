"""Compares models that draw random numbers: not the draws, but their means and deviations."""

import numpy as np

# How often both sides are run.
RUNS = 24
# How many standard errors two means, or two deviations, may be apart. One in millions is further.
_ERRORS = 6.0
_TINY = 1e-12


def apart(expected, actual, tolerance):
    """How far apart the moments of two sets of draws are: 0 if chance explains it.

    Args:
        expected, actual: float64 (runs, ...), the draws of Keras and of the file.
        tolerance: of numbers that are not random.

    Returns:
        float. It is infinite if the shapes or the numbers that are not finite differ.
    """
    if expected.shape != actual.shape:
        return np.inf
    if not np.isfinite(expected).all() or not np.isfinite(actual).all():
        same = np.array_equal(np.isfinite(expected[0]), np.isfinite(actual[0]))
        expected, actual = (np.nan_to_num(x, posinf=0, neginf=0) for x in (expected, actual))
        if not same:
            return np.inf
    if not expected.size:
        return 0.0
    fixed = (expected == expected[:1]).all(0) & (actual == actual[:1]).all(0)
    scale = max(1.0, np.abs(expected).max())
    exact = np.abs(expected[0] - actual[0])[fixed].max(initial=0.0) / scale
    drawn = max(_pooled(expected[:, ~fixed], actual[:, ~fixed]), _of_each(expected, actual))
    return max(drawn, exact if exact > tolerance else 0.0)


def _pooled(a, b):
    """The moments of all numbers together. A layer with a fixed seed draws the same each time."""
    if not a.size:
        return 0.0
    # Draws that never change are as many as there are in one run.
    count = min(x[0].size if (x == x[:1]).all() else x.size for x in (a, b))
    deviation = max(a.std(), b.std(), _TINY)
    mean = abs(a.mean() - b.mean()) / deviation
    spread = abs(np.log(max(a.std(), _TINY) / max(b.std(), _TINY)))
    limit = _ERRORS * np.sqrt(2 / count)
    return max(x if x > limit else 0.0 for x in (mean, spread))


def _of_each(a, b):
    """The mean of each number over the runs, if both sides draw anew in each."""
    error = np.sqrt((a.var(0) + b.var(0)) / len(a))
    changes = (a.std(0) > 0) & (b.std(0) > 0)
    if not changes.any():
        return 0.0
    z = (a.mean(0) - b.mean(0))[changes] / error[changes]
    root = np.sqrt(np.mean(z**2))
    return float(root) if root > 1 + _ERRORS / np.sqrt(z.size) else 0.0
