"""Lowerings of products of tensors over chosen axes, as multiplications and matrix products."""

import math

from keras import ops

from keras_seqattn.onnx.lower.elementwise import (
    cast,
    common_dtype,
    operands,
    result_dtype,
    through_ops,
)
from keras_seqattn.onnx.lower.reductions import axes_of, flat
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose


def of_operands(*names):
    """Register `function(tracer, operation, a, b)`, whose operands get one dtype."""

    def register(function):
        @lowers(*names)
        def lowering(tracer, operation, x1, x2):
            dtype = common_dtype((x1, x2))
            a, b = operands(tracer, (x1, x2), "int32" if dtype == "bool" else dtype)
            return cast(tracer, function(tracer, operation, a, b), dtype)

        return function

    return register


def contracted(tracer, a, b, axes_a, axes_b):
    """The sum over pairs of axes: the other axes of `a` come first, then those of `b`."""
    axes_a, axes_b = ([n % len(x.sizes) for n in axes] for x, axes in ((a, axes_a), (b, axes_b)))
    left = [n for n in range(len(a.sizes)) if n not in axes_a]
    right = [n for n in range(len(b.sizes)) if n not in axes_b]
    a, b = transpose(tracer, a, left + axes_a), transpose(tracer, b, axes_b + right)
    rows, summed = a.sizes[: len(left)], a.sizes[len(left) :]
    columns = b.sizes[len(axes_b) :]
    size = math.prod(summed)
    a = reshape(tracer, a, (math.prod(rows), size))
    b = reshape(tracer, b, (size, math.prod(columns)))
    return reshape(tracer, ops.matmul(a, b), (*rows, *columns))


@of_operands("Tensordot")
def tensordot(tracer, operation, a, b):
    """A number of axes means the last ones of the first, and the first ones of the second."""
    axes = operation.axes
    if isinstance(axes, int):
        return contracted(tracer, a, b, range(len(a.sizes))[len(a.sizes) - axes :], range(axes))
    return contracted(tracer, a, b, *map(axes_of, axes))


@of_operands("Inner")
def inner(tracer, operation, a, b):
    if not a.sizes or not b.sizes:
        return a * b
    return contracted(tracer, a, b, [-1], [-1])


@of_operands("Dot")
def dot(tracer, operation, a, b):
    if not a.sizes or not b.sizes:
        return a * b
    return contracted(tracer, a, b, [-1], [-2 if len(b.sizes) > 1 else -1])


@of_operands("Vdot")
def vdot(tracer, operation, a, b):
    return contracted(tracer, flat(tracer, a), flat(tracer, b), [0], [0])


@of_operands("Outer")
def outer(tracer, operation, a, b):
    return ops.expand_dims(flat(tracer, a), 1) * ops.expand_dims(flat(tracer, b), 0)


@of_operands("Kron")
def kron(tracer, operation, a, b):
    """Every element of `a` times the whole of `b`, which is an axis for each pair of axes."""
    rank = max(len(a.sizes), len(b.sizes))
    a, b = (reshape(tracer, x, (1,) * (rank - len(x.sizes)) + x.sizes) for x in (a, b))
    sizes = [m * n for m, n in zip(a.sizes, b.sizes, strict=True)]
    for axis in range(rank):
        a, b = ops.expand_dims(a, 2 * axis + 1), ops.expand_dims(b, 2 * axis)
    return reshape(tracer, a * b, sizes)


@of_operands("Cross")
def cross(tracer, operation, a, b):
    """Of vectors of 3 numbers, or of 2, whose third one is 0."""
    a, b = ops.moveaxis(a, operation.axisa, -1), ops.moveaxis(b, operation.axisb, -1)
    plane = a.sizes[-1] == b.sizes[-1] == 2
    a, b = (ops.split(x, x.sizes[-1], axis=-1) for x in (a, b))
    third = a[0] * b[1] - a[1] * b[0]
    if plane:
        return ops.squeeze(third, -1)
    zero = ops.zeros_like(third)
    a, b = ([*x, zero] if len(x) == 2 else x for x in (a, b))
    parts = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], third]
    return ops.moveaxis(ops.concatenate(parts, axis=-1), -1, operation.axisc)


@lowers("Trace")
def trace(tracer, operation, x):
    """The sum of a diagonal. What is beside it counts as 0, even if it is NaN."""
    dtype = result_dtype(tracer, operation, (x,))
    x = ops.moveaxis(cast(tracer, x, dtype), (operation.axis1, operation.axis2), (-2, -1))
    rows, columns = ops.shape(x)[-2:]
    row = ops.expand_dims(ops.arange(rows, dtype="int32"), 1) + operation.offset
    chosen = ops.equal(row, ops.expand_dims(ops.arange(columns, dtype="int32"), 0))
    return cast(tracer, ops.sum(ops.where(chosen, x, 0), axis=(-2, -1)), dtype)


@through_ops("CDist")
def cdist(operation, a, b):
    """Euclidean distances between all pairs of rows."""
    gap = ops.expand_dims(a, -2) - ops.expand_dims(b, -3)
    return ops.sqrt(ops.sum(ops.square(gap), axis=-1))
