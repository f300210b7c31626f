"""Between which numbers the integers of a value are: they wrap only where they may overflow.

Integers are int64 in the graph, and Keras computes with narrower types, which wrap: 200 + 100 is 44
in uint8. A value that may leave its type is cast to that type and back. Sizes, masks, positions and
classes are small: their sums and products never leave int32, and no cast is added.
"""

import math

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.sizes import is_dynamic

# dtype -> the least and the greatest integer. uint64 is kept in the bits of int64: values from
# 2**63 on are negative there. They add and multiply rightly, but compare and divide as negative
# numbers.
LIMITS = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
} | {"uint64": (-(2**63), 2**63 - 1)}
_BITS_64 = ("int64", "uint64")
# No axis of a value is longer, and no value has more elements.
LENGTH, ELEMENTS = 1 << 24, 1 << 30


def of_dtype(dtype):
    """(least, greatest) of all values of a dtype of Keras. None for floats."""
    return (0, 1) if dtype == "bool" else LIMITS.get(dtype)


def of_array(array):
    """(least, greatest) of a NumPy array. None for floats and for an empty array."""
    if array.dtype.kind not in "iub" or not array.size:
        return None
    return int(array.min()), int(array.max())


def between(limits, dtype):
    """The bounds of values that are declared to be between limits, (least, greatest) or None."""
    known = of_dtype(dtype)
    if limits is None or dtype not in LIMITS:
        return known
    return tuple(k if n is None else n for n, k in zip(limits, known, strict=True))


def fits(bounds, dtype):
    """Whether all integers between the bounds are values of a dtype."""
    low, high = LIMITS[dtype]
    return dtype in _BITS_64 or (low <= bounds[0] and bounds[1] <= high)


def of_result(op_type, inputs, attributes, sizes, dtype, place=0):
    """The bounds of an output of a node, before it wraps.

    Args:
        op_type, inputs, attributes: of the node. The inputs are Symbols and None.
        sizes, dtype: of the output.
        place: which output it is.

    Returns:
        (least, greatest), or None if nothing is known but the dtype.
    """
    rule = (_RULES if place == 0 else _LATER_OUTPUTS).get(op_type)
    if rule is None or dtype not in LIMITS or sizes is None:
        return None
    found = rule(inputs, attributes or {}, sizes)
    if found is not None and dtype in _BITS_64 and not _within(found, LIMITS[dtype]):
        return None
    return found


def overflows(bounds, inputs, dtype):
    """Whether a result with these bounds must wrap to be a value of its dtype.

    Sizes are computed without wrapping: if they overflow in Keras, no tensor has them. True int32
    values, which a few operators need, are computed in int32.
    """
    if bounds is None or fits(bounds, dtype):
        return False
    integers = [x for x in inputs if x is not None and x.dtype in LIMITS]
    if any(x.value.dtype != ir.DataType.INT64 for x in integers):
        return False
    return not all(x.number is not None or _is_number(x) for x in integers)


def _is_number(x):
    return x.value.const_value is not None and x.sizes in ((), (1,))


def _within(bounds, limits):
    return limits[0] <= bounds[0] and bounds[1] <= limits[1]


def _union(xs):
    found = [x.bounds for x in xs if x is not None]
    if None in found or not found:
        return None
    return min(low for low, _ in found), max(high for _, high in found)


def _first(inputs, attributes, sizes):
    return inputs[0].bounds


def _all(inputs, attributes, sizes):
    return _union(inputs)


def _length(inputs, attributes, sizes):
    return 0, LENGTH


def _corners(function):
    """The rule for a function that is greatest and least at the bounds of two operands."""

    def rule(inputs, attributes, sizes):
        a, b = (x.bounds for x in inputs)
        if a is None or b is None:
            return None
        found = [function(p, q) for p in a for q in b]
        return min(found), max(found)

    return rule


def _multiplied(inputs, attributes, sizes):
    """Positions times a size are positions in a flattened tensor."""
    found = _corners(lambda p, q: p * q)(inputs, attributes, sizes)
    small = found is not None and all(max(x.bounds) <= LENGTH << 4 for x in inputs)
    if small and found[0] >= 0 and any(is_dynamic(x.number) for x in inputs):
        return found[0], min(found[1], ELEMENTS)
    return found


def _negative(inputs, attributes, sizes):
    low, high = inputs[0].bounds
    return -high, -low


def _absolute(inputs, attributes, sizes):
    low, high = inputs[0].bounds
    return 0 if low <= 0 <= high else min(abs(low), abs(high)), max(abs(low), abs(high))


def _extreme(choose):
    """The rule for the maximum or minimum of all operands."""

    def rule(inputs, attributes, sizes):
        found = [x.bounds for x in inputs]
        return None if None in found else tuple(choose(side) for side in zip(*found, strict=True))

    return rule


def _clip(inputs, attributes, sizes):
    low, high = inputs[0].bounds
    for choose, bound in zip((max, min), inputs[1:], strict=False):
        if bound is not None:
            low, high = (choose(n, m) for n, m in zip((low, high), bound.bounds, strict=True))
    return low, high


def _quotient(inputs, attributes, sizes):
    """The quotient is not farther from 0 than the dividend."""
    low, high = inputs[0].bounds
    most = max(abs(low), abs(high))
    down = low if low < 0 else 0
    signed = inputs[1].bounds[0] < 0
    return (-most, most) if signed else (down, max(high, 0))


def _remainder(inputs, attributes, sizes):
    low, high = inputs[1].bounds
    if attributes.get("fmod"):
        most = max(abs(low), abs(high))
        return min(inputs[0].bounds[0], 0) and -most, most
    return min(low + 1, 0), max(high - 1, 0)


def _power(inputs, attributes, sizes):
    """Of a small constant exponent. Other powers may be anything."""
    base, exponent = (x.bounds for x in inputs)
    if base is None or exponent is None:
        return None
    if exponent[0] != exponent[1] or not 0 <= exponent[0] <= 64:
        return _anything(inputs, attributes, sizes)
    ends = [n ** exponent[0] for n in base] + [0] * (base[0] < 0 < base[1])
    return min(ends), max(ends)


def _anything(inputs, attributes, sizes):
    return -(2**200), 2**200


def _times(bounds, count):
    low, high = bounds
    return min(low * count, low if count else 0, 0), max(high * count, high if count else 0, 0)


def _sum(inputs, attributes, sizes):
    summed = list(inputs[0].sizes)
    for n in sizes:
        if n in summed:
            summed.remove(n)
    count = math.prod(LENGTH if is_dynamic(n) else n for n in summed)
    return _times(inputs[0].bounds, min(count, ELEMENTS))


def _cumulative_sum(inputs, attributes, sizes):
    most = max((LENGTH if is_dynamic(n) else n for n in sizes), default=1)
    return _times(inputs[0].bounds, most)


def _product(inputs, attributes, sizes):
    bounds = inputs[0].bounds
    return bounds if _within(bounds, (0, 1)) else _anything(inputs, attributes, sizes)


def _matrix_product(inputs, attributes, sizes):
    bounds = _corners(lambda p, q: p * q)(inputs[:2], attributes, sizes)
    summed = inputs[0].sizes[-1]
    return bounds and _times(bounds, LENGTH if is_dynamic(summed) else summed)


def _cast(inputs, attributes, sizes):
    return inputs[0].bounds


def _scatter(inputs, attributes, sizes):
    data, updates = inputs[0], inputs[2]
    if attributes.get("reduction", "none") in ("add", "mul"):
        return _anything(inputs, attributes, sizes)
    return _union([data, updates])


def _range(inputs, attributes, sizes):
    return _union([*inputs[:2]])


def _padded(inputs, attributes, sizes):
    low, high = _union([inputs[0], *inputs[2:3]])
    return min(low, 0), max(high, 0)


_LATER_OUTPUTS = {"Split": _first, "TopK": _length}
_RULES = {
    "Add": _corners(lambda p, q: p + q),
    "Sub": _corners(lambda p, q: p - q),
    "Mul": _multiplied,
    "Neg": _negative,
    "Abs": _absolute,
    "Max": _extreme(max),
    "Min": _extreme(min),
    "Clip": _clip,
    "Div": _quotient,
    "Mod": _remainder,
    "Pow": _power,
    "ReduceSum": _sum,
    "ReduceProd": _product,
    "CumSum": _cumulative_sum,
    "MatMul": _matrix_product,
    "Einsum": _anything,
    "Cast": _cast,
    "Where": lambda inputs, *rest: _union(inputs[1:]),
    "Concat": _all,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Range": _range,
    "Pad": _padded,
    "Trilu": _padded,
    **dict.fromkeys(("Shape", "Size", "ArgMax", "ArgMin", "NonZero"), _length),
    **dict.fromkeys(
        (
            *("Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "ReduceMax"),
            *("ReduceMin", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "TopK"),
            "Unsqueeze",
        ),
        _first,
    ),
}
