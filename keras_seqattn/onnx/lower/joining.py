"""Lowerings that join tensors, or cut one into parts."""

import math

import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import common_dtype, operands, result_spec
from keras_seqattn.onnx.lower.indexing import index, sliced
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape
from keras_seqattn.onnx.sizes import is_dynamic


def joined(tracer, xs, axis):
    """The tensors one after the other along an axis, in their common dtype."""
    dtype = common_dtype(xs)
    axis %= len(xs[0].sizes)
    total = sum(x.sizes[axis] for x in xs)
    sizes = (*xs[0].sizes[:axis], total, *xs[0].sizes[axis + 1 :])
    return tracer.emit(
        "Concat", operands(tracer, xs, dtype), {"axis": axis}, sizes=sizes, dtype=dtype
    )


@lowers("Concatenate")
def concatenate(tracer, operation, xs):
    sizes, dtype = result_spec(tracer, operation, (xs,))
    axis = operation.axis % len(sizes)
    return tracer.emit(
        "Concat", operands(tracer, xs, dtype), {"axis": axis}, sizes=sizes, dtype=dtype
    )


@lowers("Append")
def append(tracer, operation, x1, x2):
    both = [tracer.tensor(x) for x in (x1, x2)]
    if operation.axis is None:
        both = [reshape(tracer, x, (math.prod(x.sizes),)) for x in both]
    return joined(tracer, both, operation.axis or 0)


# The axis along which they join, and the rank that tensors have at least.
_STACKS = {"Vstack": (0, 2), "Hstack": (1, 1), "Dstack": (2, 3)}


@lowers(*_STACKS)
def stack_along(tracer, operation, xs):
    """hstack, vstack and dstack: concatenation, for which NumPy says where axes are added."""
    axis, rank = _STACKS[type(operation).__name__]
    xs = [_at_least(tracer, tracer.tensor(x), rank) for x in xs]
    return joined(tracer, xs, min(axis, len(xs[0].sizes) - 1))


def _at_least(tracer, x, rank):
    """`x` with at least that many axes. A vector becomes a row, and a matrix gets a last axis."""
    sizes = x.sizes
    if len(sizes) < min(rank, 2):
        sizes = (*[1] * (min(rank, 2) - len(sizes)), *sizes)
    return reshape(tracer, x, (*sizes, *[1] * (rank - len(sizes))))


@lowers("Stack")
def stack(tracer, operation, xs):
    xs = [tracer.tensor(x) for x in xs]
    sizes, dtype = result_spec(tracer, operation, (xs,))
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
    return _parts(tracer, x, operation.indices_or_sections, operation.axis % len(x.sizes))


# Of a vector, hsplit cuts the only axis.
_SPLITS = {"Vsplit": 0, "Hsplit": 1, "Dsplit": 2}


@lowers(*_SPLITS)
def split_along(tracer, operation, x):
    axis = min(_SPLITS[type(operation).__name__], len(x.sizes) - 1)
    return _parts(tracer, x, operation.indices_or_sections, axis)


@lowers("ArraySplit")
def array_split(tracer, operation, x):
    """Parts of nearly one length: the first ones are longer by one."""
    axis, count = operation.axis % len(x.sizes), operation.indices_or_sections
    if not isinstance(count, (int, np.integer)):
        return _parts(tracer, x, count, axis)
    total = tracer.size(x, axis)
    length, longer = total // count, total % count
    smaller = min if isinstance(total, int) else ops.minimum
    return _slices(tracer, x, [i * length + smaller(longer, i) for i in range(1, count)], axis)


def _parts(tracer, x, sections, axis):
    """The parts of `x`: a number of equal ones, or those between indices."""
    total = x.sizes[axis]
    if isinstance(sections, (int, np.integer)):
        if is_dynamic(total):
            return _equal_parts(tracer, x, int(sections), axis)
        return split_lengths(tracer, x, [total // sections] * sections, axis)
    edges = list(sections)
    if not all(isinstance(s, (int, np.integer)) for s in edges):
        return _slices(tracer, x, edges, axis)
    edges = [0, *map(int, edges), total]
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
    return [sliced(tracer, x, [*before, slice(a, b)]) for a, b in bounds]


def split_lengths(tracer, x, lengths, axis):
    """Cut `x` into parts of the given static lengths."""
    outputs = [((*x.sizes[:axis], n, *x.sizes[axis + 1 :]), x.dtype) for n in lengths]
    parts = tracer.constant(np.array(lengths, np.int64))
    return tracer.emit("Split", [x, parts], {"axis": axis}, outputs=outputs)


@lowers("Unstack")
def unstack(tracer, operation, x):
    axis = operation.axis % len(x.sizes)
    count = x.sizes[axis] if operation.num is None else operation.num
    if is_dynamic(count):
        raise ExportError(
            f"{tracer.where()}: ops.unstack needs an axis whose length is fixed, or num="
        )
    return [index(tracer, x, i, axis) for i in range(count)]
