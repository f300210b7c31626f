"""Lowerings that read a part of a tensor: `x[...]` in all its forms, slices, gathers.

An index beyond the end raises an error in onnxruntime, as on TensorFlow and PyTorch. JAX would give
NaN or the last element.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import expanded, reshape, transpose, unsqueeze
from keras_seqattn.onnx.sizes import computed, unknown
from keras_seqattn.onnx.symbol import Symbol

_END = np.iinfo(np.int64).max
_WHOLE = slice(None)


def index(tracer, x, position, axis):
    """The part of `x` at one position of an axis. The axis is dropped."""
    sizes = (*x.sizes[:axis], *x.sizes[axis + 1 :])
    position = tracer.symbol(position)
    return tracer.emit("Gather", [x, position], {"axis": axis}, sizes=sizes, dtype=x.dtype)


def gather(tracer, x, indices, axis):
    """The parts of `x` at some positions of an axis. The axes of `indices` replace it."""
    sizes = (*x.sizes[:axis], *indices.sizes, *x.sizes[axis + 1 :])
    return tracer.emit("Gather", [x, indices], {"axis": axis}, sizes=sizes, dtype=x.dtype)


def sliced(tracer, x, key):
    """The slices in `key`, as one Slice node. What is no slice takes its whole axis."""
    starts, ends, axes, steps, sizes = [], [], [], [], list(x.sizes)
    for axis, k in enumerate(key):
        if not isinstance(k, slice) or k == _WHOLE:
            continue
        step = 1 if k.step is None else k.step
        forward = isinstance(step, Symbol) or step > 0
        start = k.start if k.start is not None else (0 if forward else -1)
        end = k.stop if k.stop is not None else (_END if forward else -_END)
        starts.append(start), ends.append(end), axes.append(axis), steps.append(step)
        sizes[axis] = _sliced_size(tracer, x.sizes[axis], k)
    if not axes:
        return x
    bounds = [tracer.vector(v) for v in (starts, ends, axes, steps)]
    return tracer.emit("Slice", [x, *bounds], sizes=sizes, dtype=x.dtype)


def _sliced_size(tracer, size, k):
    numbers = tracer.numbers((k.start, k.stop, k.step), "a bound of a slice")
    given = [n for n in numbers if n is not None]

    def length(size, *given):
        bounds = iter(given)
        parts = (None if n is None else next(bounds) for n in numbers)
        return len(range(*slice(*parts).indices(size)))

    return computed(length, size, *given)


@lowers("GetItem")
def get_item(tracer, operation, x, key):
    """`x[key]` as NumPy defines it.

    Slices become one Slice, each whole number a Gather, None an Unsqueeze. Tensors in the key
    become one Gather, Compress or GatherND.
    """
    key = _of_each_axis(tracer, x, key)
    x = sliced(tracer, x, [k for k in key if k is not None])
    # PyTorch takes whole numbers first. For NumPy and JAX, they are indices like the tensors beside
    # them, and so decide where the axes of the tensors go.
    joined = keras.backend.backend() != "torch" and any(map(_is_tensor, key))
    places, others, axis = [], [], 0
    for k in key:
        if k is None:
            x = unsqueeze(tracer, x, axis)
        elif isinstance(k, slice) or (k is Ellipsis and _WHOLE):
            pass
        elif _is_tensor(k) or joined:
            places.append((axis, k))
            axis += len(k.sizes) if _is_mask(k) else 1
            continue
        else:
            x = index(tracer, x, k, axis)
            continue
        others.append(axis)
        axis += 1
    if not places:
        return x
    first, last = places[0][0], places[-1][0]
    apart = any(first < axis < last for axis in others)
    return _taken(tracer, x, places, apart)


def _of_each_axis(tracer, x, key):
    """The key as a list: None, and for each axis a slice, a whole number or a Symbol.

    A mask of several axes is there once, for all of them.
    """
    key = [_entry(tracer, k) for k in (key if isinstance(key, (tuple, list)) else [key])]
    used = sum(
        len(k.sizes) if _is_mask(k) else 1 for k in key if k is not None and k is not Ellipsis
    )
    if used > len(x.sizes):
        raise ExportError(
            f"{tracer.where()}: {used} indices for a tensor of shape {x.shape}; give at most one "
            "for each axis"
        )
    rest = [_WHOLE] * (len(x.sizes) - used)
    at = next((i for i, k in enumerate(key) if k is Ellipsis), None)
    return [*key, *rest] if at is None else [*key[:at], *rest, *key[at + 1 :]]


def _entry(tracer, k):
    if k is None or k is Ellipsis or isinstance(k, slice):
        return k
    if isinstance(k, (int, np.integer)) and not isinstance(k, bool):
        return k
    k = tracer.tensor(k)
    if "int" not in k.dtype and not (_is_mask(k) and k.sizes):
        raise ExportError(
            f"{tracer.where()}: an index of dtype {k.dtype} and rank {len(k.sizes)}; use whole "
            "numbers, or a mask with the shape of the first axes that it selects from"
        )
    return k


def _is_mask(k):
    return isinstance(k, Symbol) and k.dtype == "bool"


def _is_tensor(k):
    """Whether an entry of a key is a tensor with axes. A scalar is like a whole number."""
    return isinstance(k, Symbol) and bool(k.sizes)


def _taken(tracer, x, places, apart):
    """The elements of `x` at tensors of positions, or where masks are true.

    Args:
        tracer: the Tracer.
        x: Symbol.
        places: list of (axis, whole number or Symbol). A mask is there with its first axis.
        apart: whether axes without an index are between those with one. Then the axes of the
            indices come first; else they take the place of the first axis with an index.
    """
    ((axis, k), *more) = places
    if not more and not _is_mask(k):
        return gather(tracer, x, k, axis)
    if not more and len(k.sizes) == 1:
        sizes = (*x.sizes[:axis], _found(tracer, k), *x.sizes[axis + 1 :])
        return tracer.emit("Compress", [x, k], {"axis": axis}, sizes=sizes, dtype=x.dtype)
    axes, parts = [], []
    for axis, k in places:
        coordinates = _coordinates(tracer, k) if _is_mask(k) else [tracer.symbol(k)]
        axes += range(axis, axis + len(coordinates))
        parts += coordinates
    rest = [a for a in range(len(x.sizes)) if a not in axes]
    x = transpose(tracer, x, [*axes, *rest])
    positions = ops.stack(_broadcast(tracer, parts), axis=-1)
    lead = len(positions.sizes) - 1
    sizes = (*positions.sizes[:-1], *x.sizes[len(axes) :])
    taken = tracer.emit("GatherND", [x, positions], sizes=sizes, dtype=x.dtype)
    if apart:
        return taken
    before = [lead + i for i in range(axes[0])]
    return transpose(
        tracer, taken, [*before, *range(lead), *range(lead + len(before), len(taken.sizes))]
    )


def _coordinates(tracer, mask):
    """The positions where a mask is true, one int64 (found,) for each of its axes."""
    found = nonzero(tracer, mask)
    return [index(tracer, found, i, 0) for i in range(len(mask.sizes))]


def nonzero(tracer, x):
    """int64 (rank, found), the positions where `x` is not zero."""
    sizes = (len(x.sizes), _found(tracer, x))
    return tracer.emit("NonZero", [x], sizes=sizes, dtype="int32")


def _found(tracer, x):
    """How many elements of `x` are not zero. What is selected by one mask has one length."""
    return tracer.once(("found", x.value), unknown)


def _broadcast(tracer, parts):
    """Symbols of whole numbers in their common shape."""
    if all(part.sizes == parts[0].sizes for part in parts):
        return parts
    total = parts[0]
    for part in parts[1:]:
        total = ops.add(total, part)
    return [expanded(tracer, part, total) for part in parts]


@lowers("Take")
def take(tracer, operation, x, indices):
    x, indices = tracer.symbol(x), tracer.symbol(indices)
    if operation.axis is None:
        x, indices = _flat(tracer, x, indices)
    return gather(tracer, x, indices, (operation.axis or 0) % len(x.sizes))


@lowers("TakeAlongAxis")
def take_along_axis(tracer, operation, x, indices):
    """GatherElements, whose inputs must have the same sizes on the other axes."""
    x, indices = tracer.symbol(x), tracer.symbol(indices)
    if operation.axis is None:
        x, indices = _flat(tracer, x, indices)
    axis = (operation.axis or 0) % len(x.sizes)
    others = [i for i in range(len(x.sizes)) if i != axis]
    if any(x.sizes[i] != indices.sizes[i] for i in others):
        wide = [max((x, indices), key=lambda s: s.sizes[i] != 1) for i in others]
        sizes = [tracer.size(s, i) for s, i in zip(wide, others, strict=True)]
        x, indices = (
            ops.broadcast_to(s, [*sizes[:axis], tracer.size(s, axis), *sizes[axis:]])
            for s in (x, indices)
        )
    return tracer.emit(
        "GatherElements", [x, indices], {"axis": axis}, sizes=indices.sizes, dtype=x.dtype
    )


def _flat(tracer, x, indices):
    """`x` with one axis, and the indices for it."""
    if keras.backend.backend() == "torch" and len(x.sizes) > 1:
        # There, Keras counts negative indices from the end of the first axis.
        indices = ops.where(indices < 0, indices + tracer.size(x, 0), indices)
    return reshape(tracer, x, (math.prod(x.sizes),)), indices


@lowers("Slice")
def slice_operation(tracer, operation, inputs, start_indices):
    """`ops.slice`. A length of -1 is all that is left of the axis."""
    inputs, lengths = tracer.symbol(inputs), list(operation.shape)
    rank = len(inputs.sizes)
    if not isinstance(start_indices, (list, tuple)):
        vector = tracer.symbol(start_indices)
        start_indices = [index(tracer, vector, axis, 0) for axis in range(rank)]
    starts = [_start(tracer, inputs, *at) for at in zip(range(rank), start_indices, lengths)]  # noqa: B905
    ends = [
        _END
        if not isinstance(n, Symbol) and n == -1
        else ops.add(s, n)
        if isinstance(s, Symbol) or isinstance(n, Symbol)
        else int(s) + int(n)
        for s, n in zip(starts, lengths, strict=True)
    ]
    key = [slice(s, e) for s, e in zip(starts, ends, strict=True)]
    result = sliced(tracer, inputs, key)
    # What was asked for is known better than the difference of two bounds.
    numbers = tracer.numbers(lengths, "the length of ops.slice")
    sizes = [r if n == -1 else n for r, n in zip(result.sizes, numbers, strict=True)]
    return Symbol(result.value, sizes, result.dtype)


def _start(tracer, x, axis, start, length):
    """Where a slice begins. JAX moves a slice back that would end after the end."""
    if not isinstance(start, Symbol):
        return start
    start = ops.reshape(start, ())
    if keras.backend.backend() != "jax" or start.number is not None or length == -1:
        return start
    return ops.clip(start, 0, ops.subtract(tracer.size(x, axis), length))
