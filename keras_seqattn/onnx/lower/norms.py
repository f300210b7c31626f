"""Norms of vectors and matrices."""

import math

from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.spectral import singular_values


@lowers("Norm")
def norm(tracer, operation, x):
    order, axes, keep = operation.ord, operation.axis, operation.keepdims
    x = cast(tracer, tracer.symbol(x), tracer.output_spec(operation, (x,), {})[1])
    rank = len(x.sizes)
    flat = axes is None and (order is None or rank > 2)
    axes = list(range(rank)) if axes is None else [a % rank for a in axes]
    if order is None or order == "fro" or (order == 2 and (len(axes) == 1)):
        attributes = {"keepdims": int(keep)}
        kept = [1 if a in axes else n for a, n in enumerate(x.sizes)]
        sizes = kept if keep else [n for a, n in enumerate(x.sizes) if a not in axes]
        inputs = [x, tracer.constant(axes)]
        return tracer.emit("ReduceL2", inputs, attributes, sizes=sizes, dtype=x.dtype)
    if len(axes) == 1:
        return _of_vectors(x, order, axes[0], keep)
    if len(axes) == 2 and not flat:
        return _of_matrices(tracer, x, order, axes, keep)
    raise ExportError(
        f"{tracer.where()}: ops.norm of order {order} over {len(axes)} axes; give one axis or two"
    )


def _of_vectors(x, order, axis, keep):
    size = ops.abs(x)
    if order in (math.inf, -math.inf):
        return (ops.max if order > 0 else ops.min)(size, axis=axis, keepdims=keep)
    if order == 0:
        used = ops.cast(ops.not_equal(x, 0), x.dtype)
        return ops.sum(used, axis=axis, keepdims=keep)
    total = ops.sum(ops.power(size, float(order)), axis=axis, keepdims=keep)
    return ops.power(total, 1 / order)


# Of the singular values.
_SPECTRAL = {2: ops.max, -2: ops.min, "nuc": ops.sum}


def _of_matrices(tracer, x, order, axes, keep):
    rows, columns = axes
    if order in _SPECTRAL:
        values = singular_values(tracer, ops.moveaxis(x, (rows, columns), (-2, -1)))
        result = _SPECTRAL[order](values, axis=-1)
        return ops.expand_dims(result, sorted(axes)) if keep else result
    # The sums of columns for 1, those of rows for infinity; the largest or the smallest.
    summed, compared = (rows, columns) if abs(order) == 1 else (columns, rows)
    totals = ops.sum(ops.abs(x), axis=summed, keepdims=True)
    best = (ops.max if order > 0 else ops.min)(totals, axis=compared, keepdims=True)
    return best if keep else ops.squeeze(best, tuple(axes))
