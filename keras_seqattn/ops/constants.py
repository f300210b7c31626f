"""Large NumPy constants as tensors; all calls and all compiled graphs share them."""

import threading
import weakref

import keras
import numpy as np
from keras import ops

_TENSORS = {}
# Reentrant: while one tensor is made, Python may collect the array of another tensor.
_LOCK = threading.RLock()


def shared_constant(array):
    """A tensor of a read-only NumPy array, made only once; other arguments are returned unchanged.

    Without this, every layer of a compiled model would hold its own copy of the same table.

    Args:
        array: NumPy array or tensor.

    Returns:
        A tensor; or `array` itself, if it is a tensor or if it is writable.
    """
    if not isinstance(array, np.ndarray) or array.flags.writeable:
        return array
    key = id(array)
    with _LOCK:
        if key not in _TENSORS:
            tensor = _concrete_tensor(array)
            # On torch, shape inference uses a device without data.
            if getattr(tensor, "is_meta", False):
                return tensor
            _TENSORS[key] = tensor
            weakref.finalize(array, _TENSORS.pop, key, None)
        return _TENSORS[key]


def _concrete_tensor(array):
    """A tensor that outlives the graph or the trace in which it is made."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.init_scope():
            return tf.constant(array)
    if backend == "jax":
        import jax

        with jax.ensure_compile_time_eval():
            return ops.convert_to_tensor(array)
    return ops.convert_to_tensor(array)
