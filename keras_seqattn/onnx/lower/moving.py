"""Lowerings that repeat, pad, turn or cut away elements along axes."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.indexing import gather
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, unsqueeze
from keras_seqattn.onnx.sizes import is_dynamic
from keras_seqattn.onnx.symbol import Symbol


@lowers("Tile")
def tile(tracer, operation, x):
    x, repeats = tracer.symbol(x), operation.repeats
    repeats = [repeats] if isinstance(repeats, (int, np.integer)) else list(repeats)
    repeats = [1] * (len(x.sizes) - len(repeats)) + repeats
    x = reshape(tracer, x, [1] * (len(repeats) - len(x.sizes)) + list(x.sizes))
    numbers = tracer.numbers(repeats, "a count of ops.tile")
    sizes = [size * n for size, n in zip(x.sizes, numbers, strict=True)]
    return tracer.emit("Tile", [x, tracer.vector(repeats)], sizes=sizes, dtype=x.dtype)


@lowers("Repeat")
def repeat(tracer, operation, x):
    """Repeat elements along an axis: one count for all, or a count for each."""
    x, count = tracer.symbol(x), operation.repeats
    axis = operation.axis
    if axis is None:
        x, axis = reshape(tracer, x, (math.prod(x.sizes),)), 0
    axis %= len(x.sizes)
    if isinstance(count, Symbol) and count.sizes and count.sizes[0] != 1:
        return gather(tracer, x, _places(tracer, count), axis)
    if isinstance(count, (list, tuple)) and any(isinstance(n, Symbol) for n in count):
        return gather(tracer, x, _places(tracer, tracer.vector(count)), axis)
    if not isinstance(count, Symbol):
        count = np.asarray(ops.convert_to_numpy(count))
        if count.size > 1:
            places = np.repeat(np.arange(count.size), count)
            return gather(tracer, x, tracer.constant(places), axis)
        count = int(count.reshape(()))
    elif count.sizes:
        count = ops.reshape(count, ())
    return _repeated(tracer, x, count, axis)


def _repeated(tracer, x, count, axis):
    """Each element that many times: a new axis of that length is merged with the axis before."""
    (number,) = tracer.numbers([count], "the count of ops.repeat")
    wide = (*x.sizes[: axis + 1], number, *x.sizes[axis + 1 :])
    counts = tracer.vector([count if i == axis + 1 else 1 for i in range(len(wide))])
    inputs = [unsqueeze(tracer, x, axis + 1), counts]
    expanded = tracer.emit("Expand", inputs, sizes=wide, dtype=x.dtype)
    sizes = (*x.sizes[:axis], x.sizes[axis] * number, *x.sizes[axis + 1 :])
    return reshape(tracer, expanded, sizes)


def _places(tracer, counts):
    """int64 (sum of counts,), 0 as often as the first count says, 1 as the second, ..."""
    ends = ops.cumsum(counts, axis=0)
    # A place in the result belongs to the first element that ends after it.
    result = ops.arange(ops.sum(counts))
    return ops.searchsorted(ends, result, side="right")


# Keras's modes that ONNX has, on each backend. PyTorch's "symmetric" repeats the border.
_MODES = {
    "torch": {"reflect": "reflect", "symmetric": "edge", "replicate": "edge", "circular": "wrap"},
    "tensorflow": {"reflect": "reflect"},
    "jax": {"reflect": "reflect", "wrap": "wrap"},
}


@lowers("Pad")
def pad(tracer, operation, x, constant_values=None):
    x, backend = tracer.symbol(x), keras.backend.backend()
    mode = operation.mode.lower()
    widths = list(operation.pad_width)
    if len(widths) == 1 and backend == "torch":
        # There, Keras pads only the last axis if there is one pair.
        widths = [(0, 0)] * (len(x.sizes) - 1) + widths
    elif len(widths) == 1:
        widths *= len(x.sizes)
    if mode == "symmetric" and backend != "torch":
        return _mirrored(tracer, x, widths)
    # Other lowerings pad with the edge, also on backends where Keras cannot.
    onnx_mode = {"constant": "constant", "edge": "edge", **_MODES.get(backend, {})}.get(mode)
    if onnx_mode is None:
        raise ExportError(
            f"{tracer.where()}: ops.pad with mode {mode!r} cannot be exported; use "
            "ops.concatenate with what should be at the border"
        )
    before, after = (
        tracer.numbers(side, "a width of ops.pad") for side in zip(*widths, strict=True)
    )
    sizes = [n + a + b for n, a, b in zip(x.sizes, before, after, strict=True)]
    pads = tracer.vector([a for a, _ in widths] + [b for _, b in widths])
    inputs = [x, pads]
    if mode == "constant" and constant_values is not None:
        content = cast(tracer, tracer.symbol(constant_values, x.dtype), x.dtype)
        if content.sizes:
            raise ExportError(f"{tracer.where()}: ops.pad needs one constant for all borders")
        inputs.append(content)
    return tracer.emit("Pad", inputs, {"mode": onnx_mode}, sizes=sizes, dtype=x.dtype)


def _mirrored(tracer, x, widths):
    """Beyond the border follows what is before it, from the last element on, there and back."""
    for axis, (before, after) in enumerate(widths):
        size = tracer.size(x, axis)
        if all(isinstance(n, int) and n == 0 for n in (before, after)):
            continue
        if all(isinstance(n, int) for n in (before, after, size)):
            places = np.pad(np.arange(size), (before, after), "symmetric")
            x = gather(tracer, x, tracer.constant(places), axis)
            continue
        places = ops.mod(ops.arange(ops.negative(before), size + after), size * 2)
        places = ops.minimum(places, size * 2 - 1 - places)
        x = gather(tracer, x, places, axis)
    return x


@lowers("Tril", "Triu")
def triangle(tracer, operation, x):
    upper = int(type(operation).__name__ == "Triu")
    k = tracer.constant(np.int64(operation.k))
    return tracer.emit("Trilu", [x, k], {"upper": upper}, sizes=x.sizes, dtype=x.dtype)


_FLIPS = {"Fliplr": [1], "Flipud": [0]}


@lowers("Flip", *_FLIPS)
def flip(tracer, operation, x):
    axes = _FLIPS.get(type(operation).__name__) or getattr(operation, "axis", None)
    axes = range(len(x.sizes)) if axes is None else np.atleast_1d(axes).tolist()
    minus = np.full(len(axes), -1, np.int64)
    start, end, steps = (
        tracer.constant(a) for a in (minus, np.full(len(axes), np.iinfo(np.int64).min + 1), minus)
    )
    where = tracer.constant(np.array(list(axes), np.int64))
    return tracer.emit("Slice", [x, start, end, where, steps], sizes=x.sizes, dtype=x.dtype)


@lowers("Roll")
def roll(tracer, operation, x):
    """Elements that leave at the end come in at the begin: a Gather for each axis."""
    if operation.axis is None:
        flat = reshape(tracer, x, (math.prod(x.sizes),))
        return reshape(tracer, _rolled(tracer, flat, operation.shift, 0), x.sizes)
    axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    shifts = operation.shift
    shifts = list(shifts) if isinstance(shifts, (list, tuple)) else [shifts] * len(axes)
    for axis, shift in zip(axes, shifts, strict=True):
        x = _rolled(tracer, x, shift, axis % len(x.sizes))
    return x


def _rolled(tracer, x, shift, axis):
    size = x.sizes[axis]
    if isinstance(shift, Symbol) or is_dynamic(size):
        size = tracer.size(x, axis)
        # The arange is empty if the axis is. Then there is no division by its length.
        places = ops.mod(ops.subtract(ops.arange(size), shift), size)
    else:
        places = tracer.constant(np.roll(np.arange(size), int(shift)))
    rolled = gather(tracer, x, places, axis)
    return Symbol(rolled.value, x.sizes, x.dtype)
