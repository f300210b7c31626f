"""Lowerings of series of numbers along an axis: differences, integrals, powers, spaced numbers."""

import math

import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast, common_dtype, operands, result_dtype
from keras_seqattn.onnx.lower.registry import lowers


def _neighbours(x, axis):
    """(all but the first, all but the last) along an axis."""
    before = (slice(None),) * (axis % len(x.sizes))
    return x[(*before, slice(1, None))], x[(*before, slice(None, -1))]


@lowers("Diff")
def diff(tracer, operation, a):
    """The n-th difference. Of bools, whether they differ."""
    for _ in range(operation.n):
        later, earlier = _neighbours(a, operation.axis)
        a = ops.not_equal(later, earlier) if a.dtype == "bool" else later - earlier
    return a


@lowers("Trapezoid")
def trapezoid(tracer, operation, y):
    """The integral by the trapezoidal rule, over points `x`, or with a fixed step."""
    y = cast(tracer, y, result_dtype(tracer, operation, (y,)))
    axis = operation.axis % len(y.sizes)
    step = operation.dx
    if operation.x is not None:
        (points,) = operands(tracer, [operation.x], y.dtype)
        if len(points.sizes) == 1:
            later, earlier = _neighbours(points, 0)
            step = ops.reshape(later - earlier, (-1, *[1] * (len(y.sizes) - axis - 1)))
        else:
            later, earlier = _neighbours(points, axis)
            step = later - earlier
    else:
        (step,) = operands(tracer, [step], y.dtype)
    later, earlier = _neighbours(y, axis)
    return ops.sum((later + earlier) * step, axis=axis) / 2


@lowers("Vander")
def vander(tracer, operation, x):
    """The powers of each number, one column for each. Half-precision and integers as they are."""
    count = tracer.size(x, 0) if operation.N is None else operation.N
    exponents = ops.arange(count, dtype="int32")
    if not operation.increasing:
        exponents = count - 1 - exponents
    # Keras computes integers in float32.
    wide = x if "float" in x.dtype else cast(tracer, x, "float32")
    powers = ops.power(ops.expand_dims(wide, -1), ops.cast(exponents, wide.dtype))
    return cast(tracer, powers, x.dtype)


# ---- numbers between two ends


def _spaced(tracer, operation, ends, dtype):
    """`num` numbers from the first end to the second, on a new axis, and the step."""
    a, b = operands(tracer, ends, dtype)
    parts = operation.num - 1 if operation.endpoint else operation.num
    shares = np.arange(operation.num) / max(parts, 1)
    rank = max(len(a.sizes), len(b.sizes))
    shares = tracer.constant(shares.reshape(-1, *[1] * rank), dtype)
    numbers = ops.expand_dims(a, 0) + shares * ops.expand_dims(b - a, 0)
    if operation.endpoint and operation.num > 1:
        # The last number is the end itself, without rounding.
        at_end = tracer.constant((np.arange(operation.num) == parts).reshape(-1, *[1] * rank))
        numbers = ops.where(at_end, ops.expand_dims(b, 0), numbers)
    step = (b - a) / parts if parts > 0 else tracer.constant(math.nan, dtype)
    return ops.moveaxis(numbers, 0, operation.axis), step


def _types(operation, ends):
    """(dtype of the computation, dtype of the result)."""
    wide = common_dtype((*ends, 1.0))
    return wide, operation.dtype or wide


@lowers("Linspace")
def linspace(tracer, operation, start, stop):
    wide, dtype = _types(operation, (start, stop))
    numbers, step = _spaced(tracer, operation, (start, stop), wide)
    if "int" in dtype:
        numbers = ops.floor(numbers)
    numbers = cast(tracer, numbers, dtype)
    return (numbers, step) if operation.retstep else numbers


@lowers("Logspace")
def logspace(tracer, operation, start, stop):
    wide, dtype = _types(operation, (start, stop))
    numbers, _ = _spaced(tracer, operation, (start, stop), wide)
    return cast(tracer, ops.power(float(operation.base), numbers), dtype)


@lowers("Geomspace")
def geomspace(tracer, operation, start, stop):
    """Of two ends with one sign."""
    wide, dtype = _types(operation, (start, stop))
    a, b = operands(tracer, (start, stop), wide)
    logs = [ops.log(ops.absolute(x)) for x in (a, b)]
    numbers, _ = _spaced(tracer, operation, logs, wide)
    signs = ops.expand_dims(ops.sign(a), operation.axis)
    return cast(tracer, ops.exp(numbers) * signs, dtype)


# ---- sizes as numbers


@lowers("Size")
def size(tracer, operation, x):
    total = tracer.constant(1)
    for axis in range(len(x.sizes)):
        total = ops.multiply(total, tracer.symbol(tracer.size(x, axis)))
    return ops.cast(total, "int32")


@lowers("Ndim")
def ndim(tracer, operation, x):
    return tracer.constant(len(x.sizes)).view("int32")


@lowers("Rot90")
def rot90(tracer, operation, x):
    """A rotation from the first axis towards the second."""
    first, second = operation.axes
    turns = operation.k % 4
    if turns == 2:
        return ops.flip(x, axis=(first, second))
    if turns == 1:
        x = ops.flip(x, axis=second)
    if turns:
        x = ops.swapaxes(x, first, second)
    return ops.flip(x, axis=second) if turns == 3 else x
