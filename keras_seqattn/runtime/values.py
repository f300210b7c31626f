"""What drivers share: types of a graph's values, and a place for the logits that is used again."""

import math

import numpy as np

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.generation.steps import is_cache

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class Logits:
    """The output "logits" float (b, t, v) of a decoder's session, in memory of our own.

    Args:
        session: onnxruntime.InferenceSession.

    Attributes:
        size: int v.
    """

    def __init__(self, session):
        value = next((x for x in session.get_outputs() if x.name == "logits"), None)
        if value is None:
            raise BundleError("the graph is not a decoder: it lacks logits")
        self.size = static_size(value, -1)
        self._type = dtype_of(value)
        self._buffer = np.empty(0, self._type)
        self._array = np.empty((0, 0, self.size), self._type)

    def bind(self, binding, batch, steps):
        """Let a run write the logits of (b, t) tokens; the array stays the same for equal sizes."""
        shape = (batch, steps, self.size)
        if self._array.shape != shape:
            size = math.prod(shape)
            # The logits of a prompt are large, and fresh memory costs time page by page.
            if self._buffer.size < size:
                self._buffer = np.empty(size, self._type)
            self._array = self._buffer[:size].reshape(shape)
        pointer = self._array.ctypes.data
        binding.bind_output("logits", "cpu", 0, self._type, shape, pointer)

    def room(self, batch, steps):
        """int, the bytes of the logits of (b, t) tokens."""
        return batch * steps * self.size * np.dtype(self._type).itemsize

    def last(self):
        """float32 (b, v), those of the last position."""
        return self._array[:, -1].astype(np.float32, copy=False)


def device_of(session):
    """str, where a session's caches live."""
    return "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"


def dtype_of(value):
    """The NumPy type of a graph's input or output."""
    if value.type not in _TYPES:
        raise BundleError(
            f"{value.name} is {value.type}, which is not supported: {', '.join(_TYPES)} are"
        )
    return _TYPES[value.type]


def static_size(value, axis):
    """The size of an axis of a graph's input or output, which must be known."""
    size = value.shape[axis]
    if not isinstance(size, int):
        raise BundleError(
            f"{value.name} has the shape {value.shape}: the vocabulary of a decoder graph and all "
            "sizes of its past but the batch and the length must be static"
        )
    return size


def empty_past(value, batch_size, length=0):
    """Zeros for what a decoder graph keeps of the past.

    Args:
        value: the graph's input, a cache (b, g, past, d) or a state (b, ...) of a fixed size.
        batch_size: int b.
        length: int, the past length of a cache.

    Returns:
        NumPy array.
    """
    return np.zeros((batch_size, *_past_sizes(value, length)), dtype_of(value))


def past_bytes(values, batch_size, length=0):
    """int, the bytes of what `empty_past` makes for each of several inputs."""
    return batch_size * sum(
        math.prod(_past_sizes(value, length)) * np.dtype(dtype_of(value)).itemsize
        for value in values
    )


def _past_sizes(value, length):
    """The sizes of a past, but that of the batch."""
    grown = 2 if is_cache(value.name) else None
    rest = range(1, len(value.shape))
    return [length if axis == grown else static_size(value, axis) for axis in rest]


def check_filled(name, array):
    """Raise InputError if an input of a graph has no row or no element.

    The rule of the runtime for batches and lengths of 0: there is nothing to compute, and kernels
    for recurrent layers would end the process. Only the past of a cache may be empty.
    """
    past = is_cache(name) and array.ndim > 2
    if 0 in (array.shape[:2] + array.shape[3:] if past else array.shape):
        raise InputError(f"{name} is {array.shape}: give it at least one row and one element")


def bind_integers(binding, name, values):
    """Bind an array as int64; the binding points into it and keeps it alive."""
    check_filled(name, values)
    binding.bind_cpu_input(name, np.ascontiguousarray(values, np.int64))
