"""The product of a quantised EinsumDense: as a matrix product where its equation is one."""

import dataclasses
import math

import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.quantized_layers import product_rows, quantizer_of, scaled
from keras_seqattn.onnx.lower.quantized_nodes import (
    float_kernel,
    rounded_inputs,
    scaled_kernel,
)
from keras_seqattn.onnx.lower.quantized_rows import scales_of
from keras_seqattn.onnx.lower.shaping import reshape


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How an einsum is a matrix product.

    Attributes:
        inputs: the axes of the input, those that stay before those that are summed.
        kernel: the axes of the kernel, those that stay before those that are summed.
        summed: the number of axes that are summed.
        output: the axes of the result in the order of the equation, counted in the order: axes of
            the input, axes of the kernel.
    """

    inputs: list
    kernel: list
    summed: int
    output: list


def _plan(equation, rank):
    """The _Plan of an equation, or None if an axis of both sides is in the result, too.

    Args:
        equation: `x,kernel->y`. `...` may stand for axes of x and y.
        rank: the number of axes of x.
    """
    sides, y = equation.replace(" ", "").split("->")
    x, kernel = sides.split(",")
    used = set(equation)
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in used]
    dots = "".join(free[: rank - len(x.replace(".", ""))])
    x, y = x.replace("...", dots), y.replace("...", dots)
    if set(x) & set(kernel) & set(y):
        return None
    summed = [c for c in kernel if c in x]
    kept, made = [c for c in x if c in y], [c for c in kernel if c in y]
    return _Plan(
        [x.index(c) for c in (*kept, *summed)],
        [kernel.index(c) for c in (*made, *summed)],
        len(summed),
        [[*kept, *made].index(c) for c in y],
    )


def einsum(tracer, layer, inputs, multiply):
    """The einsum of a quantised layer, in its compute dtype.

    Args:
        tracer: Tracer.
        layer: the EinsumDense.
        inputs: Symbol.
        multiply: function(tracer, layer, x (..., k), Rows) -> (..., n).
    """
    plan = _plan(layer.equation, len(inputs.sizes))
    shape = (
        layer.original_kernel_shape if layer.quantization_mode != "int8" else layer._kernel.shape
    )
    rows = None if plan is None else _matrix(tracer, layer, plan, tuple(shape))
    if rows is None:
        return _by_float_kernel(tracer, layer, inputs, tuple(shape))
    lead = len(inputs.sizes) - plan.summed
    x = _transposed(inputs, plan.inputs)
    made = [shape[axis] for axis in plan.kernel[: len(shape) - plan.summed]]
    kept = x.sizes[:lead]
    product = multiply(tracer, layer, reshape(tracer, x, (*kept, rows.shape[1])), rows)
    return _transposed(reshape(tracer, product, (*kept, *made)), plan.output)


def _transposed(x, axes):
    return x if axes == sorted(axes) else ops.transpose(x, axes)


def _matrix(tracer, layer, plan, shape):
    """The kernel as Rows in the order of the plan. None if Keras's groups do not follow it."""
    made = math.prod(shape[axis] for axis in plan.kernel[: len(shape) - plan.summed])
    k = math.prod(shape) // made
    if layer.quantization_mode == "int8":

        def arrange(x):
            return np.transpose(x, plan.kernel).reshape(made, -1)

        integers = layer._kernel
        return scaled(integers, lambda: arrange(_kernel_scale(layer)), 8, arrange, (made, k))
    flat = [*plan.kernel[-plan.summed :], *plan.kernel[: -plan.summed]]
    if flat != sorted(flat) or _flat_shape(layer) != (k, made):
        return None
    return product_rows(tracer, layer, (k, made))


def _flat_shape(layer):
    """(k, n) of the matrix to which Keras flattens a kernel."""
    if layer.quantization_mode == "int4":
        return layer._int4_rows, layer._int4_unpacked_column_size
    return layer.g_idx.shape[0], layer.kernel_scale.shape[0]


def _kernel_scale(layer):
    """The scales of an int8 kernel in the rank of the kernel. Summed axes have size 1."""
    scale = layer._adjust_scale_for_dequant(
        ops.convert_to_tensor(scales_of(layer, layer.kernel_scale))
    )
    return ops.convert_to_numpy(scale)


def _by_float_kernel(tracer, layer, inputs, shape):
    """The einsum with a float kernel, which is computed from the integers in the file."""
    if layer.quantization_mode == "int8":
        kernel = scaled_kernel(tracer, layer._kernel, shape, lambda: 1 / _kernel_scale(layer))
    else:
        k, n = _flat_shape(layer)
        rows = product_rows(tracer, layer, (k, n))
        kernel = float_kernel(tracer, rows, shape)
    quantizer = quantizer_of(tracer, layer)
    x = cast(tracer, inputs, "float32")
    if quantizer is None or getattr(layer, "_int4_block_size", None) is not None:
        return ops.cast(ops.einsum(layer.equation, x, kernel), layer.compute_dtype)
    whole, scale = rounded_inputs(x, quantizer, tuple(layer.quantization_axis))
    x = ops.einsum(layer.equation, ops.round(whole), kernel)
    scale = layer._adjust_scale_for_quant(scale, "input")
    return ops.cast(ops.divide(x, scale), layer.compute_dtype)
