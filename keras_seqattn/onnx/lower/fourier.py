"""Fourier transforms of keras.ops. A complex tensor is a pair of real ones there."""

import math

import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.planes import as_float, squeezed, unsqueezed
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape
from keras_seqattn.onnx.sizes import is_dynamic

# Up to this length, a transform is a product with a matrix. It is up to 40 times faster than the
# DFT of onnxruntime, which is fast only for powers of two.
LONGEST_MATRIX = 1024
# A length of two factors up to this one is transformed by the factors. The DFT of onnxruntime loses
# digits unless the length is a power of two: for 1025, its error is 2e-4 of the largest entry.
_LARGEST_FACTOR = 2048


def forward(tracer, real, imag=None):
    """The transform of the last axis of a complex or a real tensor: (real, imag).

    Of a real tensor of length n, only the first n // 2 + 1 entries are computed.
    """
    n = real.sizes[-1]
    if is_dynamic(n) or n > LONGEST_MATRIX:
        return _long(tracer, real, imag, inverse=False)
    if imag is None:
        return halves(tracer, _product(tracer, real, real_matrix(n)))
    return _complex_product(tracer, real, imag, *_waves(n, n))


def backward(tracer, real, imag):
    """The inverse transform of the last axis of a complex tensor: (real, imag)."""
    n = real.sizes[-1]
    if is_dynamic(n) or n > LONGEST_MATRIX:
        return _long(tracer, real, imag, inverse=True)
    cosine, sine = _waves(n, n)
    return _complex_product(tracer, real, imag, cosine / n, -sine / n)


def backward_real(tracer, real, imag, n):
    """The real tensor of length n whose transform begins with n // 2 + 1 given entries."""
    if not is_dynamic(n) and n <= LONGEST_MATRIX:
        both = ops.concatenate([real, imag], axis=-1)
        return _product(tracer, both, _real_inverse_matrix(n))
    # The other entries are the conjugates, from the end.
    end = -1 if is_dynamic(n) else (n + 1) // 2
    inner = [x[..., 1:end] for x in (real, imag)]
    mirrored = [ops.flip(x, axis=-1) for x in inner]
    real = ops.concatenate([real, mirrored[0]], axis=-1)
    imag = ops.concatenate([imag, -mirrored[1]], axis=-1)
    return _long(tracer, real, imag, inverse=True)[0]


# ---- by matrices


def _waves(n, bins):
    """float64 (n, bins): the real and the imaginary part of exp(-2 pi i t k / n)."""
    # The product is taken modulo n first, or the angle would lose digits.
    angle = np.outer(np.arange(n), np.arange(bins)) % n * (2 * np.pi / n)
    return np.cos(angle), -np.sin(angle)


def real_matrix(n):
    """float64 (n, 2 bins), from a real tensor to the real and then the imaginary entries."""
    return np.concatenate(_waves(n, n // 2 + 1), axis=1)


def _real_inverse_matrix(n):
    """float64 (2 bins, n), from the real and the imaginary entries to the real tensor."""
    cosine, sine = (wave.T for wave in _waves(n, n // 2 + 1))
    counts = np.full((n // 2 + 1, 1), 2.0)
    counts[0] = 1.0
    if n % 2 == 0:
        counts[-1] = 1.0
    return np.concatenate([cosine * counts, sine * counts]) / n


def _product(tracer, x, matrix):
    sizes = (*x.sizes[:-1], matrix.shape[1])
    matrix = tracer.constant(matrix, x.dtype)
    return tracer.emit("MatMul", [x, matrix], sizes=sizes, dtype=x.dtype)


def _complex_product(tracer, real, imag, cosine, sine):
    matrix = np.block([[cosine, sine], [-sine, cosine]])
    return halves(tracer, _product(tracer, ops.concatenate([real, imag], axis=-1), matrix))


def halves(tracer, x):
    """The two halves of the last axis."""
    sizes = (*x.sizes[:-1], x.sizes[-1] // 2)
    attributes = {"axis": len(x.sizes) - 1, "num_outputs": 2}
    return tuple(tracer.emit("Split", [x], attributes, outputs=[(sizes, x.dtype)] * 2))


# ---- long transforms


def _long(tracer, real, imag, inverse):
    n = real.sizes[-1]
    first = 1 if is_dynamic(n) else _factor(n)
    if first == 1:
        return _by_node(tracer, real, imag, inverse)
    return _by_factors(tracer, real, imag, first, inverse)


def _factor(n):
    """A factor of n near its root. 1: there is none that helps."""
    if n & (n - 1) == 0:
        return 1
    first = next(a for a in range(math.isqrt(n), 0, -1) if n % a == 0)
    return first if n // first <= _LARGEST_FACTOR else 1


def _by_factors(tracer, real, imag, a, inverse):
    """The step of Cooley and Tukey: transforms of length a, a rotation, transforms of length b."""
    n = real.sizes[-1]
    b, shape = n // a, (*real.sizes[:-1], a, n // a)
    zero = real * 0.0 if imag is None else imag
    parts = [ops.swapaxes(reshape(tracer, x, shape), -1, -2) for x in (real, zero)]
    transform = backward if inverse else forward
    real_part, imag_part = transform(tracer, *parts)
    turn = np.outer(np.arange(b), np.arange(a)) * (2 * np.pi / n * (1 if inverse else -1))
    cosine, sine = (tracer.constant(f(turn), real.dtype) for f in (np.cos, np.sin))
    turned = (
        real_part * cosine - imag_part * sine,
        real_part * sine + imag_part * cosine,
    )
    parts = transform(tracer, *(ops.swapaxes(x, -1, -2) for x in turned))
    parts = [ops.swapaxes(x, -1, -2) for x in parts]
    flat = [reshape(tracer, x, (*real.sizes[:-1], n)) for x in parts]
    return tuple(x[..., : n // 2 + 1] if imag is None else x for x in flat)


def _by_node(tracer, real, imag, inverse):
    """DFT takes (batch, n, 1 or 2)."""
    *batch, n = real.sizes
    flat = [reshape(tracer, x, (math.prod(batch), n)) for x in (real, imag) if x is not None]
    bins = n // 2 + 1 if imag is None else n
    parts = [unsqueezed(tracer, x, 2) for x in flat]
    x = parts[0] if imag is None else ops.concatenate(parts, axis=-1)
    sizes = (x.sizes[0], bins, 2)
    attributes = {"onesided": int(imag is None), "inverse": int(inverse)}
    axis = tracer.constant(np.int64(1))
    x = tracer.emit("DFT", [x, None, axis], attributes, sizes=sizes, dtype=x.dtype)
    shape = [tracer.size(real, a) for a in range(len(batch))]
    return tuple(
        ops.reshape(part, (*shape, bins_of(tracer, part))) for part in separated(tracer, x)
    )


def bins_of(tracer, x):
    """The size of the last axis of `x`, for a shape."""
    return tracer.size(x, len(x.sizes) - 1)


def separated(tracer, x):
    """The real and the imaginary part, which are the last axis."""
    return tuple(squeezed(tracer, part, len(x.sizes) - 1) for part in halves(tracer, x))


# ---- operations


def _floats(tracer, x):
    return [as_float(tracer, tracer.symbol(part)) for part in x]


@lowers("FFT")
def fft(tracer, operation, x):
    return forward(tracer, *_floats(tracer, x))


def _of_both_axes(transform):
    def lowering(tracer, operation, x):
        parts = transform(tracer, *_floats(tracer, x))
        parts = transform(tracer, *(ops.swapaxes(part, -1, -2) for part in parts))
        return tuple(ops.swapaxes(part, -1, -2) for part in parts)

    return lowering


lowers("FFT2")(_of_both_axes(forward))
lowers("IFFT2")(_of_both_axes(backward))


@lowers("RFFT")
def rfft(tracer, operation, x):
    (x,) = _floats(tracer, [x])
    return forward(tracer, with_length(tracer, x, operation.fft_length))


@lowers("IRFFT")
def irfft(tracer, operation, x):
    real, imag = _floats(tracer, x)
    n = operation.fft_length
    if n is None:
        n = 2 * (real.sizes[-1] - 1)
    else:
        real, imag = (with_length(tracer, part, n // 2 + 1) for part in (real, imag))
    return backward_real(tracer, real, imag, n)


def with_length(tracer, x, length):
    """`x` cut off or filled with zeros at the end of the last axis. None: as it is."""
    size = x.sizes[-1]
    if length is None or size == length:
        return x
    if is_dynamic(size) or size < length:
        missing = length if is_dynamic(size) else length - size
        x = ops.pad(x, [(0, 0)] * (len(x.sizes) - 1) + [(0, missing)])
    return x[..., :length] if x.sizes[-1] != length else x


@lowers("ViewAsComplex", "ViewAsReal", "Polar")
def complex_numbers(tracer, operation, *args, **kwargs):
    raise ExportError(
        f"{tracer.where()}: {type(operation).__name__} makes or reads complex numbers, which "
        "onnxruntime cannot compute with; keep the real and the imaginary part as two tensors, as "
        "ops.fft does"
    )
