"""Lowerings of convolutions, and of the rearrangements of pictures that are made like them."""

import keras
import numpy as np

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.lower.spatial import (
    Windows,
    as_given,
    channels_first,
    is_channels_last,
    padding_attributes,
    spatial_tuple,
)
from keras_seqattn.onnx.symbol import Symbol, lazy_initializer


def rearranged(tracer, weight, shape, axes):
    """A weight with another shape, and then with its axes in another order.

    A weight of the model is rearranged when it is written; a computed kernel, in the graph.

    Args:
        weight: Symbol.
        shape: tuple of ints.
        axes: the order of the axes of `shape` in the result.
    """
    if weight.value.const_value is None:
        return transpose(tracer, reshape(tracer, weight, shape), axes)
    key = ("rearranged", weight.value, tuple(shape), tuple(axes))
    return tracer.once(key, lambda: _rearranged_initializer(tracer, weight, shape, axes))


def _rearranged_initializer(tracer, weight, shape, axes):
    source, sizes = weight.value.const_value, [shape[a] for a in axes]
    name = tracer.unique_name(f"{weight.value.name}/channels_first")
    value = lazy_initializer(
        name, sizes, source.dtype, lambda: source.numpy().reshape(shape).transpose(axes)
    )
    tracer.graph.register_initializer(value)
    return Symbol(value, sizes, weight.dtype)


def _as_floats(tracer, x, kernel):
    """The data and the kernel in one float type. Convolutions of integers have no kernels."""
    if any(isinstance(k, Symbol) and not all(map(_is_int, k.sizes)) for k in (kernel,)):
        raise ExportError(f"{tracer.where()}: a kernel needs sizes that are fixed")
    x = tracer.symbol(x)
    wide = x.dtype if "float" in x.dtype else "float64"
    return cast(tracer, x, wide), cast(tracer, tracer.symbol(kernel, wide), wide)


def _is_int(n):
    return type(n) is int


def _convolve(tracer, x, weight, windows, groups):
    """Conv of `x` with the channels on axis 1 and a weight (out, in / groups, *spatial)."""
    lengths = windows.lengths(x.sizes[2:])
    sizes = (x.sizes[0], weight.sizes[0], *lengths)
    x, attributes = padding_attributes(tracer, x, windows)
    attributes["group"] = groups if groups > 1 else None
    return tracer.emit("Conv", [x, weight], attributes, sizes=sizes, dtype=x.dtype)


def _windows(operation, kernel):
    rank = len(kernel.sizes) - 2
    strides = spatial_tuple(operation.strides, rank)
    dilations = spatial_tuple(operation.dilation_rate, rank)
    return Windows(kernel.sizes[:-2], strides, dilations, operation.padding)


def _check_channels(tracer, operation, inputs, count):
    if not _is_int(count):
        raise ExportError(
            f"{tracer.where()}: {type(operation).__name__} needs a fixed number of channels"
        )


@lowers("Conv")
def conv(tracer, operation, inputs, kernel):
    """Kernel (*spatial, in / groups, out) -> weight (out, in / groups, *spatial)."""
    given = tracer.symbol(inputs).dtype
    x, kernel = _as_floats(tracer, inputs, kernel)
    x = channels_first(tracer, x, operation.data_format)
    _check_channels(tracer, operation, inputs, x.sizes[1])
    rank = len(kernel.sizes) - 2
    weight = rearranged(tracer, kernel, kernel.sizes, [rank + 1, rank, *range(rank)])
    groups = x.sizes[1] // kernel.sizes[-2]
    result = _convolve(tracer, x, weight, _windows(operation, kernel), groups)
    return as_given(tracer, cast(tracer, result, given), operation.data_format)


def _depthwise(tracer, operation, x, kernel):
    """Kernel (*spatial, in, multiplier) -> weight (in * multiplier, 1, *spatial)."""
    *spatial, channels, multiplier = kernel.sizes
    rank = len(spatial)
    shape = (*spatial, 1, channels * multiplier)
    weight = rearranged(tracer, kernel, shape, [rank + 1, rank, *range(rank)])
    return _convolve(tracer, x, weight, _windows(operation, kernel), channels)


@lowers("DepthwiseConv")
def depthwise_conv(tracer, operation, inputs, kernel):
    given = tracer.symbol(inputs).dtype
    x, kernel = _as_floats(tracer, inputs, kernel)
    result = _depthwise(tracer, operation, channels_first(tracer, x, operation.data_format), kernel)
    return as_given(tracer, cast(tracer, result, given), operation.data_format)


@lowers("SeparableConv")
def separable_conv(tracer, operation, inputs, depthwise_kernel, pointwise_kernel):
    given = tracer.symbol(inputs).dtype
    x, kernel = _as_floats(tracer, inputs, depthwise_kernel)
    _, pointwise = _as_floats(tracer, inputs, pointwise_kernel)
    x = _depthwise(tracer, operation, channels_first(tracer, x, operation.data_format), kernel)
    rank = len(kernel.sizes) - 2
    weight = rearranged(tracer, pointwise, pointwise.sizes, [rank + 1, rank, *range(rank)])
    ones = (1,) * rank
    result = _convolve(tracer, x, weight, Windows(ones, ones, ones, "valid"), 1)
    return as_given(tracer, cast(tracer, result, given), operation.data_format)


@lowers("ConvTranspose")
def conv_transpose(tracer, operation, inputs, kernel):
    """Kernel (*spatial, out, in) -> weight (in, out, *spatial).

    The result is a window of the longest one, whose length is (n - 1) * stride + extent. All
    backends take the same window.
    """
    given = tracer.symbol(inputs).dtype
    x, kernel = _as_floats(tracer, inputs, kernel)
    x = channels_first(tracer, x, operation.data_format)
    rank = len(kernel.sizes) - 2
    weight = rearranged(tracer, kernel, kernel.sizes, [rank + 1, rank, *range(rank)])
    windows = _windows(operation, kernel)
    margins = _margins(operation, windows, rank)
    # Places to add at the end. The operator takes fewer than the stride or the dilation.
    extra = [max(-after, 0) for _, after in margins]
    room = [max(s, d) for s, d in zip(windows.strides, windows.dilations, strict=True)]
    inner = [min(n, r - 1) for n, r in zip(extra, room, strict=True)]
    pads = [*(before for before, _ in margins), *(max(after, 0) for _, after in margins)]
    attributes = windows.attributes(pads)
    attributes["output_padding"] = inner if any(inner) else None
    natural = [
        (n - 1) * s + e
        for n, s, e in zip(x.sizes[2:], windows.strides, windows.extent, strict=True)
    ]
    lengths = [
        n - before - max(after, 0) + more
        for n, (before, after), more in zip(natural, margins, inner, strict=True)
    ]
    sizes = (x.sizes[0], weight.sizes[1], *lengths)
    result = tracer.emit("ConvTranspose", [x, weight], attributes, sizes=sizes, dtype=x.dtype)
    rest = [a - b for a, b in zip(extra, inner, strict=True)]
    if any(rest):
        sizes = (*sizes[:2], *(n + r for n, r in zip(lengths, rest, strict=True)))
        ends = tracer.vector([0] * (rank + 4) + rest)
        result = tracer.emit("Pad", [result, ends], sizes=sizes, dtype=x.dtype)
    return as_given(tracer, cast(tracer, result, given), operation.data_format)


def _margins(operation, windows, rank):
    """list of (before, after): what is cut off on each axis. After the end it may be negative."""
    given = operation.output_padding
    paddings = [None] * rank if given is None else spatial_tuple(given, rank)
    margins = []
    for extent, stride, more in zip(windows.extent, windows.strides, paddings, strict=True):
        if not windows.is_same:
            margins.append((0, -(max(stride - extent, 0) if more is None else more)))
            continue
        total = extent - stride if more is None else extent - extent % 2 - more
        before = max(total // 2, 0)
        margins.append((before, total - before))
    return margins


def _pair(value):
    return spatial_tuple(value, 2)


@lowers("Unfold")
def unfold(tracer, operation, x):
    """Windows of (n, c, h, w) as columns: (n, c * kh * kw, windows). Slices take every place of the
    windows, so that nothing is computed."""
    (kh, kw), (dh, dw) = _pair(operation.kernel_size), _pair(operation.dilation)
    (ph, pw), (sh, sw) = _pair(operation.padding), _pair(operation.stride)
    if ph or pw:
        x = keras.ops.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    parts = []
    for i in range(kh):
        for j in range(kw):
            ends = [-(k - 1 - at) * d or None for k, at, d in ((kh, i, dh), (kw, j, dw))]
            parts.append(x[:, :, i * dh : ends[0] : sh, j * dw : ends[1] : sw])
    n, c, h, w = keras.ops.shape(parts[0])
    stacked = keras.ops.stack(parts, axis=2)
    return keras.ops.reshape(stacked, (n, c * kh * kw, h * w))


@lowers("Fold")
def fold(tracer, operation, x):
    """Columns (n, c * kh * kw, windows) are added up to a picture (n, c, h, w)."""
    kernel, output = _pair(operation.kernel_size), _pair(operation.output_size)
    attributes = {
        "dilations": list(_pair(operation.dilation)),
        "pads": list(_pair(operation.padding)) * 2,
        "strides": list(_pair(operation.stride)),
    }
    inputs = [x, tracer.constant(np.array(output)), tracer.constant(np.array(kernel))]
    sizes = (x.sizes[0], x.sizes[1] // (kernel[0] * kernel[1]), *output)
    return tracer.emit("Col2Im", inputs, attributes, sizes=sizes, dtype=x.dtype)


def _channel_is_outermost(operation):
    """Whether a channel is split as (channel, block), and not as (block, channel).

    For channels_first, PyTorch and JAX do the first, and TensorFlow the second.
    """
    first = not is_channels_last(operation.data_format)
    return first and keras.backend.backend() != "tensorflow"


@lowers("DepthToSpace")
def depth_to_space(tracer, operation, x):
    block = operation.block_size
    x = channels_first(tracer, x, operation.data_format)
    n, c, h, w = x.sizes
    mode = "CRD" if _channel_is_outermost(operation) else "DCR"
    sizes = (n, c // block**2, h * block, w * block)
    attributes = {"blocksize": block, "mode": mode}
    result = tracer.emit("DepthToSpace", [x], attributes, sizes=sizes, dtype=x.dtype)
    return as_given(tracer, result, operation.data_format)


@lowers("SpaceToDepth")
def space_to_depth(tracer, operation, x):
    block = operation.block_size
    x = channels_first(tracer, x, operation.data_format)
    n, c, h, w = x.sizes
    sizes = (n, c * block**2, h // block, w // block)
    attributes = {"blocksize": block}
    result = tracer.emit("SpaceToDepth", [x], attributes, sizes=sizes, dtype=x.dtype)
    if _channel_is_outermost(operation):
        order = np.arange(c * block**2).reshape(block**2, c).T.ravel()
        result = keras.ops.take(result, order, axis=1)
    return as_given(tracer, result, operation.data_format)
