"""Caches of decoders: how to write into a buffer, and the part of a context that is not cached."""

import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.sizes import unknown
from keras_seqattn.onnx.symbol import Symbol
from keras_seqattn.ops.cache import CacheWrite, UncachedContext

_END = np.iinfo(np.int64).max


@lowers(CacheWrite)
def cache_write(tracer, operation, cache, new, position):
    """Emit the same nodes on every backend. The backends themselves write in different ways."""
    cache, position = tracer.symbol(cache), tracer.symbol(position)
    new = cast(tracer, ops.transpose(tracer.symbol(new), (0, 2, 1, 3)), cache.dtype)
    return _written(tracer, cache, new, [(2, position)])


@lowers("SliceUpdate")
def slice_update(tracer, operation, inputs, start_indices, updates):
    inputs = tracer.symbol(inputs)
    updates = cast(tracer, tracer.symbol(updates, inputs.dtype), inputs.dtype)
    rank = len(inputs.sizes)
    if isinstance(start_indices, (list, tuple)):
        starts = list(start_indices)
    else:
        starts = [tracer.symbol(start_indices)[axis] for axis in range(rank)]
    # If an update is as long as the axis, it has only one possible place.
    partial = [a for a in range(rank) if updates.sizes[a] != inputs.sizes[a]]
    return _written(tracer, inputs, updates, [(axis, starts[axis]) for axis in partial])


def _written(tracer, x, new, places):
    """`x` with `new` at a start on some axes: the part before, `new`, and the part after.

    Measured for caches of 128 to 2048 slots and 1 to 64 new ones: it is at most as slow as
    ScatterElements, except for one new slot, where it takes 1.5 times as long. It is 2.3 to 3.7
    times as fast as Where on positions.
    """
    if not places:
        return new
    (axis, start), *others = places
    start, end = _bounds(tracer, x, new, axis, start)
    before, after = _part(tracer, x, axis, None, start), _part(tracer, x, axis, end, None)
    if others:
        between = _part(tracer, x, axis, start, end, new.sizes[axis])
        new = _written(tracer, between, new, others)
    parts = [x for x in (before, new, after) if x.sizes[axis] != 0]
    if len(parts) == 1:
        return parts[0]
    return tracer.emit("Concat", parts, {"axis": axis}, sizes=x.sizes, dtype=x.dtype)


def _bounds(tracer, x, new, axis, start):
    """The begin and end of an update on an axis. An update beyond the end is moved back."""
    length = tracer.size(new, axis)
    if isinstance(start, (int, np.integer)) and isinstance(length, int):
        return int(start), int(start) + length
    start = ops.reshape(ops.cast(tracer.symbol(start), "int32"), ())
    start = ops.maximum(ops.minimum(start, tracer.size(x, axis) - length), 0)
    return start, start + length


def _part(tracer, x, axis, start, end, length=None):
    """A slice along an axis. If a bound depends on values, the length does, too."""
    bounds = [0 if start is None else start, _END if end is None else end]
    if length is None:
        if all(isinstance(n, int) for n in (*bounds, x.sizes[axis])):
            length = len(range(*slice(*bounds).indices(x.sizes[axis])))
        else:
            length = unknown()
    sizes = (*x.sizes[:axis], length, *x.sizes[axis + 1 :])
    inputs = [x, *(tracer.vector([n]) for n in (*bounds, axis))]
    return tracer.emit("Slice", inputs, sizes=sizes, dtype=x.dtype)


@lowers(UncachedContext)
def uncached_context(tracer, operation, context, past_key):
    """A Slice. Its length is a difference, because a cache never has more than the context."""
    part = operation.call(context, past_key)
    length = context.sizes[1] - past_key.sizes[2]
    return Symbol(part.value, (part.sizes[0], length, *part.sizes[2:]), part.dtype)
