"""Lowerings of keras.ops.image: colours, borders, filters, similarity. See also `resampling`,
`sampling` and `windows`."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.planes import (
    as_float,
    filtered,
    from_planes,
    spatial_axes,
    to_planes,
)
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.resampling import cropped
from keras_seqattn.onnx.symbol import Symbol

_GREY = (0.2989, 0.5870, 0.1140)


def _channel_axis(operation):
    return -1 if operation.data_format == "channels_last" else -3


# ---- colours


@lowers("RGBToGrayscale")
def rgb_to_grayscale(tracer, operation, images):
    axis = _channel_axis(operation)
    if images.sizes[axis] == 1:
        return images
    red, green, blue = ops.split(as_float(tracer, images), 3, axis=axis)
    grey = red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]
    # Keras cuts the fraction of integers off.
    return cast(tracer, grey, images.dtype)


@lowers("RGBToHSV")
def rgb_to_hsv(tracer, operation, images):
    axis = _channel_axis(operation)
    if keras.backend.backend() != "tensorflow":
        images = ops.where(ops.abs(images) < _epsilon(images.dtype), 0.0, images)
    red, green, blue = ops.split(images, 3, axis=axis)
    value = ops.max(images, axis=axis, keepdims=True)
    spread = value - ops.min(images, axis=axis, keepdims=True)
    coloured = spread > 0
    saturation = ops.where(value > 0, spread / ops.where(value > 0, value, 1.0), 0.0)
    unit = 1.0 / (6.0 * ops.where(coloured, spread, 1.0))
    hue = ops.where(
        ops.equal(value, green),
        unit * (blue - red) + 2.0 / 6.0,
        unit * (red - green) + 4.0 / 6.0,
    )
    hue = ops.where(ops.equal(value, red), unit * (green - blue), hue)
    hue = ops.where(coloured, ops.where(hue < 0, hue + 1.0, hue), 0.0)
    return ops.concatenate([hue, saturation, value], axis=axis)


def _epsilon(dtype):
    # NumPy has no bfloat16.
    return 2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps)


@lowers("HSVToRGB")
def hsv_to_rgb(tracer, operation, images):
    axis = _channel_axis(operation)
    hue, saturation, value = ops.split(images, 3, axis=axis)
    # TensorFlow takes hues outside of 0 to 1 as they are, the other backends take them modulo 1.
    if keras.backend.backend() != "tensorflow":
        hue = hue - ops.floor(hue)
    hue = hue * 6.0
    ramps = (
        ops.abs(hue - 3.0) - 1.0,
        2.0 - ops.abs(hue - 2.0),
        2.0 - ops.abs(hue - 4.0),
    )
    ramp = ops.clip(ops.concatenate(ramps, axis=axis), 0.0, 1.0)
    return value * (1.0 - saturation + saturation * ramp)


# ---- borders


def _box(operation, low, high, length, size, sign):
    """(before, after) of an axis, of which two of three numbers are given.

    Args:
        operation: has the attributes `low`, `high`, `length`, of which one is None.
        size: the size of the axis, an int or a scalar Symbol.
        sign: 1 for a border that is added, -1 for one that is cut off.
    """
    before, after, target = (getattr(operation, name) for name in (low, high, length))
    if before is None:
        before = (target - size) * sign - after
    if after is None:
        after = (target - size) * sign - before
    return before, after


def _boxes(tracer, operation, images, word, sign):
    axes = spatial_axes(images, operation.data_format)
    sides = ("top", "bottom", "height"), ("left", "right", "width")
    for axis, (low, high, length) in zip(axes, sides, strict=True):
        names = f"{low}_{word}", f"{high}_{word}", f"target_{length}"
        yield axis, _box(operation, *names, tracer.size(images, axis), sign)


@lowers("PadImages")
def pad_images(tracer, operation, images):
    widths = [(0, 0)] * len(images.sizes)
    for axis, width in _boxes(tracer, operation, images, "padding", 1):
        if any(isinstance(n, int) and n < 0 for n in width):
            raise ExportError(
                f"{tracer.where()}: the target size of ops.image.pad_images is smaller than the "
                "picture"
            )
        widths[axis] = width
    return ops.pad(images, widths)


@lowers("CropImages")
def crop_images(tracer, operation, images):
    box, axes = [], []
    for axis, (before, after) in _boxes(tracer, operation, images, "cropping", -1):
        box.append((before, tracer.size(images, axis) - before - after))
        axes.append(axis)
    return cropped(images, axes, box)


# ---- filters


@lowers("GaussianBlur")
def gaussian_blur(tracer, operation, images):
    size = _numbers(tracer, operation.kernel_size, "kernel_size")
    sigma = _numbers(tracer, operation.sigma, "sigma")
    across, down = (_gaussian(int(n), float(s)) for n, s in zip(size, sigma, strict=True))
    kernel = np.outer(down, across)
    backend = keras.backend.backend()
    if backend != "jax":
        # A kernel that is not square is read in this shape.
        kernel = kernel.reshape(int(size[0]), int(size[1]))
    if backend == "torch":
        pads = [int(size[0]) // 2] * 4
    else:
        pads = [(n - 1) // 2 for n in kernel.shape] + [n // 2 for n in kernel.shape]
    return _filter(tracer, images, operation.data_format, kernel[None], pads)


def _numbers(tracer, given, what):
    if any(isinstance(n, Symbol) for n in (given, *keras.tree.flatten(given))):
        raise ExportError(
            f"{tracer.where()}: {what} of ops.image.gaussian_blur depends on the inputs; give "
            "numbers"
        )
    return np.asarray(keras.ops.convert_to_numpy(given)).tolist()


def _gaussian(size, sigma):
    places = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (places / sigma) ** 2)
    return weights / weights.sum()


def _filter(tracer, images, data_format, filters, pads):
    planes = to_planes(tracer, images, data_format)
    planes = filtered(tracer, planes, filters, pads)
    return from_planes(tracer, planes, data_format, len(images.sizes))


@lowers("SobelEdges")
def sobel_edges(tracer, operation, images):
    """The derivatives along the height and the width, in a new last axis."""
    planes = to_planes(tracer, images, operation.data_format)
    pads = [1] * 4
    if keras.backend.backend() == "tensorflow":
        planes = ops.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
        pads = [0] * 4
    down = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
    edges = filtered(tracer, planes, np.stack([down, down.T]), pads)
    batch, _, *space = edges.sizes
    shape = [tracer.size(edges, axis) for axis in range(4)]
    edges = ops.reshape(edges, (shape[0], images.sizes[_channel_axis(operation)], 2, *shape[2:]))
    edges = ops.transpose(edges, (0, 1, 3, 4, 2))
    return from_planes(tracer, edges, operation.data_format, len(images.sizes))


# ---- similarity


@lowers("SSIM")
def ssim(tracer, operation, image1, image2):
    pictures = [as_float(tracer, image) for image in (image1, image2)]
    first, second = (to_planes(tracer, x, operation.data_format) for x in pictures)
    size = operation.filter_size
    kernel = np.outer(*[_gaussian(size, operation.filter_sigma)] * 2)[None]
    products = first, second, first * first, second * second, first * second
    means = filtered(tracer, ops.concatenate(products, axis=1), kernel, [0] * 4)
    mean1, mean2, square1, square2, both = ops.split(means, 5, axis=1)
    small1, small2 = ((k * operation.max_val) ** 2 for k in (operation.k1, operation.k2))
    product, squares = mean1 * mean2, mean1 * mean1 + mean2 * mean2
    above = (2.0 * product + small1) * (2.0 * (both - product) + small2)
    below = (squares + small1) * (square1 + square2 - squares + small2)
    result = ops.mean(above / below, axis=(1, 2, 3))
    if len(image1.sizes) == 3:
        result = ops.squeeze(result, axis=0)
    return cast(tracer, result, image1.dtype)
