"""Sizes that are known only at run time, followed through integer arithmetic.

A dynamic dimension is an int whose value is a large prime number, so that Keras can infer shapes
from it. It also knows its expression of the dimensions of the inputs. The value alone is not
enough: `n % 8` of a prime is a small number like any other, `max(n, 128)` is the prime itself, and
`(n + 7) // 8` has the value of `(n + 6) // 8` for most primes.
"""

import operator

import numpy as np

# Descending, so that the length of a later input can be subtracted from that of an earlier one. No
# two are near each other, and no two pairs have nearly the same sum or difference.
_STAND_INS = (1125899906318387, 1089957705285643, 1058132160151597, 1023614270308381)
_STAND_INS += (983183048310797, 937126174130183, 898861045907477, 875993962643473)
_STAND_INS += (834895079800883, 796419690070117, 768884208042023, 696548949753871)
_STAND_INS += (651519297323017, 598777673547787)
MOST_DIMENSIONS = len(_STAND_INS)
# Two expressions with the same value are equal if they also agree at these points. The points are:
# a prime number of small values, which each dimension takes once and no two dimensions in step;
# the neighbours of powers of two, because blocks and limits are often there; and others.
_SMALL = 4099
_POWERS = [2**k + d for k in range(12, 21) for d in (-1, 0, 1)]
_OTHERS = 64
_ELEMENTWISE = {min: np.minimum, max: np.maximum}
_ELEMENTWISE |= {
    f: f for f in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
}
# Two expressions of one length that are equal for its multiples of 64 agree at so many points.
# Expressions of independent lengths hardly ever agree.
_OFTEN = 1 / 80
# A constant, such as n - n + 3, is not a Size. Constants are found among values up to this one.
_LARGEST_CONSTANT = 1 << 33
# A constant that holds a number near a stand-in, or near a large part of one, is a leak. Other
# constants hardly ever hold few numbers that are so large and so near.
_FEW = 16
_LEAST_LEAK = 1 << 33
_NEAR = 1 << 10


class Size(int):
    """An integer that depends on the lengths of the inputs. Arithmetic with it gives another Size.

    Its value as an int is that for lengths equal to the stand-ins. Two Sizes are equal if they are
    the same function of the lengths. A Size is never equal to a plain int.
    """

    def __new__(cls, value, samples=None, function=None, operands=()):
        size = super().__new__(cls, value)
        size._samples, size._function, size._operands = samples, function, operands
        return size

    @property
    def samples(self):
        """int64 (points,), its values at the points where expressions are compared."""
        if self._samples is None:
            function = _ELEMENTWISE.get(self._function)
            function = function or np.vectorize(self._function, otypes=[np.int64])
            # A length in a divisor may be 0 at a point. The file is not run with that length.
            with np.errstate(all="ignore"):
                self._samples = function(*map(_samples, self._operands))
        return self._samples

    def __eq__(self, other):
        if self is other:
            return True
        if not isinstance(other, Size) or int(self) != int(other):
            return False
        return np.array_equal(self.samples, other.samples)

    def __ne__(self, other):
        return not self == other

    __hash__ = int.__hash__

    # Messages show this for a shape. Keras's einsum uses str and parses the text again.
    def __repr__(self):
        return "?"

    __str__ = int.__repr__

    def __neg__(self):
        return computed(operator.neg, self)


def _arithmetic(function, name):
    def forward(self, other):
        return computed(function, self, other) if _is_integer(other) else NotImplemented

    def backward(self, other):
        return computed(function, other, self) if _is_integer(other) else NotImplemented

    setattr(Size, f"__{name}__", forward)
    setattr(Size, f"__r{name}__", backward)


for _name, _function in (
    ("add", operator.add),
    ("sub", operator.sub),
    ("mul", operator.mul),
    ("floordiv", operator.floordiv),
    ("mod", operator.mod),
    ("pow", operator.pow),
):
    _arithmetic(_function, _name)


def dimension(index):
    """The Size of the dynamic dimension with this number, below MOST_DIMENSIONS."""
    small = 1 + np.arange(_SMALL) * (index + 1) % _SMALL
    others = np.random.default_rng(index).integers(1, 1 << 20, _OTHERS)
    # The last point is the stand-ins: a later length can be subtracted from an earlier one.
    last = [_STAND_INS[index] >> 30]
    samples = np.concatenate([small, np.roll(_POWERS, 3 * index), others, last])
    return Size(_STAND_INS[index], samples)


def unknown():
    """A Size that equals no other one, for a part whose length depends on values."""
    random = np.random.default_rng()
    # Small values, too: `min(n, 5)` is no constant.
    samples = random.integers(1, 1 << 20, len(dimension(0).samples))
    samples[:_SMALL] = random.permutation(_SMALL)
    return Size(_STAND_INS[0] >> 10, samples)


def is_dynamic(size):
    """Whether a number in a shape stands for a size that is known only at run time."""
    return isinstance(size, Size)


def computed(function, *numbers):
    """`function` of integers. The result is a Size if it depends on one.

    Args:
        function: function of plain ints -> int.
        *numbers: ints and Sizes.
    """
    value = int(function(*map(int, numbers)))
    if not any(map(is_dynamic, numbers)):
        return value
    size = _known(function, numbers, value)
    if abs(value) <= _LARGEST_CONSTANT and (size.samples == value).all():
        return value
    return size


def _known(function, numbers, value):
    """The Size that was made of the same numbers before, without comparing them, or a new one."""
    made = next(filter(is_dynamic, numbers)).__dict__.setdefault("_made", {})
    key = (function, *numbers)
    if key not in made:
        made[key] = Size(value, None, function, numbers)
    return made[key]


def _samples(number):
    return number.samples if is_dynamic(number) else np.int64(number)


def _is_integer(x):
    return isinstance(x, (int, np.integer))


def at_other_lengths(size):
    """int, the value of a size if all lengths were different ones."""
    return int(size.samples[-1]) if is_dynamic(size) else size


def joined(sizes):
    """The Sizes that have to be equal where shapes meet, although they are not equal everywhere.

    A length that is halved and doubled again is the same only if it is even. A model that joins
    both, such as a U-Net, works for such lengths only, for an expression of one length and another
    of the same.

    Args:
        sizes: Sizes.

    Returns:
        dict of Size -> the first Size that it equals at many points.
    """
    same, kept = {}, []
    for size in sizes:
        found = next((k for k in kept if k != size and _meet(k, size)), None)
        if found is not None:
            same[size] = found
        elif size not in kept:
            kept.append(size)
    return same


def _meet(first, other):
    return (first.samples == other.samples).mean() >= _OFTEN


def leaks(array, sizes):
    """Whether a constant with few numbers, like a shape, holds a stand-in or a part of one.

    Args:
        array: NumPy array.
        sizes: the Sizes that are known.
    """
    if array.size > _FEW or array.dtype.kind not in "if":
        return False
    large = [n for n in array.ravel().tolist() if _LEAST_LEAK <= abs(n) < 2**62]
    return any(_is_part(n, int(s)) for n in large for s in sizes if abs(s) >= _LEAST_LEAK)


def _is_part(number, stand_in):
    """Whether a number is near a stand-in, a small multiple or a whole part of it."""
    number = abs(number)
    if number > stand_in / 2:
        return abs(number - round(number / stand_in) * stand_in) <= _NEAR
    parts = round(stand_in / number)
    return abs(number * parts - stand_in) <= _NEAR + 8 * parts
