"""Lowerings that only move elements: reshapes, slices, gathers, joins, fills."""

import math

import numpy as np

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast, operands
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.sizes import computed, is_dynamic
from keras_seqattn.onnx.symbol import Symbol


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


@lowers("Concatenate")
def concatenate(tracer, operation, xs):
    sizes, dtype = tracer.output_spec(operation, (xs,), {})
    axis = operation.axis % len(sizes)
    return tracer.emit(
        "Concat", operands(tracer, xs, dtype), {"axis": axis}, sizes=sizes, dtype=dtype
    )


@lowers("Stack")
def stack(tracer, operation, xs):
    sizes, dtype = tracer.output_spec(operation, (xs,), {})
    axis = operation.axis % len(sizes)
    one = [1 if i == axis else n for i, n in enumerate(sizes)]
    where = tracer.constant(np.array([axis]))
    parts = [
        tracer.emit("Unsqueeze", [x, where], sizes=one, dtype=dtype)
        for x in operands(tracer, xs, dtype)
    ]
    return tracer.emit("Concat", parts, {"axis": axis}, sizes=sizes, dtype=dtype)


@lowers("Split")
def split(tracer, operation, x):
    axis = operation.axis % len(x.sizes)
    sections, total = operation.indices_or_sections, x.sizes[axis]
    if isinstance(sections, int):
        if is_dynamic(total):
            return _equal_parts(tracer, x, sections, axis)
        return split_lengths(tracer, x, [total // sections] * sections, axis)
    edges = [0, *[int(s) for s in sections], total]
    if is_dynamic(total) or edges != sorted(edges) or edges[1] < 0:
        return _slices(tracer, x, edges[1:-1], axis)
    return split_lengths(tracer, x, [b - a for a, b in zip(edges, edges[1:], strict=False)], axis)


def _equal_parts(tracer, x, count, axis):
    size = x.sizes[axis] // count
    sizes = (*x.sizes[:axis], size, *x.sizes[axis + 1 :])
    attributes = {"axis": axis, "num_outputs": count}
    return tracer.emit("Split", [x], attributes, outputs=[(sizes, x.dtype)] * count)


def _slices(tracer, x, edges, axis):
    """The parts between edges. An edge may count from the end, or be after the end."""
    before = [slice(None)] * axis
    bounds = zip([None, *edges], [*edges, None], strict=True)
    return [_slice(tracer, x, [*before, slice(a, b)]) for a, b in bounds]


def split_lengths(tracer, x, lengths, axis):
    """Cut `x` into parts of the given static lengths."""
    outputs = [((*x.sizes[:axis], n, *x.sizes[axis + 1 :]), x.dtype) for n in lengths]
    parts = tracer.constant(np.array(lengths, np.int64))
    return tracer.emit("Split", [x, parts], {"axis": axis}, outputs=outputs)


@lowers("Unstack")
def unstack(tracer, operation, x):
    axis = operation.axis % len(x.sizes)
    if is_dynamic(x.sizes[axis]):
        raise ExportError(f"{tracer.where()}: ops.unstack needs an axis whose length is fixed")
    return [_index(tracer, x, i, axis) for i in range(x.sizes[axis])]


@lowers("BroadcastTo")
def broadcast_to(tracer, operation, x):
    sizes = tracer.numbers(operation.shape, "the size of a tensor")
    return tracer.emit("Expand", [x, tracer.vector(operation.shape)], sizes=sizes, dtype=x.dtype)


@lowers("Tile")
def tile(tracer, operation, x):
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    repeats = (
        operation.repeats if isinstance(operation.repeats, (list, tuple)) else [operation.repeats]
    )
    repeats = [1] * (len(x.sizes) - len(repeats)) + list(repeats)
    return tracer.emit("Tile", [x, tracer.vector(repeats)], sizes=sizes, dtype=dtype)


@lowers("Repeat")
def repeat(tracer, operation, x):
    """Repeat elements along an axis: a new axis of that length is merged with the axis before."""
    count = operation.repeats
    if operation.axis is None or not isinstance(count, (int, np.integer, Symbol)):
        raise ExportError(
            f"{tracer.where()}: ops.repeat needs an axis and one count to be exported"
        )
    (number,) = tracer.numbers([count], "the count of ops.repeat")
    axis = operation.axis % len(x.sizes)
    inner = (*x.sizes[: axis + 1], 1, *x.sizes[axis + 1 :])
    wide = (*x.sizes[: axis + 1], number, *x.sizes[axis + 1 :])
    where = tracer.constant(np.array([axis + 1]))
    expanded = tracer.emit("Unsqueeze", [x, where], sizes=inner, dtype=x.dtype)
    counts = tracer.vector([count if i == axis + 1 else 1 for i in range(len(wide))])
    expanded = tracer.emit("Expand", [expanded, counts], sizes=wide, dtype=x.dtype)
    sizes = (*x.sizes[:axis], x.sizes[axis] * number, *x.sizes[axis + 1 :])
    return reshape(tracer, expanded, sizes)


@lowers("Pad")
def pad(tracer, operation, x, constant_values=None):
    if operation.mode not in ("constant", "reflect", "edge"):
        raise ExportError(f"{tracer.where()}: ops.pad mode {operation.mode!r} cannot be exported")
    widths = operation.pad_width
    widths = list(widths) * len(x.sizes) if len(widths) == 1 else list(widths)
    before, after = (
        tracer.numbers(side, "a width of ops.pad") for side in zip(*widths, strict=True)
    )
    sizes = [n + a + b for n, a, b in zip(x.sizes, before, after, strict=True)]
    pads = tracer.vector([a for a, _ in widths] + [b for _, b in widths])
    inputs = [x, pads]
    if operation.mode == "constant" and constant_values is not None:
        inputs.append(cast(tracer, tracer.symbol(constant_values, x.dtype), x.dtype))
    return tracer.emit("Pad", inputs, {"mode": operation.mode}, sizes=sizes, dtype=x.dtype)


@lowers("Tril", "Triu")
def triangle(tracer, operation, x):
    upper = int(type(operation).__name__ == "Triu")
    k = tracer.constant(np.int64(operation.k))
    return tracer.emit("Trilu", [x, k], {"upper": upper}, sizes=x.sizes, dtype=x.dtype)


@lowers("Flip")
def flip(tracer, operation, x):
    axes = range(len(x.sizes)) if operation.axis is None else np.atleast_1d(operation.axis).tolist()
    minus = np.full(len(axes), -1, np.int64)
    start, end, steps = (
        tracer.constant(a) for a in (minus, np.full(len(axes), np.iinfo(np.int64).min + 1), minus)
    )
    where = tracer.constant(np.array(list(axes), np.int64))
    return tracer.emit("Slice", [x, start, end, where, steps], sizes=x.sizes, dtype=x.dtype)


@lowers("Take")
def take(tracer, operation, x, indices):
    sizes, dtype = tracer.output_spec(operation, (x, indices), {})
    x, indices = tracer.symbol(x), tracer.symbol(indices)
    if operation.axis is None:
        x = reshape(tracer, x, (math.prod(x.sizes),))
    axis = (operation.axis or 0) % len(x.sizes)
    return tracer.emit("Gather", [x, indices], {"axis": axis}, sizes=sizes, dtype=dtype)


@lowers("TakeAlongAxis")
def take_along_axis(tracer, operation, x, indices):
    x, indices = tracer.symbol(x), tracer.symbol(indices)
    axis = operation.axis % len(x.sizes)
    return tracer.emit(
        "GatherElements", [x, indices], {"axis": axis}, sizes=indices.sizes, dtype=x.dtype
    )


def _index(tracer, x, position, axis):
    sizes = (*x.sizes[:axis], *x.sizes[axis + 1 :])
    position = tracer.symbol(position)
    return tracer.emit("Gather", [x, position], {"axis": axis}, sizes=sizes, dtype=x.dtype)


@lowers("GetItem")
def get_item(tracer, operation, x, key):
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    used = sum(k is not None and k is not Ellipsis for k in key)
    if Ellipsis in [k if k is Ellipsis else None for k in key]:
        at = next(i for i, k in enumerate(key) if k is Ellipsis)
        key[at : at + 1] = [slice(None)] * (len(x.sizes) - used)
    else:
        key += [slice(None)] * (len(x.sizes) - used)
    x = _slice(tracer, x, [k for k in key if k is not None])
    axis = 0
    for k in key:
        if k is None:
            sizes = (*x.sizes[:axis], 1, *x.sizes[axis:])
            x = tracer.emit(
                "Unsqueeze", [x, tracer.constant(np.array([axis]))], sizes=sizes, dtype=x.dtype
            )
        elif not isinstance(k, slice):
            x = _index(tracer, x, k, axis)
            continue
        axis += 1
    return x


def _slice(tracer, x, key):
    """The slices in `key`, as one Slice node."""
    starts, ends, axes, steps, sizes = [], [], [], [], list(x.sizes)
    for axis, k in enumerate(key):
        if not isinstance(k, slice) or k == slice(None):
            continue
        step = k.step or 1
        start = k.start if k.start is not None else (0 if step > 0 else -1)
        end = (
            k.stop
            if k.stop is not None
            else (np.iinfo(np.int64).max if step > 0 else np.iinfo(np.int64).min + 1)
        )
        starts.append(start), ends.append(end), axes.append(axis), steps.append(step)
        sizes[axis] = _sliced_size(tracer, x.sizes[axis], k)
    if not axes:
        return x
    operands_ = [tracer.vector(v) for v in (starts, ends, axes, steps)]
    return tracer.emit("Slice", [x, *operands_], sizes=sizes, dtype=x.dtype)


def _sliced_size(tracer, size, k):
    numbers = tracer.numbers((k.start, k.stop, k.step), "a bound of a slice")
    given = [n for n in numbers if n is not None]

    def length(size, *given):
        bounds = iter(given)
        parts = (None if n is None else next(bounds) for n in numbers)
        return len(range(*slice(*parts).indices(size)))

    return computed(length, size, *given)


@lowers("Slice")
def slice_operation(tracer, operation, inputs, start_indices):
    starts = start_indices if isinstance(start_indices, (list, tuple)) else None
    starts = tracer.symbol(start_indices) if starts is None else tracer.vector(starts)
    lengths = tracer.numbers(operation.shape, "the length of ops.slice")
    length = tracer.vector(operation.shape)
    ends = tracer.emit("Add", [starts, length], sizes=(len(lengths),), dtype="int64")
    axes = tracer.constant(np.arange(len(lengths)))
    return tracer.emit("Slice", [inputs, starts, ends, axes], sizes=lengths, dtype=inputs.dtype)


@lowers("Arange")
def arange(tracer, operation, start, stop=None, step=None):
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    numbers = tracer.numbers((start, stop, step), "a bound of ops.arange")
    if not all(isinstance(n, (int, np.integer)) for n in numbers):
        if any(map(is_dynamic, numbers)):
            raise ExportError(
                f"{tracer.where()}: ops.arange with a dynamic length needs whole numbers"
            )
        return tracer.constant(np.arange(*numbers), operation.dtype or "float32")
    sizes = (computed(_range_length, *numbers),)
    dtype = operation.dtype or "int32"
    bounds = [tracer.symbol(n) for n in (start, stop, step)]
    return cast(tracer, tracer.emit("Range", bounds, sizes=sizes, dtype="int32"), dtype)


def _range_length(first, last, stride):
    # len(range(...)) would overflow for products of two sizes.
    return max(0, -((first - last) // stride))


@lowers("OnesLike", "ZerosLike", "FullLike")
def like(tracer, operation, x, fill_value=None):
    name = type(operation).__name__
    content = {"OnesLike": 1, "ZerosLike": 0}.get(name, fill_value)
    dtype = operation.dtype or x.dtype
    return tracer.filled([tracer.size(x, a) for a in range(len(x.sizes))], content, dtype)


@lowers("OneHot")
def one_hot(tracer, operation, x):
    """Values that are no class give zeros. ONNX's OneHot would count negatives from the end."""
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    x = cast(tracer, tracer.symbol(x), "int32")
    axis = operation.axis % len(sizes)
    apart = tracer.constant(np.array([axis]))
    inner = (*x.sizes[:axis], 1, *x.sizes[axis:])
    x = tracer.emit("Unsqueeze", [x, apart], sizes=inner, dtype=x.dtype)
    classes = np.arange(operation.num_classes).reshape(-1, *[1] * (len(sizes) - axis - 1))
    equal = tracer.emit("Equal", [x, tracer.constant(classes)], sizes=sizes, dtype="bool")
    return cast(tracer, equal, dtype)
