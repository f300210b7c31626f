"""Lowerings that write at positions which are values: scatter, scatter_update, segment reductions.

What is combined (`add`, `max`, ...) is written by ScatterElements, which goes through the updates
one after the other. The ScatterND of onnxruntime writes from several threads, so that updates of
one place could be lost.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape


@lowers("Scatter")
def scatter(tracer, operation, indices, values):
    """Zeros, to which the values are added."""
    indices, values = tracer.tensor(indices), tracer.tensor(values)
    shape = list(operation.shape)
    zeros = tracer.filled(shape, 0, values.dtype)
    return _combined(tracer, zeros, indices, values, "add")


@lowers("ScatterUpdate")
def scatter_update(tracer, operation, inputs, indices, updates):
    """If two updates without reduction have one place, Keras does not say which one stays."""
    inputs, indices = tracer.tensor(inputs), tracer.tensor(indices)
    updates = cast(tracer, tracer.tensor(updates), inputs.dtype)
    if operation.reduction is not None:
        return _combined(tracer, inputs, indices, updates, operation.reduction)
    indices = cast(tracer, indices, "int32")
    places = [inputs, indices, _wide(tracer, inputs, indices, updates)]
    return tracer.emit("ScatterND", places, sizes=inputs.sizes, dtype=inputs.dtype)


def _wide(tracer, x, indices, updates):
    """Updates in the shape that they must have: that of the indices, then the axes they leave."""
    axes = len(indices.sizes) - 1
    depth = indices.sizes[-1]
    sizes = (*indices.sizes[:-1], *x.sizes[depth:])
    if updates.sizes == sizes:
        return updates
    shape = [tracer.size(indices, a) for a in range(axes)]
    shape += [tracer.size(x, a) for a in range(depth, len(x.sizes))]
    return ops.broadcast_to(updates, shape)


def _combined(tracer, x, indices, updates, reduction):
    """`x` (a, b, ..., rest) with updates combined at indices (n, axes) of its first axes."""
    depth, indices = indices.sizes[-1], cast(tracer, indices, "int32")
    updates = _wide(tracer, x, indices, updates)
    sizes = [tracer.size(x, axis) for axis in range(depth)]
    rows = reshape(tracer, _place(indices, sizes), (math.prod(indices.sizes[:-1]), 1))
    lead, rest = math.prod(x.sizes[:depth]), math.prod(x.sizes[depth:])
    flat = _scattered(
        tracer,
        reshape(tracer, x, (lead, rest), [ops.prod(ops.stack(sizes)), None]),
        rows,
        reshape(tracer, updates, (rows.sizes[0], rest)),
        reduction,
    )
    shape = [tracer.size(x, axis) for axis in range(len(x.sizes))]
    return reshape(tracer, flat, x.sizes, shape)


def _place(indices, sizes):
    """The positions in the first axes, which have these sizes, as if they were one axis."""
    if len(sizes) == 1:
        return indices
    place = 0
    for axis, size in enumerate(sizes):
        part = indices[..., axis]
        part = ops.where(ops.less(part, 0), ops.add(part, size), part)
        place = ops.add(ops.multiply(place, size), part)
    return place


def _scattered(tracer, x, rows, updates, reduction):
    """`x` (a, b) with updates (n, b) combined in its rows (n, 1)."""
    wide = rows
    if updates.sizes[1] != 1:
        wide = ops.broadcast_to(rows, [tracer.size(updates, 0), tracer.size(updates, 1)])
    # There are no kernels for float16, and those for bool know no order.
    dtype = {"float16": "float32", "bfloat16": "float32", "bool": "int32"}.get(x.dtype, x.dtype)
    inputs = [cast(tracer, x, dtype), wide, cast(tracer, updates, dtype)]
    attributes = {"axis": 0, "reduction": reduction}
    result = tracer.emit("ScatterElements", inputs, attributes, sizes=x.sizes, dtype=dtype)
    return cast(tracer, result, x.dtype)


# The reduction of ONNX for each operation of Keras, and its value for an empty segment.
_SEGMENTS = {
    "SegmentSum": ("add", lambda lowest, highest: 0),
    "SegmentProd": ("mul", lambda lowest, highest: 1),
    "SegmentMax": ("max", lambda lowest, highest: lowest),
    "SegmentMin": ("min", lambda lowest, highest: highest),
}


@lowers(*_SEGMENTS)
def segment(tracer, operation, data, segment_ids):
    """Rows of one segment combined. Rows whose segment is not there are left out.

    They go into one more segment, which is cut off.
    """
    name = type(operation).__name__
    if operation.num_segments is None:
        raise ExportError(
            f"{tracer.where()}: {name} without num_segments has a length that depends on values; "
            "give num_segments"
        )
    reduction, start = _SEGMENTS[name]
    data = tracer.tensor(data)
    ids = cast(tracer, tracer.tensor(segment_ids), "int32")
    count = operation.num_segments
    known = ops.logical_and(ids >= 0, ids < count)
    ids = ops.where(known, ids, count)
    rest = [tracer.size(data, axis) for axis in range(1, len(data.sizes))]
    filling = tracer.constant(np.asarray(start(*_limits(data.dtype))), data.dtype).view(data.dtype)
    empty = tracer.filled([count + 1, *rest], filling, data.dtype)
    result = _combined(tracer, empty, reshape(tracer, ids, (*ids.sizes, 1)), data, reduction)
    return result[:-1]


def _limits(dtype):
    """What Keras begins a maximum and a minimum with: infinity, but TensorFlow's largest number."""
    if "int" in dtype:
        info = np.iinfo(dtype)
        return info.min, info.max
    if keras.backend.backend() == "tensorflow":
        largest = float(ops.convert_to_numpy(ops.cast(np.finfo("float32").max, "float32")))
        return -largest, largest
    return -math.inf, math.inf
