"""Lowerings that combine many elements: matrix products, norms, softmax."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import (
    binary,
    in_result_dtype,
    of_numbers,
    operands,
)
from keras_seqattn.onnx.lower.reductions import axes_of
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.symbol import Symbol, lazy_initializer


@lowers("Matmul")
def matmul(tracer, operation, x1, x2):
    sizes, dtype = tracer.output_spec(operation, (x1, x2), {})
    both = operands(tracer, (x1, x2), dtype)
    return of_numbers(tracer, "MatMul", both, sizes=sizes, dtype=dtype)


@lowers("Einsum")
def einsum(tracer, operation, *xs):
    operation = type(operation)(operation.subscripts.replace(" ", ""))
    sizes, dtype = tracer.output_spec(operation, xs, {})
    xs = operands(tracer, xs, dtype)
    as_product = _projection(operation.subscripts, xs)
    if as_product:
        return _project(tracer, xs[0], xs[1], as_product, sizes)
    equation = {"equation": operation.subscripts}
    return tracer.emit("Einsum", xs, equation, sizes=sizes, dtype=dtype)


def _projection(subscripts, xs):
    """The number of contracted axes, and the order of the axes of w, if this is `x @ w` over the
    last axes of x, else None. Weights may have their axes in any order."""
    if (
        len(xs) != 2
        or "->" not in subscripts
        or "." in subscripts
        or xs[1].value.const_value is None
    ):
        return None
    inputs, output = subscripts.split("->")
    left, right = inputs.split(",")
    n = sum(c in right for c in left)
    kept, made = left[: len(left) - n], output[len(left) - n :]
    contracted = left[len(kept) :]
    fits = n and output.startswith(kept) and not set(kept) & set(right)
    if not fits or sorted(contracted + made) != sorted(right) or len(set(right)) != len(right):
        return None
    return n, tuple(right.index(c) for c in contracted + made)


def _project(tracer, x, weight, projection, sizes):
    """An einsum that is a linear map, as one MatMul with a 2-D view of the weight."""
    contracted, order = projection
    shape = [weight.sizes[axis] for axis in order]
    rows, columns = math.prod(shape[:contracted]), math.prod(shape[contracted:])
    flat = tracer.once(
        ("flat", weight.value, order),
        lambda: flat_weight(tracer, weight, (rows, columns), order),
    )
    lead = x.sizes[: len(x.sizes) - contracted]
    x = reshape(tracer, x, (*lead, rows))
    product = tracer.emit("MatMul", [x, flat], sizes=(*lead, columns), dtype=x.dtype)
    return reshape(tracer, product, sizes)


@lowers("Add")
def add(tracer, operation, x1, x2):
    """Addition. If a reshape has just split the axes of a bias, it is added before the split."""
    sides = [tracer.symbol(x) if isinstance(x, (Symbol, keras.Variable)) else x for x in (x1, x2)]
    for x, bias in (sides, sides[::-1]):
        if _is_split_bias(x, bias):
            whole = x.reshaped_from
            flat = _flat_bias(tracer, bias)
            total = tracer.emit("Add", [whole, flat], sizes=whole.sizes, dtype=x.dtype)
            return reshape(tracer, total, x.sizes)
    return binary("Add")(tracer, operation, x1, x2)


def _flat_bias(tracer, bias):
    width = math.prod(bias.sizes)
    return tracer.once(("flat", bias.value), lambda: flat_weight(tracer, bias, (width,)))


def _is_split_bias(x, bias):
    if not isinstance(x, Symbol) or not isinstance(bias, Symbol) or x.reshaped_from is x:
        return False
    lead = len(x.sizes) - len(bias.sizes)
    constant = bias.value.const_value is not None and bias.dtype == x.dtype
    return constant and len(bias.sizes) > 1 and (
        x.sizes == (*x.reshaped_from.sizes[:lead], *bias.sizes)
        and x.reshaped_from.sizes[lead:] == (math.prod(bias.sizes),)
    )  # fmt: skip


def flat_weight(tracer, weight, shape, order=None):
    """The same initializer with another shape, made when it is written.

    Args:
        order: None, or the axes of the weight in the order that they have before the reshape.
    """
    order = tuple(range(len(weight.sizes))) if order is None else order
    if weight.sizes == shape and list(order) == sorted(order):
        return weight
    source = weight.value.const_value
    name = tracer.unique_name(weight.value.name + "/flat")
    value = lazy_initializer(
        name, shape, source.dtype, lambda: source.numpy().transpose(order).reshape(shape)
    )
    tracer.graph.register_initializer(value)
    return Symbol(value, shape, weight.dtype)


@lowers("Softmax", "LogSoftmax")
def softmax(tracer, operation, x):
    """Over several axes, or all, these become one axis for the node."""
    x = in_result_dtype(tracer, operation, x)
    rank = len(x.sizes)
    axes = range(rank) if operation.axis is None else axes_of(operation.axis)
    if len(axes) == 1:
        attributes = {"axis": operation.axis if isinstance(operation.axis, int) else axes[0]}
        return tracer.emit(type(operation).__name__, [x], attributes, sizes=x.sizes, dtype=x.dtype)
    axes = sorted(axis % rank for axis in axes)
    order = [axis for axis in range(rank) if axis not in axes] + axes
    moved = transpose(tracer, x, order)
    lead = moved.sizes[: rank - len(axes)]
    joined = reshape(tracer, moved, (*lead, math.prod(moved.sizes[len(lead) :])))
    spec = {"sizes": joined.sizes, "dtype": x.dtype}
    result = tracer.emit(type(operation).__name__, [joined], {"axis": -1}, **spec)
    result = reshape(tracer, result, moved.sizes)
    return transpose(tracer, result, np.argsort(order).tolist())


@lowers(keras.layers.Softmax)
def masked_softmax(tracer, layer, inputs, mask=None):
    """The Softmax layer of Keras. It keeps the positions where the mask is True or above 0.5. The
    others get 0, even if all positions are masked.
    """
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
    if mask is None:
        return ops.softmax(inputs, axis=axis)
    if mask.dtype != "bool":
        mask = ops.greater(mask, ops.cast(0.5, mask.dtype))
    large = 3e4 if inputs.dtype == "float16" else 1e9
    probabilities = ops.softmax(ops.where(mask, inputs, -large), axis=axis)
    return ops.where(mask, probabilities, 0.0)
