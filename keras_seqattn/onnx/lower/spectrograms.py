"""Short-time Fourier transforms of keras.ops, and back."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.fourier import (
    LONGEST_MATRIX,
    backward_real,
    halves,
    real_matrix,
    separated,
    with_length,
)
from keras_seqattn.onnx.lower.planes import unsqueezed
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.lower.windows import window_count, windows

# The constant of the periodic windows that Keras knows by name: a - (1 - a) cos.
_WINDOWS = {"hann": 0.5, "hamming": 0.54}
# JAX divides by the sum of the squared windows only where it is larger than this.
_NO_WINDOW = 1e-10


def _window(operation):
    """float64 (fft_length,), the window in the middle of zeros. None: there is no window."""
    length, total = operation.sequence_length, operation.fft_length
    given = operation.window
    if given is None:
        return None
    if isinstance(given, str):
        given = _named_window(given, length)
    return _in_the_middle(np.asarray(keras.ops.convert_to_numpy(given), np.float64), total)


def _named_window(name, length):
    """A periodic window. Those of TensorFlow that have an odd length are symmetric instead."""
    period = length
    if keras.backend.backend() == "tensorflow" and length % 2:
        period = max(1, length - 1)
    constant = _WINDOWS[name]
    return constant - (1.0 - constant) * np.cos(np.arange(length) * (2 * np.pi / period))


def _in_the_middle(window, total):
    before = (total - len(window)) // 2
    return np.pad(window, (before, total - len(window) - before))


@lowers("STFT")
def stft(tracer, operation, x):
    n, stride = operation.fft_length, operation.sequence_stride
    if operation.center:
        x = ops.pad(x, [(0, 0)] * (len(x.sizes) - 1) + [(n // 2, n // 2)], mode="reflect")
    window = _window(operation)
    if window is None and keras.backend.backend() == "torch":
        # The other backends take all entries of a frame then.
        window = _in_the_middle(np.ones(operation.sequence_length), n)
    window = np.ones(n) if window is None else window
    *batch, length = x.sizes
    entries = [tracer.size(x, axis) for axis in range(len(batch))]
    x = reshape(tracer, x, (math.prod(batch), length))
    transform = _by_convolution if n <= LONGEST_MATRIX else _by_node if _is_power(n) else _by_frames
    parts = transform(tracer, x, window, stride)
    shape = [(*entries, *(tracer.size(part, axis) for axis in (1, 2))) for part in parts]
    return tuple(ops.reshape(part, s) for part, s in zip(parts, shape, strict=True))


def _is_power(n):
    return n & (n - 1) == 0


def _by_convolution(tracer, x, window, stride):
    """Frames, window and transform are one Conv."""
    used = np.flatnonzero(window)
    first, last = (used[0], used[-1] + 1) if len(used) else (0, len(window))
    matrix = real_matrix(len(window)) * window[:, None]
    count = window_count(x.sizes[1], len(window), stride)
    # Zeros at the ends of the window need no place in the kernel.
    x = x[:, int(first) : int(last) - len(window) or None]
    kernel = tracer.constant(matrix[first:last].T[:, None], x.dtype)
    sizes = (x.sizes[0], matrix.shape[1], count)
    x = unsqueezed(tracer, x, 1)
    x = tracer.emit("Conv", [x, kernel], {"strides": [stride]}, sizes=sizes, dtype=x.dtype)
    return halves(tracer, transpose(tracer, x, (0, 2, 1)))


def _by_node(tracer, x, window, stride):
    """One STFT. onnxruntime is fast and exact only for powers of two."""
    n = len(window)
    sizes = (x.sizes[0], window_count(x.sizes[1], n, stride), n // 2 + 1, 2)
    inputs = [tracer.constant(np.int64(stride)), tracer.constant(window, x.dtype)]
    inputs = [unsqueezed(tracer, x, 2), *inputs, tracer.constant(np.int64(n))]
    x = tracer.emit("STFT", inputs, {"onesided": 1}, sizes=sizes, dtype=x.dtype)
    return separated(tracer, x)


def _by_frames(tracer, x, window, stride):
    frames = windows(tracer, x, 1, len(window), stride) * tracer.constant(window, x.dtype)
    return ops.rfft(frames)


# ---- and back


@lowers("ISTFT")
def istft(tracer, operation, x):
    n, stride = operation.fft_length, operation.sequence_stride
    real, imag = (with_length(tracer, tracer.symbol(part), n // 2 + 1) for part in x)
    *batch, count, bins = real.sizes
    entries = [tracer.size(real, axis) for axis in range(len(batch))]
    flat = (reshape(tracer, part, (math.prod(batch), count, bins)) for part in (real, imag))
    frames = backward_real(tracer, *flat, n)
    backend, window = keras.backend.backend(), _window(operation)
    whole = operation.sequence_length == n and operation.center and window is not None
    exact = whole and backend == "torch"
    if exact or backend == "jax":
        x = _over_the_sum(tracer, frames, window, stride, exact)
    else:
        window = np.ones(n) if window is None else _over_a_period(window, stride)
        x = _overlapped(tracer, frames * tracer.constant(window, frames.dtype), stride)
    x = _trimmed(tracer, operation, x, exact)
    return ops.reshape(x, (*entries, tracer.size(x, 1)))


def _over_a_period(window, stride):
    """The window over the sum of the squares of its copies, if there were infinitely many."""
    squares = np.pad(window**2, (0, -len(window) % stride)).reshape(-1, stride).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return window / np.resize(squares, len(window))


def _over_the_sum(tracer, frames, window, stride, exact):
    """The overlapping frames over the sum of the squares of the windows at each place."""
    scale = 1.0
    if window is None:
        window = np.ones(frames.sizes[-1])
        scale = frames.sizes[-1] / stride
    total = _overlapped(tracer, frames * tracer.constant(window, frames.dtype), stride)
    squares = tracer.constant(window**2, frames.dtype)
    squares = _overlapped(tracer, frames[:1] * 0.0 + squares, stride)
    if not exact:
        squares = ops.where(squares > _NO_WINDOW, squares, 1.0)
    result = total / squares
    return result * scale if scale != 1.0 else result


def _overlapped(tracer, frames, stride):
    """(b, count, n) -> (b, (count - 1) * stride + n), the sums of frames that overlap."""
    batch, count, n = frames.sizes
    parts = -(-n // stride)
    frames = ops.pad(frames, [(0, 0), (0, 0), (0, parts * stride - n)])
    frames = reshape(tracer, frames, (batch, count, parts, stride))
    total = 0.0
    for i in range(parts):
        total = total + ops.pad(frames[:, :, i], [(0, 0), (i, parts - 1 - i), (0, 0)])
    flat = reshape(tracer, total, (batch, (count + parts - 1) * stride))
    rest = parts * stride - n
    return flat[:, :-rest] if rest else flat


def _trimmed(tracer, operation, x, exact):
    """Without what the frames reach over the ends, and with the wanted length."""
    border = operation.fft_length // 2
    start = border if operation.center else 0
    if operation.length is not None:
        x = x[:, start : start + operation.length]
        return with_length(tracer, x, operation.length) if exact else x
    return x[:, start:-border] if operation.center else x
