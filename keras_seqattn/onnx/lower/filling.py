"""Lowerings that make tensors of numbers: ranges, fills, classes, diagonals."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast, common_dtype
from keras_seqattn.onnx.lower.indexing import gather
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.sizes import computed, is_dynamic
from keras_seqattn.onnx.symbol import Symbol


@lowers("Arange")
def arange(tracer, operation, start, stop=None, step=None):
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    # Sizes are Python's ints in Keras, and have no say in the dtype.
    typed = [n for n in (start, stop, step) if not isinstance(getattr(n, "number", n), int)]
    dtype = operation.dtype or common_dtype(typed or [0])
    bounds = [n if isinstance(n, (int, float, Symbol)) else _scalar(n) for n in (start, stop, step)]
    if any("int" not in common_dtype([n]) for n in bounds):
        return _range_of_floats(tracer, bounds, dtype)
    numbers = tracer.numbers(bounds, "a bound of ops.arange")
    sizes = (computed(_range_length, *numbers),)
    bounds = [tracer.symbol(n) for n in bounds]
    return cast(tracer, tracer.emit("Range", bounds, sizes=sizes, dtype="int32"), dtype)


def _scalar(x):
    return ops.convert_to_numpy(x).item()


def _range_length(first, last, stride):
    # len(range(...)) would overflow for products of two sizes.
    return max(0, -((first - last) // stride)) if stride else 0


def _range_of_floats(tracer, bounds, dtype):
    """A range with a bound that is no whole number.

    The n-th number is start + n * step. The Range of ONNX would add up the rounding errors.
    """
    if not any(isinstance(n, Symbol) for n in bounds):
        return tracer.constant(np.arange(*bounds), dtype)
    start, stop, step = (ops.cast(n, "float32") for n in bounds)
    count = ops.cast(ops.ceil(ops.divide(ops.subtract(stop, start), step)), "int32")
    numbers = ops.cast(ops.arange(ops.maximum(count, 0)), "float32")
    return ops.cast(ops.add(start, ops.multiply(numbers, step)), dtype)


@lowers("OnesLike", "ZerosLike", "EmptyLike", "FullLike")
def like(tracer, operation, x, fill_value=None):
    name = type(operation).__name__
    dtype = operation.dtype or x.dtype
    content = {"OnesLike": 1, "ZerosLike": 0, "EmptyLike": 0}.get(name, fill_value)
    return _filled(tracer, [tracer.size(x, a) for a in range(len(x.sizes))], content, dtype)


@lowers("Full")
def full(tracer, operation, fill_value):
    shape = operation.shape
    shape = list(shape) if isinstance(shape, (list, tuple)) else [shape]
    return _filled(tracer, shape, fill_value, operation.dtype or keras.config.floatx())


def _filled(tracer, shape, content, dtype):
    if isinstance(content, Symbol):
        content = cast(tracer, content, dtype)
    return tracer.filled(shape, content, dtype)


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


@lowers("Diag")
def diag(tracer, operation, x):
    """The matrix with a vector on a diagonal, or the diagonal of a matrix."""
    if len(x.sizes) == 2:
        return _diagonal(tracer, x, operation.k)
    return _matrix(tracer, x, operation.k)


@lowers("Diagflat")
def diagflat(tracer, operation, x):
    return _matrix(tracer, reshape(tracer, x, (math.prod(x.sizes),)), operation.k)


def _matrix(tracer, x, k):
    """(n + |k|, n + |k|), zero beside the k-th diagonal, on which `x` is."""
    size = tracer.size(x, 0) + abs(k)
    x = ops.pad(x, [(0, abs(k))]) if k else x
    # Above the main diagonal, a row has one element of x; below it, a column has one.
    x = ops.expand_dims(x, 1 if k > 0 else 0)
    places = ops.arange(size)
    distance = ops.subtract(places, ops.expand_dims(places, 1))
    zero = tracer.constant(np.zeros(()), x.dtype).view(x.dtype)
    return ops.where(ops.equal(distance, k), x, zero)


@lowers("Diagonal")
def diagonal(tracer, operation, x):
    rank = len(x.sizes)
    axes = [operation.axis1 % rank, operation.axis2 % rank]
    others = [a for a in range(rank) if a not in axes]
    return _diagonal(tracer, transpose(tracer, x, [*others, *axes]), operation.offset)


def _diagonal(tracer, x, k):
    """The k-th diagonal of the matrices in the last two axes."""
    *batch, rows, columns = x.sizes

    def length(rows, columns):
        return max(0, min(rows - max(-k, 0), columns - max(k, 0)))

    if not is_dynamic(rows) and not is_dynamic(columns):
        places = np.arange(length(rows, columns)) * (columns + 1) + (k if k >= 0 else -k * columns)
        places = tracer.constant(places)
    else:
        rows, columns = tracer.size(x, -2), tracer.size(x, -1)
        count = ops.maximum(ops.minimum(rows - max(-k, 0), columns - max(k, 0)), 0)
        start = k if k >= 0 else columns * -k
        places = ops.add(ops.multiply(ops.arange(count), columns + 1), start)
    flat = reshape(tracer, x, (*batch, x.sizes[-2] * x.sizes[-1]))
    return gather(tracer, flat, places, len(batch))


@lowers("Array")
def array(tracer, operation, x):
    return cast(tracer, tracer.tensor(x), operation.dtype or tracer.tensor(x).dtype)


@lowers("View")
def view(tracer, operation, x):
    """The same values. Their bits cannot be read as those of another type."""
    if operation.dtype not in (None, x.dtype):
        raise ExportError(
            f"{tracer.where()}: ops.view of {x.dtype} as {operation.dtype} reads the bits of "
            "numbers, for which ONNX has no operator; use ops.cast if the values are meant"
        )
    return x
