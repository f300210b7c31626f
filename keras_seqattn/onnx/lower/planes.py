"""Pictures as batches of planes (b, c, h, w), as the filters of ONNX take them."""

import numpy as np

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.shaping import transpose


def spatial_axes(x, data_format, count=2):
    """list of the axes of space, from the end: the last ones, or those before the channels."""
    last = -1 if data_format == "channels_last" else 0
    return [len(x.sizes) + last - count + i for i in range(count)]


def to_planes(tracer, x, data_format):
    """A picture or a batch of pictures as (b, c, h, w)."""
    if len(x.sizes) == 3:
        x = unsqueezed(tracer, x, 0)
    return transpose(tracer, x, (0, 3, 1, 2)) if data_format == "channels_last" else x


def from_planes(tracer, x, data_format, rank):
    """The planes (b, c, h, w, ...) in the layout of the pictures. `rank` 3: without the batch."""
    if data_format == "channels_last":
        x = transpose(tracer, x, (0, 2, 3, 1, *range(4, len(x.sizes))))
    return squeezed(tracer, x, 0) if rank == 3 else x


def unsqueezed(tracer, x, axis):
    """`x` with a new axis of size 1 at the non-negative `axis`."""
    sizes = (*x.sizes[:axis], 1, *x.sizes[axis:])
    axes = tracer.constant(np.array([axis]))
    return tracer.emit("Unsqueeze", [x, axes], sizes=sizes, dtype=x.dtype)


def squeezed(tracer, x, axis):
    """`x` without its axis of size 1 at the non-negative `axis`."""
    sizes = (*x.sizes[:axis], *x.sizes[axis + 1 :])
    axes = tracer.constant(np.array([axis]))
    return tracer.emit("Squeeze", [x, axes], sizes=sizes, dtype=x.dtype)


def filtered(tracer, planes, filters, pads):
    """Each plane with each of the same filters, as one Conv.

    Args:
        planes: float (b, c, h, w) with a fixed c.
        filters: array (n, kh, kw).
        pads: zeros around a plane: top, left, bottom, right.

    Returns:
        float (b, c * n, h', w'). The filters of a channel are neighbours.
    """
    count, *kernel = filters.shape
    batch, channels, *space = planes.sizes
    weight = np.tile(filters[:, None], (channels, 1, 1, 1))
    around = zip(space, kernel, pads[:2], pads[2:], strict=True)
    sizes = (batch, channels * count, *(n + a + b - k + 1 for n, k, a, b in around))
    attributes = {"group": channels, "pads": list(pads)}
    inputs = [planes, tracer.constant(weight, planes.dtype)]
    return tracer.emit("Conv", inputs, attributes, sizes=sizes, dtype=planes.dtype)


def rounded(tracer, x, dtype):
    """Floats as an integer dtype: to the nearest number, ties to even ones, inside the dtype."""
    if "int" not in dtype:
        return cast(tracer, x, dtype)
    x = tracer.emit("Round", [x], sizes=x.sizes, dtype=x.dtype)
    limits = np.iinfo(dtype)
    # The limits of wider integers are not exact in float32.
    if limits.bits < 32:
        bounds = [tracer.constant(float(n), x.dtype) for n in (limits.min, limits.max)]
        x = tracer.emit("Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)
    return cast(tracer, x, dtype)


def as_float(tracer, x):
    """Floats as they are, other types as float32."""
    return x if "float" in x.dtype else cast(tracer, x, "float32")
