"""Pictures in another size: ops.image.resize, scale_and_translate, up-sampling."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.planes import (
    as_float,
    rounded,
    spatial_axes,
    squeezed,
    unsqueezed,
)
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.sizes import is_dynamic
from keras_seqattn.onnx.symbol import Symbol

# The kernels by the words of Keras, with the names that scale_and_translate also takes.
_WORDS = {
    "linear": "linear", "bilinear": "linear", "trilinear": "linear", "triangle": "linear",
    "cubic": "cubic", "bicubic": "cubic", "tricubic": "cubic", "lanczos3": "lanczos3",
    "lanczos5": "lanczos5",
}  # fmt: skip
# ResizeBicubic of TensorFlow reads its weights from a table with this many steps for a pixel.
_TABLE = 1024
# The places on each side that the cubic kernel reaches.
_REACH = 2
# A sum of weights below this counts as 0, as in Keras.
_NO_WEIGHT = 1000 * float(np.finfo(np.float32).eps)


@lowers("Resize")
def resize_operation(tracer, operation, images):
    axes = spatial_axes(images, operation.data_format)
    x = _to_aspect_ratio(tracer, operation, images, axes)
    word = operation.interpolation
    if word == "nearest":
        for axis, size in zip(axes, operation.size, strict=True):
            x = nearest(tracer, x, axis, size)
        return cast(tracer, x, images.dtype)
    x = resized(tracer, as_float(tracer, x), operation.size, word, operation)
    return rounded(tracer, x, images.dtype)


def resized(tracer, x, size, word, operation):
    """Floats in another size.

    Args:
        x: float pictures.
        size: height and width, ints or scalar Symbols.
        word: the interpolation, but not "nearest".
        operation: has the attributes antialias and data_format.
    """
    if word not in _WORDS:
        raise ExportError(
            f"{tracer.where()}: resizing with interpolation={word!r} cannot be exported; use "
            "'nearest', 'bilinear', 'bicubic', 'lanczos3' or 'lanczos5'"
        )
    kernel = _WORDS[word]
    axes = spatial_axes(x, operation.data_format)
    if kernel == "linear" or (kernel == "cubic" and operation.antialias):
        return _resize_node(tracer, x, axes, size, kernel, operation.antialias)
    if kernel == "cubic" and keras.backend.backend() == "torch":
        return _repeating_border(tracer, x, axes, size)
    table = _TABLE if kernel == "cubic" and keras.backend.backend() == "tensorflow" else None
    return _by_matrices(tracer, x, axes, size, kernel, operation.antialias, table=table)


def _resize_node(tracer, x, axes, size, kernel, antialias):
    """One Resize with the sizes of all axes.

    onnxruntime moves transpositions through this node. With the attribute `axes`, or if the cubic
    kernel shrinks a picture without antialiasing, the result would not load or run.
    """
    if len(x.sizes) == 3:
        batch = unsqueezed(tracer, x, 0)
        axes = [axis + 1 for axis in axes]
        return squeezed(tracer, _resize_node(tracer, batch, axes, size, kernel, antialias), 0)
    entries = [tracer.size(x, axis) for axis in range(len(x.sizes))]
    for axis, entry in zip(axes, size, strict=True):
        entries[axis] = entry
    sizes = tracer.numbers(entries, "the size of a picture")
    attributes = {"mode": kernel, "coordinate_transformation_mode": "half_pixel"}
    if antialias:
        # With this, the operator widens the kernel as Keras does.
        attributes |= {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}
    inputs = [x, None, None, tracer.vector(entries)]
    return tracer.emit("Resize", inputs, attributes, sizes=sizes, dtype=x.dtype)


def _repeating_border(tracer, x, axes, size):
    """The cubic kernel of PyTorch, with a = -3/4. It repeats the border of the picture."""
    old = [tracer.size(x, axis) for axis in axes]
    widths = [(_REACH, _REACH) if axis in axes else (0, 0) for axis in range(len(x.sizes))]
    x = ops.pad(x, widths, mode="edge")
    return _by_matrices(tracer, x, axes, size, "cubic_repeating", False, old=old)


def nearest(tracer, x, axis, size):
    """Nearest neighbours along one axis, as a Gather.

    The operator Resize would round the places of ties in another way than Keras.
    """
    (number,) = tracer.numbers([size], "the size of a picture")
    old = x.sizes[axis]
    if number == old:
        return x
    if is_dynamic(number) or is_dynamic(old):
        places = _nearest_places(tracer, tracer.size(x, axis), size)
    else:
        half = np.arange(number, dtype=np.float32) + np.float32(0.5)
        places = np.floor(_scaled(half, np.float32(old), np.float32(number))).astype(np.int64)
        places = tracer.constant(np.minimum(places, old - 1))
    sizes = (*x.sizes[:axis], number, *x.sizes[axis + 1 :])
    return tracer.emit("Gather", [x, places], {"axis": axis}, sizes=sizes, dtype=x.dtype)


def _nearest_places(tracer, old, size):
    half = ops.cast(ops.arange(size), "float32") + 0.5
    places = ops.floor(_scaled(half, ops.cast(old, "float32"), ops.cast(size, "float32")))
    return tracer.symbol(ops.minimum(ops.cast(places, "int32"), old - 1))


def _scaled(places, old, new):
    """`places * old / new`, with the roundings of the backend."""
    return places * old / new if keras.backend.backend() == "jax" else places * (old / new)


# ---- the part of a picture, or the border around it, that keeps the aspect ratio


def _to_aspect_ratio(tracer, operation, x, axes):
    if not (operation.crop_to_aspect_ratio or operation.pad_to_aspect_ratio):
        return x
    height, width = (tracer.size(x, axis) for axis in axes)
    across, down = (tracer.numbers(operation.size, "the size of a picture")[i] for i in (1, 0))
    if operation.crop_to_aspect_ratio:
        box = aspect_box(height, width, down, across)
        return cropped(x, axes, box)
    x = as_float(tracer, x)
    wanted = larger(height, width * down // across), larger(width, height * across // down)
    border = [(a - n) // 2 for a, n in zip(wanted, (height, width), strict=True)]
    widths = [(0, 0)] * len(x.sizes)
    for axis, n in zip(axes, border, strict=True):
        widths[axis] = (n, n)
    return ops.pad(x, widths, constant_values=float(operation.fill_value))


def aspect_box(height, width, down, across):
    """((start, length), (start, length)) of the largest middle part with the ratio across:down."""
    box = []
    for size, length in (
        (height, width * down // across),
        (width, height * across // down),
    ):
        length = larger(smaller(size, length), 1)
        box.append(((size - length) // 2, length))
    return tuple(box)


def cropped(x, axes, box):
    """The part of `x` that begins at a start and has a length, for each of the axes."""
    key = [slice(None)] * len(x.sizes)
    for axis, (start, length) in zip(axes, box, strict=True):
        key[axis] = slice(start, start + length)
    return x[tuple(key)]


def smaller(a, b):
    """The minimum of two sizes, ints or scalar Symbols."""
    return _chosen(min, ops.minimum, a, b)


def larger(a, b):
    """The maximum of two sizes, ints or scalar Symbols."""
    return _chosen(max, ops.maximum, a, b)


def _chosen(of_ints, of_symbols, a, b):
    return (of_symbols if isinstance(a, Symbol) or isinstance(b, Symbol) else of_ints)(a, b)


# ---- resampling as products with matrices


def _by_matrices(tracer, x, axes, size, kernel, antialias, table=None, old=None):
    """The axes resampled one after the other.

    Args:
        x, axes, size, kernel, antialias: as before.
        table: as for `_weights`.
        old: the sizes without the border of `_REACH` places, if there is one.
    """
    numbers = tracer.numbers(size, "the size of a picture")
    border = 0 if old is None else _REACH
    old = [tracer.size(x, axis) for axis in axes] if old is None else old
    for axis, before, entry, number in zip(axes, old, size, numbers, strict=True):
        if isinstance(before, Symbol) or is_dynamic(number):
            xp, inverse = ops, ops.cast(before, "float32") / ops.cast(entry, "float32")
        else:
            xp, entry = np, number
            inverse = np.float32(before) / np.float32(number)
        width = before + 2 * border
        matrix = _weights(xp, width, entry, inverse, -border, kernel, antialias, table)
        x = _multiplied(tracer, x, axis, tracer.symbol(matrix, x.dtype), number)
    return x


def _weights(xp, old, new, inverse, start, kernel, antialias, table=None):
    """float (old, new), the weight of each old place in each new one.

    Args:
        xp: numpy if everything is known, else keras.ops.
        old, new: the two sizes.
        inverse: old places for each new one.
        start: the first old place.
        kernel: a kernel of `_KERNELS`.
        antialias: whether the kernel is widened if the picture shrinks.
        table: None, or the steps for a place to which the distances are rounded.
    """
    places = (_counted(xp, new) + 0.5) * inverse - start - 0.5
    if table is not None:
        whole = xp.floor(places)
        places = whole + xp.round((places - whole) * table) / table
    distances = xp.abs(places[None, :] - _counted(xp, old)[:, None])
    if antialias:
        distances = distances / xp.maximum(inverse, np.float32(1.0))
    weights = _KERNELS[kernel](xp, distances)
    total = xp.sum(weights, axis=0, keepdims=True)
    counts = xp.abs(total) > _NO_WEIGHT
    weights = xp.where(counts, weights / xp.where(counts, total, 1.0), 0.0)
    inside = xp.logical_and(places >= -0.5, places <= _float(xp, old) - 0.5)
    return xp.where(inside[None, :], weights, 0.0)


def _counted(xp, size):
    return xp.arange(size, dtype=np.float32) if xp is np else ops.cast(ops.arange(size), "float32")


def _float(xp, size):
    return np.float32(size) if xp is np else ops.cast(size, "float32")


def _linear(xp, x):
    return xp.maximum(1.0 - x, 0.0)


def _cubic(a):
    """The cubic kernel of Keys."""

    def kernel(xp, x):
        near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
        return xp.where(x >= 2.0, 0.0, xp.where(x >= 1.0, far, near))

    return kernel


def _lanczos(radius):
    def kernel(xp, x):
        wave = radius * xp.sin(math.pi * x) * xp.sin(math.pi / radius * x)
        inner = x > 1e-3
        value = xp.where(inner, wave / (math.pi**2 * xp.where(inner, x * x, 1.0)), 1.0)
        return xp.where(x > radius, 0.0, value)

    return kernel


_KERNELS = {
    "linear": _linear,
    "cubic": _cubic(-0.5),
    "cubic_repeating": _cubic(-0.75),
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
}


def _multiplied(tracer, x, axis, matrix, new):
    """`x` with an axis of n entries multiplied by a matrix (n, new)."""
    sizes = (*x.sizes[:axis], new, *x.sizes[axis + 1 :])
    if axis == len(sizes) - 1:
        return tracer.emit("MatMul", [x, matrix], sizes=sizes, dtype=x.dtype)
    after = math.prod(x.sizes[axis + 1 :])
    rows = reshape(tracer, x, (*x.sizes[: axis + 1], after))
    across = transpose(tracer, matrix, (1, 0))
    merged = (*sizes[: axis + 1], after)
    rows = tracer.emit("MatMul", [across, rows], sizes=merged, dtype=x.dtype)
    return reshape(tracer, rows, sizes)


@lowers("ScaleAndTranslate")
def scale_and_translate(tracer, operation, images, output_shape, scale, translation):
    x, dtype = as_float(tracer, images), images.dtype
    numbers = tracer.numbers(output_shape, "the size of a picture")
    known = not isinstance(scale, Symbol) and not isinstance(translation, Symbol)
    read = keras.ops.convert_to_numpy if known else lambda given: ops.cast(given, "float32")
    scale, translation = read(scale), read(translation)
    for i, axis in enumerate(operation.spatial_dims):
        axis %= len(x.sizes)
        static = known and not is_dynamic(x.sizes[axis]) and not is_dynamic(numbers[axis])
        inverse = 1.0 / scale[i]
        kernel = _WORDS[operation.method], operation.antialias
        start = translation[i] * inverse
        old = tracer.size(x, axis)
        matrix = _weights(np if static else ops, old, output_shape[axis], inverse, start, *kernel)
        x = _multiplied(tracer, x, axis, tracer.symbol(matrix, x.dtype), numbers[axis])
    if "int" not in dtype or keras.backend.backend() == "jax":
        return x
    low, high = ops.cast(ops.min(images), x.dtype), ops.cast(ops.max(images), x.dtype)
    return cast(tracer, ops.minimum(ops.maximum(ops.round(x), low), high), dtype)


# ---- layers


@lowers(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D)
def up_sampling(tracer, layer, inputs):
    """Whole factors of sizes: each entry is repeated, in one node."""
    factors = np.atleast_1d(layer.size).tolist()
    layout = getattr(layer, "data_format", "channels_last")
    axes = spatial_axes(inputs, layout, len(factors))
    word = getattr(layer, "interpolation", "nearest")
    sizes = list(inputs.sizes)
    for axis, factor in zip(axes, factors, strict=True):
        sizes[axis] *= factor
    if word != "nearest":
        wanted = [tracer.size(inputs, axis) * n for axis, n in zip(axes, factors, strict=True)]
        picture = _Picture(layout)
        x = resized(tracer, as_float(tracer, inputs), wanted, word, picture)
        return rounded(tracer, x, inputs.dtype)
    if "float" not in inputs.dtype:
        # onnxruntime resizes no int64, and float32 does not hold every integer.
        for axis, factor in zip(axes, factors, strict=True):
            inputs = ops.repeat(inputs, factor, axis=axis)
        return inputs
    scales = np.ones(len(sizes), np.float32)
    scales[axes] = factors
    attributes = {"mode": "nearest", "nearest_mode": "floor"}
    attributes["coordinate_transformation_mode"] = "asymmetric"
    given = [inputs, None, tracer.constant(scales)]
    return tracer.emit("Resize", given, attributes, sizes=sizes, dtype=inputs.dtype)


class _Picture:
    """The settings with which UpSampling2D resizes."""

    antialias = False

    def __init__(self, data_format):
        self.data_format = data_format
