"""Lowerings that reduce axes to one number, or add along one: sums, extremes, positions, NaN."""

import math

import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast, of_numbers, result_dtype, result_spec
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.scan import scan
from keras_seqattn.onnx.lower.shaping import reshape

REDUCE = {
    "Sum": "ReduceSum", "Mean": "ReduceMean", "Max": "ReduceMax", "Amax": "ReduceMax",
    "Min": "ReduceMin", "Amin": "ReduceMin", "Prod": "ReduceProd", "Logsumexp": "ReduceLogSumExp",
}  # fmt: skip
_EXTREMES = {"Max": "maximum", "Min": "minimum"}


def axes_of(axis):
    """list of axes, or None for all."""
    if axis is None:
        return None
    return [int(axis)] if isinstance(axis, (int, np.integer)) else [int(a) for a in axis]


def axes_input(tracer, axes):
    """The input of a reduction that says its axes. None is for all."""
    return None if axes is None else tracer.constant(np.array(axes, np.int64))


def reduction(onnx_name):
    def lowering(tracer, operation, x):
        x = tracer.symbol(x)
        sizes, dtype = result_spec(tracer, operation, (x,))
        axes = axes_of(operation.axis)
        x = cast(tracer, x, dtype)
        # Without axes, ONNX would reduce all.
        if axes != []:
            keep = {"keepdims": int(bool(operation.keepdims))}
            inputs = [x, axes_input(tracer, axes)]
            x = of_numbers(tracer, onnx_name, inputs, keep, sizes=sizes, dtype=dtype)
        initial = getattr(operation, "initial", None)
        if initial is not None:
            choose = getattr(ops, _EXTREMES[type(operation).__name__])
            x = choose(x, cast(tracer, tracer.symbol(initial, x.dtype), x.dtype))
        return x

    return lowering


for _keras_name, _onnx_name in REDUCE.items():
    lowers(_keras_name)(reduction(_onnx_name))


@lowers("Any", "All")
def any_all(tracer, operation, x):
    """Logical reductions. ONNX has none, so this takes the maximum or the minimum of 0 and 1."""
    sizes, _ = tracer.output_spec(operation, (x,), {})
    name = "ReduceMax" if type(operation).__name__ == "Any" else "ReduceMin"
    if axes_of(operation.axis) == []:
        return cast(tracer, x, "bool")
    x = cast(tracer, cast(tracer, x, "bool"), "int32")
    keep = {"keepdims": int(bool(operation.keepdims))}
    axes = axes_input(tracer, axes_of(operation.axis))
    return cast(tracer, tracer.emit(name, [x, axes], keep, sizes=sizes, dtype="int32"), "bool")


@lowers("Argmax", "Argmin")
def arg_reduce(tracer, operation, x):
    """Without an axis, the position in the flattened tensor."""
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    x, axis = (flat(tracer, x), 0) if operation.axis is None else (x, operation.axis)
    name = "ArgMax" if type(operation).__name__ == "Argmax" else "ArgMin"
    keep = bool(operation.keepdims) and operation.axis is not None
    attributes = {"axis": axis, "keepdims": int(keep)}
    reduced = sizes if operation.axis is not None else ()
    x = of_numbers(tracer, name, [x], attributes, sizes=reduced, dtype=dtype)
    return reshape(tracer, x, sizes)


def flat(tracer, x):
    """`x` with one axis."""
    return reshape(tracer, x, (math.prod(x.sizes),))


@lowers("Var", "Std")
def variance(tracer, operation, x):
    sizes, dtype = result_spec(tracer, operation, (x,))
    x = cast(tracer, tracer.symbol(x), dtype)
    if axes_of(operation.axis) == []:
        return ops.zeros_like(x)
    axes = axes_input(tracer, axes_of(operation.axis))
    keep = [
        1
        if operation.axis is None or i in [a % len(x.sizes) for a in axes_of(operation.axis)]
        else n
        for i, n in enumerate(x.sizes)
    ]
    mean = tracer.emit("ReduceMean", [x, axes], {"keepdims": 1}, sizes=keep, dtype=dtype)
    centred = tracer.emit("Sub", [x, mean], sizes=x.sizes, dtype=dtype)
    squared = tracer.emit("Mul", [centred, centred], sizes=x.sizes, dtype=dtype)
    attributes = {"keepdims": int(bool(operation.keepdims))}
    result = tracer.emit("ReduceMean", [squared, axes], attributes, sizes=sizes, dtype=dtype)
    if type(operation).__name__ == "Std":
        return tracer.emit("Sqrt", [result], sizes=sizes, dtype=dtype)
    return result


@lowers("CountNonzero")
def count_nonzero(tracer, operation, x):
    return ops.sum(ops.cast(ops.not_equal(x, 0), "int32"), axis=operation.axis)


@lowers("Ptp")
def peak_to_peak(tracer, operation, x):
    axis, keepdims = operation.axis, operation.keepdims
    return ops.max(x, axis, keepdims=keepdims) - ops.min(x, axis, keepdims=keepdims)


# ---- along an axis


def _flattened(tracer, operation, x):
    """(x in the dtype of the result, axis), where no axis is that of the flattened tensor."""
    dtype = operation.dtype or ("int32" if x.dtype == "bool" else x.dtype)
    x = cast(tracer, x, dtype)
    return (flat(tracer, x), 0) if operation.axis is None else (x, operation.axis)


@lowers("Cumsum")
def cumsum(tracer, operation, x):
    x, axis = _flattened(tracer, operation, x)
    position = tracer.constant(np.int64(axis))
    return tracer.emit("CumSum", [x, position], sizes=x.sizes, dtype=x.dtype)


@lowers("Cumprod")
def cumprod(tracer, operation, x):
    """A loop over the axis. onnxruntime has no kernel for products."""
    x, axis = _flattened(tracer, operation, x)
    axis %= len(x.sizes)
    first = ops.ones_like(ops.max(x, axis=axis))

    def step(states, slices):
        product = states[0] * slices[0]
        return [product], [product]

    return scan(tracer, step, [first], [x], axis=axis)[1][0]


# ---- without NaN

# The function, what stands in for NaN because it changes nothing, and the result if all is NaN.
_WITHOUT_NAN = {
    "Nansum": (ops.sum, 0, None), "Nanprod": (ops.prod, 1, None),
    "Nancumsum": (ops.cumsum, 0, None), "Nancumprod": (ops.cumprod, 1, None),
    "Nanmax": (ops.max, -math.inf, math.nan), "Nanmin": (ops.min, math.inf, math.nan),
    "Nanargmax": (ops.argmax, -math.inf, -1), "Nanargmin": (ops.argmin, math.inf, -1),
}  # fmt: skip


def without_nan(function, neutral, empty):
    def lowering(tracer, operation, x):
        settings = {
            n: getattr(operation, n) for n in ("keepdims", "dtype") if hasattr(operation, n)
        }
        axis = operation.axis
        if "float" not in x.dtype:
            return function(x, axis, **settings)
        nan = ops.isnan(x)
        result = function(ops.where(nan, neutral, x), axis, **settings)
        if empty is None:
            return result
        return ops.where(ops.all(nan, axis, keepdims=operation.keepdims), empty, result)

    return lowering


for _keras_name, _row in _WITHOUT_NAN.items():
    lowers(_keras_name)(without_nan(*_row))


@lowers("Nanmean")
def nanmean(tracer, operation, x):
    axis, keepdims = operation.axis, operation.keepdims
    if "float" not in x.dtype:
        return ops.mean(x, axis, keepdims=keepdims)
    count = ops.sum(ops.cast(ops.logical_not(ops.isnan(x)), x.dtype), axis, keepdims=keepdims)
    return ops.nansum(x, axis, keepdims=keepdims) / count


@lowers("Nanvar", "Nanstd")
def nanvar(tracer, operation, x):
    axis, keepdims = operation.axis, operation.keepdims
    x = cast(tracer, x, result_dtype(tracer, operation, (x,)))
    centred = x - ops.nanmean(x, axis, keepdims=True)
    result = ops.nanmean(ops.square(centred), axis, keepdims=keepdims)
    return ops.sqrt(result) if type(operation).__name__ == "Nanstd" else result
