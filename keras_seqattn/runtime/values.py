"""Functions for both decoders: their first past, their logits, and checks of their graphs."""

import math

import numpy as np

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.runtime.graph_ports import numpy_dtype


class Logits:
    """The logits float (b, t, v) of a decoder graph, in memory that this object owns.

    Args:
        ports: `Ports` of the graph.

    Attributes:
        size: int v.
    """

    def __init__(self, ports):
        port = ports.given("logits")
        if port is None:
            raise BundleError("the graph is not a decoder: it lacks logits")
        self.size = static_size(port, -1)
        self._name, self._type = port.name, numpy_dtype(port)
        self._buffer = np.empty(0, self._type)
        self._array = np.empty((0, 0, self.size), self._type)

    def bind(self, binding, batch, steps):
        """Let a run write the logits of (b, t) tokens. The array is reused for equal sizes."""
        shape = (batch, steps, self.size)
        if self._array.shape != shape:
            size = math.prod(shape)
            # The logits of a prompt are large, and every page of new memory costs time.
            if self._buffer.size < size:
                self._buffer = np.empty(size, self._type)
            self._array = self._buffer[:size].reshape(shape)
        pointer = self._array.ctypes.data
        binding.bind_output(self._name, "cpu", 0, self._type, shape, pointer)

    def room(self, batch, steps):
        """int, the number of bytes of the logits of (b, t) tokens."""
        return batch * steps * self.size * np.dtype(self._type).itemsize

    def last(self):
        """float32 (b, v), the logits of the last position."""
        return self._array[:, -1].astype(np.float32, copy=False)


def device_of(session):
    """str, the device of the caches of a session."""
    return "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"


def check_pasts(ports):
    """Check that each past of a decoder graph has its own output that becomes it.

    Raises:
        BundleError: an output is missing, has another type or number of axes, or becomes two pasts.
    """
    lengths, taken = ports.of_role("length"), set()
    if lengths and ports.of_role("cache"):
        raise BundleError(f"{lengths[0].name} is of a graph without caches, and this one has some")
    if any(len(port.axes) != 1 or not port.is_integer for port in lengths):
        raise BundleError(f"{lengths[0].name} must be integers (batch)")
    for port in (*ports.pasts, *ports.of_role("source_cache")):
        output = ports.output(port.follows)
        if output is None:
            raise BundleError(
                f"the graph is not a decoder: it lacks {port.follows or 'an output'}, which "
                f"becomes {port.name}"
            )
        if (output.dtype, len(output.axes)) != (port.dtype, len(port.axes)):
            raise BundleError(
                f"{output.name}, {output.dtype} {output.axes}, cannot become {port.name}, "
                f"{port.dtype} {port.axes}"
            )
        if output.name in taken:
            raise BundleError(f"{output.name} cannot become two inputs; one is {port.name}")
        taken.add(output.name)


def static_size(port, axis):
    """The static size of an axis of a `Port`.

    Raises:
        BundleError: the size is not static.
    """
    size = port.axes[axis] if port.axes else None
    if not isinstance(size, int):
        raise BundleError(
            f"{port.name} has the shape {port.axes}: in a decoder graph, the vocabulary and all "
            "sizes of the past except the batch and the length must be static"
        )
    return size


def empty_past(port, batch_size, length=0):
    """Zeros for a past of a decoder graph.

    Args:
        port: `Port` of the input of the graph: a cache (b, g, past, d), or a state (b, ...) of
            fixed size.
        batch_size: int b.
        length: int, the past length of a cache.

    Returns:
        NumPy array.
    """
    return np.zeros((batch_size, *_past_sizes(port, length)), numpy_dtype(port))


def past_bytes(ports, batch_size, length=0):
    """int, the number of bytes of the results of `empty_past` for several ports."""
    return batch_size * sum(
        math.prod(_past_sizes(port, length)) * np.dtype(numpy_dtype(port)).itemsize
        for port in ports
    )


def _past_sizes(port, length):
    """The sizes of a past without the batch."""
    rest = range(1, len(port.axes))
    return [length if axis == port.grown_axis else static_size(port, axis) for axis in rest]


def check_filled(port, array):
    """Raise InputError if an input of a graph has no row or no element.

    The runtime refuses batches and lengths of 0: there is nothing to compute, and kernels for
    recurrent layers would crash the process. Only the past of a cache may be empty.
    """
    sizes = [size for axis, size in enumerate(array.shape) if axis != port.grown_axis]
    if 0 in sizes:
        raise InputError(f"{port.name} is {array.shape}: give it at least one row and one element")


def bind_array(binding, port, values):
    """Bind an array with the type of its `Port`. The binding points to it and keeps it alive."""
    check_filled(port, values)
    binding.bind_cpu_input(port.name, np.ascontiguousarray(values, numpy_dtype(port)))
