"""Lowerings of pooling with windows, and of adaptive pooling. (Global pooling is a reduction.)"""

import keras
import numpy as np

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.spatial import (
    Windows,
    as_given,
    channels_first,
    padded,
    padding_attributes,
    spatial_tuple,
)
from keras_seqattn.onnx.sizes import is_dynamic


def _in_windows(tracer, operation, inputs, pool):
    """`pool(x, windows)` for data with the channels on axis 1, in a float type."""
    x = tracer.symbol(inputs)
    given = x.dtype
    # float64 holds every int32. onnxruntime has no pooling of int64.
    x = channels_first(tracer, cast(tracer, x, given if "float" in given else "float64"),
                       operation.data_format)  # fmt: skip
    rank = len(x.sizes) - 2
    size = spatial_tuple(operation.pool_size, rank)
    strides = size if operation.strides is None else spatial_tuple(operation.strides, rank)
    windows = Windows(size, strides, (1,) * rank, operation.padding)
    return as_given(tracer, cast(tracer, pool(x, windows), given), operation.data_format)


def _pool(tracer, op_type, x, windows, sizes):
    x, attributes = padding_attributes(tracer, x, windows)
    return tracer.emit(op_type, [x], attributes, sizes=sizes, dtype=x.dtype)


def _result_sizes(x, windows):
    return (*x.sizes[:2], *windows.lengths(x.sizes[2:]))


@lowers("MaxPool")
def max_pool(tracer, operation, inputs):
    def pool(x, windows):
        sizes = _result_sizes(x, windows)
        if _needs_node(x, windows):
            x = padded(tracer, x, windows, "edge")  # which no maximum notices
            windows = _valid(windows)
        return _pool(tracer, "MaxPool", x, windows, sizes)

    return _in_windows(tracer, operation, inputs, pool)


@lowers("AveragePool")
def average_pool(tracer, operation, inputs):
    """The mean of the places of a window that are inside. On PyTorch, Keras repeats the border
    instead, and counts it, unless both sides of each axis get the same padding."""

    def pool(x, windows):
        if windows.is_same and keras.backend.backend() == "torch":
            return _average_as_torch(tracer, x, windows)
        if _needs_node(x, windows):
            return _average_of_inside(tracer, x, windows)
        return _pool(tracer, "AveragePool", x, windows, _result_sizes(x, windows))

    return _in_windows(tracer, operation, inputs, pool)


def _needs_node(x, windows):
    """Whether only a Pad node can give the padding of "same"."""
    return (
        windows.is_same
        and any(map(is_dynamic, x.sizes[2:]))
        and not windows.pads_by_kernel()
        and any(e > 1 and s > 1 for e, s in zip(windows.extent, windows.strides, strict=True))
    )


def _valid(windows):
    return Windows(windows.kernel, windows.strides, windows.dilations, "valid")


def _average_of_inside(tracer, x, windows):
    """The sum of a window over the number of its places that are inside."""
    one = keras.ops.ones_like(x[:1, :1])
    sizes = [_result_sizes(s, windows) for s in (x, one)]
    total, count = (
        _pool(tracer, "AveragePool", padded(tracer, s, windows), _valid(windows), n)
        for s, n in zip((x, one), sizes, strict=True)
    )
    return keras.ops.divide(total, count)


def _average_as_torch(tracer, x, windows):
    sizes = _result_sizes(x, windows)
    lengths = [tracer.size(x, axis) for axis in range(2, len(x.sizes))]
    totals = windows.total_padding(lengths)
    if all(isinstance(n, int) and n % 2 == 0 for n in totals):
        return _pool(tracer, "AveragePool", x, windows, sizes)
    bordered = padded(tracer, x, windows, "edge")
    repeated = _pool(tracer, "AveragePool", bordered, _valid(windows), sizes)
    if any(isinstance(n, int) and n % 2 for n in totals):
        return repeated
    # Whether both sides get the same padding depends on the length.
    if _needs_node(x, windows):
        inside = _average_of_inside(tracer, x, windows)
    else:
        inside = _pool(tracer, "AveragePool", x, windows, sizes)
    odd = [keras.ops.mod(n, 2) for n in totals if not isinstance(n, int)]
    uneven = odd[0] if len(odd) == 1 else keras.ops.max(keras.ops.stack(odd))
    return keras.ops.where(keras.ops.equal(uneven, 0), inside, repeated)


@lowers("AdaptiveAveragePool")
def adaptive_average_pool(tracer, operation, inputs):
    return _adaptive(tracer, operation, inputs, "AveragePool")


@lowers("AdaptiveMaxPool")
def adaptive_max_pool(tracer, operation, inputs):
    return _adaptive(tracer, operation, inputs, "MaxPool")


def _adaptive(tracer, operation, inputs, op_type):
    """Windows from floor(i n / m) to ceil((i + 1) n / m) for i < m, one axis after the other."""
    x = channels_first(tracer, tracer.symbol(inputs), operation.data_format)
    rank = len(x.sizes) - 2
    wanted = spatial_tuple(operation.output_size, rank)
    if all(n == 1 for n in wanted):
        sizes = (*x.sizes[:2], *wanted)
        result = tracer.emit(f"Global{op_type}", [x], sizes=sizes, dtype=x.dtype)
        return as_given(tracer, result, operation.data_format)
    if any(map(is_dynamic, x.sizes[2:])):
        raise ExportError(
            f"{tracer.where()}: {type(operation).__name__} to more than one place needs a fixed "
            "size of its input; give keras.Input the size, or use a global pooling"
        )
    if all(n % m == 0 for n, m in zip(x.sizes[2:], wanted, strict=True)):
        size = tuple(n // m for n, m in zip(x.sizes[2:], wanted, strict=True))
        x = _plain(tracer, op_type, x, size, size)
    else:
        for axis, m in enumerate(wanted):
            x = _adapted(tracer, op_type, x, axis, m)
    return as_given(tracer, x, operation.data_format)


def _plain(tracer, op_type, x, size, strides):
    windows = Windows(size, strides, (1,) * len(size), "valid")
    return _pool(tracer, op_type, x, windows, _result_sizes(x, windows))


def _adapted(tracer, op_type, x, axis, m):
    """The windows on one spatial axis have one or two lengths: pool with each, and choose."""
    n, rank = x.sizes[axis + 2], len(x.sizes) - 2
    starts = np.arange(m) * n // m
    lengths = -(-(np.arange(m) + 1) * n // m) - starts
    pooled, first, index = [], 0, np.zeros(m, np.int64)
    for length in np.unique(lengths).tolist():
        size = tuple(length if a == axis else 1 for a in range(rank))
        pooled.append(_plain(tracer, op_type, x, size, (1,) * rank))
        index = np.where(lengths == length, starts + first, index)
        first += n - length + 1
    joined = pooled[0] if len(pooled) == 1 else keras.ops.concatenate(pooled, axis=axis + 2)
    return keras.ops.take(joined, index, axis=axis + 2)
