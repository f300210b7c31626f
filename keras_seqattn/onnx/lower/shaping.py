"""Lowerings that change the shape of a tensor, or the order of its axes."""

import math

import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.sizes import is_dynamic


def reshape(tracer, x, sizes, entries=None):
    """`x` in the shape `sizes`. Two reshapes become one, or none if the shape is the first one.

    Args:
        x: Symbol.
        sizes: the target shape as plain ints; stand-ins for dynamic sizes.
        entries: None, or the same shape as ints and scalar Symbols.
    """
    sizes = tuple(sizes)
    if sizes == x.sizes:
        return x
    source = x.reshaped_from
    if sizes == source.sizes:
        return source
    shape = _shape_input(tracer, source, sizes, entries)
    result = tracer.emit("Reshape", [source, shape], sizes=sizes, dtype=x.dtype)
    result.reshaped_from = source
    return result


def _shape_input(tracer, source, sizes, entries):
    """The shape input: 0 copies an axis, one -1 is inferred, and the other sizes are computed."""
    numbers = list(sizes)
    for axis, size in enumerate(sizes):
        if axis < len(source.sizes) and size == source.sizes[axis] and is_dynamic(size):
            numbers[axis] = 0
    open_axes = [i for i, n in enumerate(numbers) if is_dynamic(n)]
    # An axis may be inferred only if no other axis can be empty: with a cache of length 0, -1 is
    # not defined.
    if len(open_axes) == 1:
        numbers[open_axes[0]] = -1
        return tracer.constant(np.array(numbers, np.int64))
    for axis in open_axes:
        entry = entries[axis] if entries else None
        if entry is None or isinstance(entry, int):
            entry = tracer.scalar(sizes[axis])
        if entry is None and -1 in numbers:
            raise ExportError(
                f"{tracer.where()}: cannot tell the size of axis {axis} of a reshape to {sizes}"
            )
        numbers[axis] = -1 if entry is None else entry
    return tracer.vector(numbers)


@lowers("Reshape")
def reshape_operation(tracer, operation, x):
    entries = list(operation.newshape)
    sizes = tracer.numbers(entries, "the size of a reshape")
    if -1 in sizes:
        known = math.prod(n for n in sizes if n != -1)
        axis = sizes.index(-1)
        sizes[axis] = math.prod(x.sizes) // known
        entries[axis] = None
    return reshape(tracer, x, sizes, entries)


@lowers("Ravel")
def ravel(tracer, operation, x):
    return reshape(tracer, x, (math.prod(x.sizes),))


def unsqueeze(tracer, x, axis):
    """`x` with a new axis of length 1 at a place."""
    sizes = (*x.sizes[:axis], 1, *x.sizes[axis:])
    return tracer.emit("Unsqueeze", [x, tracer.constant([axis])], sizes=sizes, dtype=x.dtype)


@lowers("ExpandDims")
def expand_dims(tracer, operation, x):
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    return tracer.emit("Unsqueeze", [x, tracer.constant(np.array(axes))], sizes=sizes, dtype=dtype)


@lowers("Squeeze")
def squeeze(tracer, operation, x):
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    axis = operation.axis
    if axis is None:
        axis = [i for i, n in enumerate(x.sizes) if n == 1]
    axes = np.array(axis if isinstance(axis, (list, tuple)) else [axis], np.int64)
    return tracer.emit("Squeeze", [x, tracer.constant(axes)], sizes=sizes, dtype=dtype)


def transpose(tracer, x, axes):
    """`x` with its axes in another order. If the order is the same, there is no node."""
    axes = [a % len(x.sizes) for a in axes]
    if axes == list(range(len(axes))):
        return x
    sizes = [x.sizes[a] for a in axes]
    return tracer.emit("Transpose", [x], {"perm": axes}, sizes=sizes, dtype=x.dtype)


@lowers("Transpose")
def transpose_operation(tracer, operation, x):
    return transpose(tracer, x, operation.axes or range(len(x.sizes))[::-1])


@lowers("Swapaxes")
def swapaxes(tracer, operation, x):
    axes = list(range(len(x.sizes)))
    a, b = operation.axis1, operation.axis2
    axes[a], axes[b] = axes[b], axes[a]
    return transpose(tracer, x, axes)


@lowers("Moveaxis")
def moveaxis(tracer, operation, x):
    axes = list(range(len(x.sizes)))
    source = np.atleast_1d(operation.source).tolist()
    destination = np.atleast_1d(operation.destination).tolist()
    rank = len(axes)
    source, destination = [s % rank for s in source], [d % rank for d in destination]
    rest = [a for a in axes if a not in source]
    for to, frm in sorted(zip(destination, source, strict=True)):
        rest.insert(to, frm)
    return transpose(tracer, x, rest)


def expanded(tracer, x, like):
    """`x` broadcast to the shape of another Symbol."""
    if x.sizes == like.sizes:
        return x
    shape = tracer.vector([tracer.size(like, axis) for axis in range(len(like.sizes))])
    return tracer.emit("Expand", [x, shape], sizes=like.sizes, dtype=x.dtype)


@lowers("BroadcastTo")
def broadcast_to(tracer, operation, x):
    """PyTorch keeps an axis for which -1 is given. The other backends refuse -1."""
    x, lead = tracer.symbol(x), len(operation.shape) - len(x.sizes)
    shape = [
        tracer.size(x, axis - lead) if isinstance(n, int) and n == -1 else n
        for axis, n in enumerate(operation.shape)
    ]
    sizes = tracer.numbers(shape, "the size of a tensor")
    return tracer.emit("Expand", [x, tracer.vector(shape)], sizes=sizes, dtype=x.dtype)


@lowers("Meshgrid")
def meshgrid(tracer, operation, *xs):
    flat = [ravel(tracer, operation, tracer.tensor(x)) for x in xs]
    order = list(range(len(flat)))
    if operation.indexing == "xy" and len(flat) > 1:
        order[:2] = 1, 0
    shape = [tracer.size(flat[i], 0) for i in order]
    sizes = [flat[i].sizes[0] for i in order]
    grids = []
    for i, x in enumerate(flat):
        column = reshape(tracer, x, [sizes[a] if order[a] == i else 1 for a in range(len(order))])
        inputs = [column, tracer.vector(shape)]
        grids.append(tracer.emit("Expand", inputs, sizes=sizes, dtype=x.dtype))
    return grids


@lowers("Rearrange")
def rearrange(tracer, operation, x, pattern, **lengths):
    """`ops.rearrange`: axes are split, brought into their new order, and merged."""
    before, after = (_axes(side) for side in pattern.split("->"))
    known = {**lengths}
    for axis, group in enumerate(before):
        unknown = [name for name in group if name not in lengths]
        size = tracer.size(x, axis)
        for name in unknown:
            known[name] = size // math.prod([lengths[n] for n in group if n in lengths])
    names = [name for group in before for name in group]
    order = [names.index(name) for group in after for name in group]
    x = ops.transpose(ops.reshape(x, [known[name] for name in names]), order)
    return ops.reshape(x, [math.prod(known[name] for name in group) for group in after])


def _axes(side):
    """`"b (h d) c"` -> [["b"], ["h", "d"], ["c"]]."""
    groups, inside = [], False
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            groups.append([])
        elif word != ")" and inside:
            groups[-1].append(word)
        elif word != ")":
            groups.append([word])
        inside = word != ")" and (inside or word == "(")
    return groups
