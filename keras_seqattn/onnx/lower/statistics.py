"""Lowerings of statistics: quantiles, averages, correlation."""

import math

from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast, operands, result_dtype
from keras_seqattn.onnx.lower.reductions import axes_of, flat
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose


@lowers("Average")
def average(tracer, operation, x, weights=None):
    """Weights have the shape of `x`, or one axis: that of the average."""
    axis = operation.axis
    dtype = result_dtype(tracer, operation, (x,) if weights is None else (x, weights))
    x = cast(tracer, x, dtype)
    if weights is None:
        return ops.mean(x, axis)
    (weights,) = operands(tracer, [weights], dtype)
    if len(weights.sizes) < len(x.sizes):
        axis %= len(x.sizes)
        weights = reshape(tracer, weights, (*weights.sizes, *[1] * (len(x.sizes) - axis - 1)))
    total = ops.sum(x * weights, axis)
    whole = None if len(weights.sizes) < len(x.sizes) else axis
    return total / ops.sum(weights, whole)


# ---- quantiles


def _rows(tracer, x, axes):
    """`x` with the axes of a quantile as one last axis."""
    if axes is None:
        return flat(tracer, x)
    axes = [a % len(x.sizes) for a in axes]
    rest = [a for a in range(len(x.sizes)) if a not in axes]
    x = transpose(tracer, x, rest + axes)
    return reshape(tracer, x, (*x.sizes[: len(rest)], math.prod(x.sizes[len(rest) :])))


def _sorted(tracer, x):
    last = len(x.sizes) - 1
    length = tracer.vector([tracer.size(x, last)])
    specs = [(x.sizes, x.dtype), (x.sizes, "int64")]
    return tracer.emit("TopK", [x, length], {"largest": 0, "axis": last}, outputs=specs)[0]


def _at(tracer, x, places):
    """The elements of sorted rows (..., n) at `places` (..., q), or the same (q,) for all rows."""
    if len(places.sizes) == 1:
        return ops.take(x, places, axis=-1)
    sizes = (*x.sizes[:-1], places.sizes[-1])
    return tracer.emit(
        "GatherElements", [x, places], {"axis": len(sizes) - 1}, sizes=sizes, dtype=x.dtype
    )


def _between(tracer, x, place, method):
    """The values of sorted rows at places that are no whole numbers."""
    if method == "nearest":
        return _at(tracer, x, ops.cast(ops.round(place), "int32"))
    low, high = ops.floor(place), ops.ceil(place)
    if method == "lower":
        return _at(tracer, x, ops.cast(low, "int32"))
    if method == "higher":
        return _at(tracer, x, ops.cast(high, "int32"))
    part = ops.cast(0.5 if method == "midpoint" else place - low, x.dtype)
    low, high = (_at(tracer, x, ops.cast(n, "int32")) for n in (low, high))
    if method == "midpoint":
        return (low + high) / 2
    # Not low + part * (high - low), which is NaN at infinities.
    return ops.where(ops.equal(part, 0), low, low * (1 - part) + high * part)


_METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile_of(tracer, x, q, axes, method, keepdims, skip_nan):
    """Quantiles of `x`, a Symbol of floats, over axes. Those of several q are the first axis.

    A NaN makes the quantile NaN, or is skipped.

    Raises:
        ExportError: the method is unknown.
    """
    if method not in _METHODS:
        raise ExportError(
            f"{tracer.where()}: quantiles by the method {method!r} cannot be exported; choose one "
            f"of {', '.join(_METHODS)}"
        )
    rank = len(x.sizes)
    rows = _rows(tracer, x, axes)
    nan = ops.isnan(rows)
    ordered = _sorted(tracer, ops.where(nan, math.inf, rows))
    several = len(q.sizes) > 0
    q = ops.reshape(q, (-1,))
    if skip_nan:
        count = ops.sum(ops.cast(ops.logical_not(nan), q.dtype), axis=-1, keepdims=True)
        place = ops.maximum(q * (count - 1), 0)
        result = _between(tracer, ordered, place, method)
        result = ops.where(ops.equal(count, 0), math.nan, result)
    else:
        last = ops.cast(ops.shape(rows)[-1] - 1, q.dtype)
        result = _between(tracer, ordered, q * last, method)
        result = ops.where(ops.any(nan, axis=-1, keepdims=True), math.nan, result)
    result = ops.moveaxis(result, -1, 0) if several else ops.squeeze(result, -1)
    if not keepdims:
        return result
    kept = range(rank) if axes is None else sorted(a % rank for a in axes)
    for axis in kept:
        result = ops.expand_dims(result, axis + several)
    return result


def _quantile(tracer, operation, x, q, scale, method, skip_nan):
    dtype = result_dtype(tracer, operation, (x, *([] if q is None else [q])))
    # Half precision cannot count the places of long rows.
    wide = "float64" if dtype == "float64" else "float32"
    (q,) = operands(tracer, [0.5 if q is None else q], wide)
    axes = axes_of(operation.axis)
    if axes == []:
        return cast(tracer, x, dtype)
    x = cast(tracer, x, wide)
    result = quantile_of(tracer, x, q / scale, axes, method, operation.keepdims, skip_nan)
    return cast(tracer, result, dtype)


@lowers("Median", "Nanmedian")
def median(tracer, operation, x):
    skip_nan = type(operation).__name__ == "Nanmedian"
    return _quantile(tracer, operation, x, None, 1, "linear", skip_nan)


@lowers("Quantile")
def quantile(tracer, operation, x, q):
    """As an operation of a functional model, Keras's quantile forgets its method."""
    method = "linear" if operation._inbound_nodes else operation.method
    return _quantile(tracer, operation, x, q, 1, method, False)


@lowers("Nanquantile")
def nanquantile(tracer, operation, x, q):
    return _quantile(tracer, operation, x, q, 1, operation.method, True)


@lowers("Percentile", "Nanpercentile")
def percentile(tracer, operation, x, q):
    skip_nan = type(operation).__name__ == "Nanpercentile"
    return _quantile(tracer, operation, x, q, 100, operation.method, skip_nan)


# ---- correlation


@lowers("Corrcoef")
def corrcoef(tracer, operation, x):
    """Pearson's correlation of rows: one number for one row."""
    x = cast(tracer, x, result_dtype(tracer, operation, (x,)))
    single = len(x.sizes) == 1
    x = ops.expand_dims(x, 0) if single else x
    x = x - ops.mean(x, axis=-1, keepdims=True)
    products = ops.matmul(x, ops.transpose(x))
    deviations = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
    result = ops.clip(products / deviations / ops.transpose(deviations), -1, 1)
    return ops.squeeze(result, (0, 1)) if single else result


@lowers("Correlate")
def correlate(tracer, operation, x1, x2):
    """A convolution whose kernel is the second operand."""
    dtype = result_dtype(tracer, operation, (x1, x2))
    a, b = operands(tracer, (x1, x2), dtype)
    n, m = a.sizes[0], b.sizes[0]
    swapped = int(n) < int(m) and operation.mode == "valid"
    if swapped:
        a, b, n, m = b, a, m, n
    if operation.mode != "valid":
        margin = tracer.vector([ops.shape(b)[0] - 1])
        pads = ops.concatenate([margin, margin])
        a = tracer.emit("Pad", [a, pads], sizes=(n + 2 * (m - 1),), dtype=dtype)
    inputs = [reshape(tracer, x, (1, 1, *x.sizes)) for x in (a, b)]
    length = a.sizes[0] - m + 1
    result = tracer.emit("Conv", inputs, sizes=(1, 1, length), dtype=dtype)
    result = reshape(tracer, result, (length,))
    if swapped:
        return ops.flip(result)
    if operation.mode != "same":
        return result
    # A part of the result that is as long as the longer operand, from its middle.
    n, m = (ops.shape(x)[0] for x in (x1, x2))
    most = max(n, m) if isinstance(n, int) and isinstance(m, int) else ops.maximum(n, m)
    start = (n + m - 1 - most) // 2
    return result[start : start + most]
