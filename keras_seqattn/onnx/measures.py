"""Measures of how far apart two results are. A precision is judged by one of them. NumPy only."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Measure:
    """What a verification computes from its comparisons.

    Attributes:
        difference: function of two finite float64 arrays, of Keras and of the file -> float.
        total: function of a list of `Case` -> float, which is compared with the tolerance.
    """

    difference: Callable
    total: Callable


def _largest(expected, actual):
    return float(np.abs(expected - actual).max() / max(1.0, np.abs(expected).max()))


def _worst(cases):
    return max((case.error for case in cases if not case.is_rounding), default=0.0)


def _relative(expected, actual):
    return float(np.sqrt(np.mean((expected - actual) ** 2) / max(1e-12, np.mean(expected**2))))


def _mean(cases):
    compared = [case for case in cases if case.rows]
    weights = [case.rows for case in compared]
    return float(np.average([case.error for case in compared], weights=weights))


# The largest difference over max(1, the largest magnitude), in the worst case, without the cases
# that rounding explains.
LARGEST = Measure(_largest, _worst)
# The relative root-mean-square difference, as the mean over all compared positions. In a rounded
# file, the error of a single token is mostly chance.
MEAN = Measure(_relative, _mean)


def difference(expected, actual, measure):
    """How far apart two float64 arrays are by a measure.

    NaN and infinities are equal if both arrays have the same. Otherwise the distance is infinite.
    """
    known = np.isfinite(expected)
    if not known.all():
        if not np.array_equal(expected[~known], actual[~known], equal_nan=True):
            return math.inf
        expected, actual = expected[known], actual[known]
    if expected.size == 0:
        return 0.0
    if not np.isfinite(actual).all():
        return math.inf
    return measure.difference(expected, actual)
