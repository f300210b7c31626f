"""Lowerings that sort, search and count: each sort is one TopK, which keeps the order of ties.

The TopK of onnxruntime takes NaN for the largest number, as Keras does on JAX and PyTorch. The sort
of TensorFlow has no defined result with NaN.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower import elementwise
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.indexing import nonzero
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape
from keras_seqattn.onnx.sizes import unknown


def ranked(tracer, x, k, axis, *, largest):
    """The k first elements of the sorted axis, and their positions.

    Args:
        tracer: the Tracer.
        x: Symbol.
        k: int or scalar Symbol.
        axis: int, the axis.
        largest: whether the order is descending.

    Returns:
        (values of the dtype of x, positions int32), Symbols.
    """
    axis %= len(x.sizes)
    (number,) = tracer.numbers([k], "k")
    sizes = (*x.sizes[:axis], number, *x.sizes[axis + 1 :])
    dtype = "int32" if x.dtype == "bool" else x.dtype
    attributes = {"axis": axis, "largest": int(largest), "sorted": 1}
    inputs = [cast(tracer, x, dtype), tracer.vector([k])]
    specs = [(sizes, dtype), (sizes, "int32")]
    values, places = tracer.emit("TopK", inputs, attributes, outputs=specs)
    return cast(tracer, values, x.dtype), places


def _sorted(tracer, operation, x):
    axis = operation.axis
    if axis is None or not x.sizes:
        x, axis = reshape(tracer, x, (math.prod(x.sizes),)), 0
    return ranked(tracer, x, tracer.size(x, axis), axis, largest=False)


@lowers("Sort")
def sort(tracer, operation, x):
    values, _ = _sorted(tracer, operation, x)
    return values if x.sizes else x


@lowers("Argsort")
def argsort(tracer, operation, x):
    return _sorted(tracer, operation, x)[1]


@lowers("TopK")
def top_k(tracer, operation, x):
    """The k largest, in descending order also for `sorted=False`, which allows any order."""
    (k,) = tracer.numbers([operation.k], "k")
    if isinstance(k, int) and isinstance(x.sizes[-1], int) and k > x.sizes[-1]:
        raise ExportError(f"{tracer.where()}: top_k of {k} from an axis of {x.sizes[-1]} elements")
    return ranked(tracer, x, operation.k, -1, largest=True)


@lowers("Argpartition")
def argpartition(tracer, operation, x):
    """The positions of the kth + 1 smallest in ascending order, then the others as they stand.

    Except on JAX, Keras compares only the whole parts of the numbers. It leaves the order within
    both parts open. On TensorFlow, it repeats positions where numbers are equal or below 0; the
    file does not.
    """
    if keras.backend.backend() != "jax":
        x = cast(tracer, x, "int32")
    axis = operation.axis
    if axis is None:
        x, axis = reshape(tracer, x, (math.prod(x.sizes),)), 0
    axis %= len(x.sizes)
    _, first = ranked(tracer, x, operation.kth + 1, axis, largest=False)
    size = tracer.size(x, axis)
    shape = [tracer.size(x, a) for a in range(len(x.sizes))]
    marks = tracer.filled(shape, 0, "int32")
    ones = tracer.filled([tracer.size(first, a) for a in range(len(x.sizes))], 1, "int32")
    inputs = [marks, first, ones]
    marks = tracer.emit("ScatterElements", inputs, {"axis": axis}, sizes=x.sizes, dtype="int32")
    _, rest = ranked(tracer, marks, size - operation.kth - 1, axis, largest=False)
    return ops.concatenate([first, rest], axis=axis)


@lowers("SearchSorted")
def search_sorted(tracer, operation, sorted_sequence, values):
    sequence, values = tracer.tensor(sorted_sequence), tracer.tensor(values)
    return _count_before(tracer, sequence, values, operation.side)


@lowers("Digitize")
def digitize(tracer, operation, x, bins):
    x, bins = tracer.tensor(x), tracer.tensor(bins)
    wide = keras.backend.result_type(x.dtype, bins.dtype)
    x, bins = cast(tracer, x, wide), cast(tracer, bins, wide)
    if keras.backend.backend() == "jax":
        # Only there, bins may be descending.
        rising = ops.less_equal(bins[:1], bins[-1:])
        down = ops.greater(bins, ops.expand_dims(x, -1))
        down = ops.sum(ops.cast(down, "int32"), axis=-1)
        return ops.where(rising, _count_before(tracer, bins, x, "right"), down)
    return _count_before(tracer, bins, x, "right")


def _count_before(tracer, sequence, values, side):
    """int32, how many numbers of a sorted sequence are before each value.

    A NaN is after all of them, except that TensorFlow puts it before them for "left".
    """
    wide = ops.expand_dims(values, -1)
    if side == "left" and keras.backend.backend() == "tensorflow":
        before = ops.less(sequence, wide)
    else:
        after = ops.greater_equal if side == "left" else ops.greater
        before = ops.logical_not(after(sequence, wide))
    return ops.sum(ops.cast(before, "int32"), axis=-1)


@lowers("IsIn")
def is_in(tracer, operation, x1, x2):
    x1, x2 = tracer.tensor(x1), tracer.tensor(x2)
    equal = ops.equal(ops.expand_dims(x1, -1), ops.reshape(x2, (-1,)))
    found = ops.any(equal, axis=-1)
    return ops.logical_not(found) if operation.invert else found


@lowers("Nonzero")
def nonzero_operation(tracer, operation, x):
    """A vector of positions for each axis. PyTorch has them as one matrix."""
    found = nonzero(tracer, tracer.symbol(x))
    return found if keras.backend.backend() == "torch" else tuple(found)


@lowers("Where")
def where(tracer, operation, condition, x1=None, x2=None):
    if x1 is None:
        return nonzero_operation(tracer, operation, condition)
    return elementwise.where(tracer, operation, condition, x1, x2)


@lowers("UnravelIndex")
def unravel_index(tracer, operation, indices):
    indices = tracer.tensor(indices)
    places = []
    for size in reversed(operation.shape):
        places.append(ops.mod(indices, size))
        indices = ops.floor_divide(indices, size)
    return tuple(reversed(places))


@lowers("Bincount")
def bincount(tracer, operation, x):
    """Counts along the last axis. The largest number decides how many there are."""
    if operation.sparse:
        raise ExportError(f"{tracer.where()}: ops.bincount with sparse=True makes no dense tensor")
    x = cast(tracer, tracer.symbol(x), "int32")
    least = tracer.constant(np.array([operation.minlength - 1])).view("int32")
    flat = reshape(tracer, x, (math.prod(x.sizes),))
    length = ops.max(ops.concatenate([flat, least])) + 1
    if operation.weights is None:
        ones, dtype = ops.ones_like(x), "int32"
    else:
        ones = tracer.tensor(operation.weights)
        dtype = keras.backend.result_type(x.dtype, ones.dtype)
        ones = cast(tracer, ones, dtype)
    axis = len(x.sizes) - 1
    zeros = ops.zeros([*(tracer.size(x, a) for a in range(axis)), length], ones.dtype)
    attributes = {"axis": axis, "reduction": "add"}
    inputs = [zeros, x, ones]
    counts = tracer.emit("ScatterElements", inputs, attributes, sizes=zeros.sizes, dtype=ones.dtype)
    return cast(tracer, counts, dtype)


@lowers("Histogram")
def histogram(tracer, operation, x):
    """(counts, edges) of a vector of floats."""
    if "float" not in x.dtype:
        raise ExportError(f"{tracer.where()}: ops.histogram of {x.dtype}; cast it to float32")
    if operation.range:
        low, high = (tracer.constant(float(n), x.dtype) for n in operation.range)
    else:
        low, high = ops.min(x), ops.max(x)
    if keras.backend.backend() != "tensorflow":
        # One number alone is in the middle of a range of length 1.
        half = ops.where(ops.equal(low, high), *(tracer.constant(n, x.dtype) for n in (0.5, 0.0)))
        low, high = ops.subtract(low, half), ops.add(high, half)
    steps = tracer.constant(np.arange(operation.bins + 1) / operation.bins, x.dtype)
    edges = ops.add(low, ops.multiply(steps, ops.subtract(high, low)))
    # The last bin holds its upper edge.
    inside = ops.logical_and(ops.greater_equal(x, low), ops.less_equal(x, high))
    place = _count_before(tracer, edges[1:-1], x, "right")
    chosen = ops.equal(ops.expand_dims(place, -1), np.arange(operation.bins))
    chosen = ops.logical_and(chosen, ops.expand_dims(inside, -1))
    return ops.sum(ops.cast(chosen, x.dtype), axis=0), edges


@lowers("Unique")
def unique(tracer, operation, x):
    """The Unique of ONNX, cut or filled to `size`. Without it, the length depends on the values."""
    axis = None if operation.axis is None else operation.axis % len(x.sizes)
    found = unknown()
    sizes = (found,) if axis is None else (*x.sizes[:axis], found, *x.sizes[axis + 1 :])
    line = (math.prod(x.sizes) if axis is None else x.sizes[axis],)
    # Only TensorFlow keeps the order of `sorted=False`.
    as_found = keras.backend.backend() == "tensorflow" and not operation.sorted
    dtype = "int32" if x.dtype == "bool" else x.dtype
    specs = [(sizes, dtype), ((found,), "int32"), (line, "int32"), ((found,), "int32")]
    values, first, inverse, counts = tracer.emit(
        "Unique",
        [cast(tracer, x, dtype)],
        {"axis": axis, "sorted": int(not as_found)},
        outputs=specs,
    )
    values, place = cast(tracer, values, x.dtype), axis or 0
    if operation.size is not None:
        fill, first_fill = _fills(operation, values, first)
        values = _of_length(tracer, values, operation.size, place, fill)
        first = _of_length(tracer, first, operation.size, 0, first_fill)
        counts = _of_length(tracer, counts, operation.size, 0, 0)
    if axis is None:
        inverse = reshape(tracer, inverse, x.sizes)
    asked = (operation.return_index, operation.return_inverse, operation.return_counts)
    more = [y for y, wanted in zip((first, inverse, counts), asked, strict=True) if wanted]
    return (values, *more) if more else values


def _fills(operation, values, first):
    """What fills the values and the positions: 0 and 1, or on JAX the first of both."""
    if keras.backend.backend() == "jax":
        smallest = ops.take(values, 0, axis=operation.axis or 0)
        fill = smallest if operation.fill_value is None else operation.fill_value
        return fill, first[0]
    return operation.fill_value or 0, 1


def _of_length(tracer, x, length, axis, fill):
    """`x` with a given length on an axis: cut, or with `fill` after it."""
    key = [slice(None)] * axis
    x = x[(*key, slice(0, length))]
    more = length - tracer.size(x, axis)
    shape = [tracer.size(x, a) if a != axis else more for a in range(len(x.sizes))]
    fill = tracer.tensor(fill)
    if fill.sizes:
        fill = ops.expand_dims(fill, axis)
    rest = ops.broadcast_to(cast(tracer, fill, x.dtype), shape)
    inputs = [x, rest]
    sizes = (*x.sizes[:axis], length, *x.sizes[axis + 1 :])
    return tracer.emit("Concat", inputs, {"axis": axis}, sizes=sizes, dtype=x.dtype)
