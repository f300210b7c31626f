"""Large NumPy constants as tensors that all calls and all compiled graphs share."""

import threading
import weakref

import keras
import numpy as np
from keras import ops

_TENSORS = {}
# Reentrant: while a tensor is made, an array of another may be collected.
_LOCK = threading.RLock()


def shared_constant(array):
    """A read-only NumPy array as a tensor made once; anything else as it is.

    Without this every layer of a compiled model would hold its own copy of the same table.

    Args:
        array: NumPy array or tensor.

    Returns:
        A tensor, or `array` itself if it is a tensor or may still change.
    """
    if not isinstance(array, np.ndarray) or array.flags.writeable:
        return array
    key = id(array)
    with _LOCK:
        if key not in _TENSORS:
            tensor = _concrete_tensor(array)
            # Shape inference on torch happens on a device without data.
            if getattr(tensor, "is_meta", False):
                return tensor
            _TENSORS[key] = tensor
            weakref.finalize(array, _TENSORS.pop, key, None)
        return _TENSORS[key]


def _concrete_tensor(array):
    """A tensor that outlives the graph or the trace under which it is made."""
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
