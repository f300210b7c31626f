"""Values of tensors between their places: map_coordinates, affine and perspective transforms."""

import dataclasses
import itertools

import keras
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.planes import as_float, squeezed, unsqueezed
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.resampling import larger
from keras_seqattn.onnx.lower.shaping import transpose
from keras_seqattn.onnx.symbol import Symbol

_ORDERS = {"nearest": 0, "bilinear": 1}


@dataclasses.dataclass(frozen=True)
class _Setting:
    """How values are read between places.

    Attributes:
        order: 0 for the nearest place, 1 for a linear interpolation.
        fill_mode, fill_value: what is outside of the tensor.
        to_even: whether ties are rounded to even numbers, or away from zero.
        truncates: whether fractions of integers are cut off, or rounded.
    """

    order: int
    fill_mode: str
    fill_value: float
    to_even: bool
    truncates: bool = False

    def rounded(self, x):
        """`x` at the nearest whole number."""
        return ops.round(x) if self.to_even else ops.sign(x) * ops.floor(ops.abs(x) + 0.5)


@lowers("MapCoordinates")
def map_coordinates(tracer, operation, inputs, coordinates):
    inputs = tracer.symbol(inputs)
    if not isinstance(coordinates, (list, tuple)):
        coordinates = tracer.symbol(coordinates)
    rank, backend = len(inputs.sizes), keras.backend.backend()
    sizes = [tracer.size(inputs, axis) for axis in range(rank)]
    fixers = _FIXERS_TENSORFLOW if backend == "tensorflow" else _FIXERS
    mode = operation.fill_mode
    setting = _Setting(operation.order, mode, operation.fill_value, backend != "jax")
    places = [coordinates[axis] for axis in range(rank)]

    def read(indices):
        where = tracer.symbol(ops.stack(indices, axis=-1))
        sizes = where.sizes[:-1]
        return tracer.emit("GatherND", [inputs, where], sizes=sizes, dtype=inputs.dtype)

    nodes = _nodes(setting, places, sizes, fixers[mode])
    return _interpolated(tracer, setting, nodes, read, inputs.dtype)


def _nodes(setting, places, sizes, fixer):
    """For each axis, the list of (index, whether it is inside, weight) around each place.

    Args:
        places: for each axis, the coordinates.
        sizes: for each axis, its size, an int or a scalar Symbol.
        fixer: function of indices and a size -> indices that are inside.
    """
    found = []
    for place, size in zip(places, sizes, strict=True):
        nodes = []
        for index, weight in _neighbours(setting, place):
            inside = None
            if setting.fill_mode == "constant":
                inside = ops.logical_and(index >= 0, index < size)
            nodes.append((fixer(index, size), inside, weight))
        found.append(nodes)
    return found


def _neighbours(setting, place):
    """list of (index, weight or None for 1) of the places that count."""
    if "int" in place.dtype:
        return [(place, None)]
    if setting.order == 0:
        return [(ops.cast(setting.rounded(place), "int32"), None)]
    lower = ops.floor(place)
    index, upper = ops.cast(lower, "int32"), place - lower
    return [(index, 1.0 - upper), (index + 1, upper)]


def _interpolated(tracer, setting, nodes, read, dtype, channels=False):
    """The sum of the values at all neighbours, times their weights.

    Args:
        setting: `_Setting`.
        nodes: as `_nodes` gives them.
        read: function of a list of indices -> values.
        dtype: of the result.
        channels: whether the values have one more axis than the coordinates.
    """
    parts = []
    for corner in itertools.product(*nodes):
        indices, inside, weights = zip(*corner, strict=True)
        value = read(list(indices))
        if inside[0] is not None:
            everywhere = _all(ops.logical_and, inside, channels)
            value = ops.where(everywhere, value, ops.cast(setting.fill_value, value.dtype))
        weights = [w for w in weights if w is not None]
        if weights:
            value = as_float(tracer, value) * _all(ops.multiply, weights, channels)
        parts.append(value)
    result = sum(parts[1:], parts[0])
    if "int" in dtype and "float" in result.dtype:
        result = result if setting.truncates else setting.rounded(result)
    return cast(tracer, result, dtype)


def _all(combine, parts, channels):
    total = parts[0]
    for part in parts[1:]:
        total = combine(total, part)
    return ops.expand_dims(total, -1) if channels else total


# ---- indices outside of a tensor


def _clip(index, size):
    return ops.maximum(ops.minimum(index, size - 1), 0)


def _mirror(index, size):
    last = size - 1
    return ops.abs((index + last) % (2 * last) - last)


def _reflect(index, size):
    return (_mirror(2 * index + 1, 2 * size + 1) - 1) // 2


_FIXERS = {
    "constant": _clip,
    "nearest": _clip,
    "wrap": lambda index, size: index % size,
    "mirror": _mirror,
    "reflect": _reflect,
}


def _folded(shift):
    """What TensorFlow's map_coordinates does with "mirror" (0) and "reflect" (1)."""

    def fixer(index, size):
        index = ops.abs(index) % (2 * size)
        return ops.where(index < size, index, 2 * size - index - shift)

    return fixer


_FIXERS_TENSORFLOW = {**_FIXERS, "mirror": _folded(0), "reflect": _folded(1)}


# ---- transforms of pictures


@lowers("AffineTransform")
def affine_transform(tracer, operation, images, transform):
    """The last two numbers of a transform must be 0. Only TensorFlow gives others a meaning."""
    transform = ops.cast(tracer.symbol(transform), "float32")
    if len(transform.sizes) == 1:
        transform = ops.expand_dims(transform, 0)
    is_projective = keras.backend.backend() == "tensorflow"
    return _transformed(tracer, operation, images, transform, operation.fill_mode, is_projective)


@lowers("PerspectiveTransform")
def perspective_transform(tracer, operation, images, start_points, end_points):
    points = [start_points, end_points]
    if not any(isinstance(p, Symbol) for p in points):
        points = [keras.ops.convert_to_numpy(p).astype(np.float64) for p in points]
        transform = tracer.constant(_homography(np, *points), "float32")
    else:
        points = [ops.cast(tracer.symbol(p), "float32") for p in points]
        transform = _homography(ops, *points)
    return _transformed(tracer, operation, images, transform, "constant", True)


def _homography(xp, start, end):
    """(b, 8), the projective transforms that map end points to start points, both (b, 4, 2)."""
    if len(start.shape) == 2:
        start, end = start[None], end[None]
    x, y, u, v = end[..., 0], end[..., 1], start[..., 0], start[..., 1]
    zero, one = xp.zeros_like(x), xp.ones_like(x)
    rows = [
        xp.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1),
        xp.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1),
    ]
    target = xp.expand_dims(xp.concatenate([u, v], axis=-1), -1)
    solve = np.linalg.solve if xp is np else ops.solve
    return solve(xp.concatenate(rows, axis=1), target)[..., 0]


def _transformed(tracer, operation, images, transform, fill_mode, is_projective):
    """Each picture, read at the transform of each of its places.

    Args:
        operation: has the attributes interpolation, fill_value and data_format.
        images: a picture or a batch of pictures.
        transform: float (b, 8) or (1, 8), the first entries of matrices that map (x, y, 1).
        fill_mode: what is outside of a picture.
        is_projective: whether the last row of the matrices counts.
    """
    rank, first = len(images.sizes), operation.data_format == "channels_first"
    x = unsqueezed(tracer, images, 0) if rank == 3 else images
    x = transpose(tracer, x, (0, 2, 3, 1)) if first else x
    batch, height, width, channels = (tracer.size(x, axis) for axis in range(4))
    flat = ops.reshape(x, (batch * height * width, channels))
    offset = (ops.arange(batch) * (height * width))[:, None, None]

    def read(indices):
        where = tracer.symbol(indices[0] * width + indices[1] + offset)
        sizes = (*where.sizes, x.sizes[-1])
        return tracer.emit("Gather", [flat, where], {"axis": 0}, sizes=sizes, dtype=x.dtype)

    fixer = _FIXERS[fill_mode]
    places = _places(height, width, transform, is_projective)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        outside = _OUTSIDE_TENSORFLOW[fill_mode]
        places = [outside(p, n) for p, n in zip(places, (height, width), strict=True)]
        fixer = _clip
    setting = _Setting(
        _ORDERS[operation.interpolation],
        fill_mode,
        operation.fill_value,
        to_even=backend == "torch",
        truncates=backend == "tensorflow",
    )
    nodes = _nodes(setting, places, [height, width], fixer)
    result = _interpolated(tracer, setting, nodes, read, images.dtype, channels=True)
    result = transpose(tracer, result, (0, 3, 1, 2)) if first else result
    return squeezed(tracer, result, 0) if rank == 3 else result


def _places(height, width, transform, is_projective):
    """The rows and the columns, float (b, h, w), that are read for each place of a picture."""
    y = ops.cast(ops.arange(height), "float32")[None, :, None]
    x = ops.cast(ops.arange(width), "float32")[None, None, :]
    a = [transform[:, i : i + 1, None] for i in range(8)]
    down, across = a[3] * x + a[4] * y + a[5], a[0] * x + a[1] * y + a[2]
    if not is_projective:
        return [down, across]
    scale = a[6] * x + a[7] * y + 1.0
    return [down / scale, across / scale]


def _reflected(place, size):
    size = ops.cast(size, "float32")
    place = place - ops.floor(place / (2.0 * size)) * (2.0 * size)
    return _within(ops.where(place >= size, 2.0 * size - 1.0 - place, place), size)


def _wrapped(place, size):
    last, size = ops.cast(larger(size - 1, 1), "float32"), ops.cast(size, "float32")
    below = place + size * (ops.floor(-place / last) + 1.0)
    above = place - size * ops.floor(place / last)
    place = ops.where(place < 0.0, below, ops.where(place > size - 1.0, above, place))
    return _within(place, size)


def _within(place, size):
    return ops.clip(ops.minimum(place, ops.cast(size, "float32") - 1.0), 0.0, float("inf"))


# ImageProjectiveTransform of TensorFlow moves places into the picture before it interpolates.
_OUTSIDE_TENSORFLOW = {
    "constant": lambda place, size: place,
    "nearest": _within,
    "reflect": _reflected,
    "wrap": _wrapped,
}
