"""Overlapping windows of a tensor: patches of pictures, frames of sound."""

import math

import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.planes import spatial_axes, squeezed, unsqueezed
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.sizes import computed, is_dynamic


def windows(tracer, x, axis, length, stride, dilation=1):
    """Windows along one axis: (..., n, ...) becomes (..., count, length, ...).

    Args:
        x: Symbol.
        axis: a non-negative axis.
        length, stride, dilation: ints. There is no padding.
    """
    size = x.sizes[axis]
    reach = dilation * (length - 1) + 1
    count = window_count(size, reach, stride)
    sizes = (*x.sizes[:axis], count, length, *x.sizes[axis + 1 :])
    if length == stride and dilation == 1:
        if count * length != size:
            key = [slice(None)] * len(x.sizes)
            key[axis] = slice(0, count * length)
            total = tracer.size(x, axis) // length * length if is_dynamic(size) else count * length
            key[axis] = slice(0, total)
            x = x[tuple(key)]
        return reshape(tracer, x, sizes)
    if is_dynamic(size):
        starts = ops.arange((tracer.size(x, axis) - reach) // stride + 1) * stride
    else:
        starts = np.arange(count) * stride
    places = tracer.symbol(starts[:, None] + np.arange(length)[None, :] * dilation)
    return tracer.emit("Gather", [x, places], {"axis": axis}, sizes=sizes, dtype=x.dtype)


def window_count(size, reach, stride):
    """The number of windows of `reach` entries in `size` entries, an int or a Size."""
    return computed(lambda n: max(0, (n - reach) // stride + 1), size)


@lowers("ExtractSequences")
def extract_sequences(tracer, operation, x):
    axis = len(x.sizes) - 1
    return windows(tracer, x, axis, operation.sequence_length, operation.sequence_stride)


@lowers("ExtractPatches")
def extract_patches(tracer, operation, images):
    """Patches as Keras orders them: the entries of a patch are the channels of its place."""
    size = list(operation.size)
    count = len(size)
    strides, dilation = (
        [n] * count if isinstance(n, int) else list(n)
        for n in (operation.strides or size, operation.dilation_rate)
    )
    x, rank = images, len(images.sizes)
    if rank == count + 1:
        x = unsqueezed(tracer, x, 0)
    if operation.data_format == "channels_first":
        x = transpose(tracer, x, (0, *range(2, count + 2), 1))
    if operation.padding == "same":
        x = _padded_as_same(tracer, x, size, strides, dilation)
    for i in range(count):
        x = windows(tracer, x, 1 + 2 * i, size[i], strides[i], dilation[i])
    places, within = range(1, 2 * count, 2), range(2, 2 * count + 1, 2)
    x = transpose(tracer, x, (0, *places, *within, 2 * count + 1))
    x = reshape(tracer, x, (*x.sizes[: count + 1], math.prod(x.sizes[count + 1 :])))
    if operation.data_format == "channels_first":
        x = transpose(tracer, x, (0, count + 1, *range(1, count + 1)))
    return squeezed(tracer, x, 0) if rank == count + 1 else x


def _padded_as_same(tracer, x, size, strides, dilation):
    """Zeros around `x`, so that there are ceil(n / stride) windows. The end has one more."""
    widths = [(0, 0)] * len(x.sizes)
    for i, axis in enumerate(spatial_axes(x, "channels_last", len(size))):
        reach, stride = dilation[i] * (size[i] - 1) + 1, strides[i]
        n = tracer.size(x, axis)
        if isinstance(n, int):
            total = max(0, (-(-n // stride) - 1) * stride + reach - n)
        elif stride == 1:
            total = reach - 1
        else:
            total = ops.maximum(0, (n + stride - 1) // stride * stride - stride + reach - n)
        widths[axis] = (total // 2, total - total // 2)
    return ops.pad(x, widths)
