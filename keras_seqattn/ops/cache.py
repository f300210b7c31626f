"""Writing new keys or values into a buffer of fixed size."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seqattn")
class CacheWrite(keras.Operation):
    """Replaces s slots of a cache from `position` on; one ONNX TensorScatter node."""

    def call(self, cache, new, position):
        position = ops.reshape(ops.cast(position, "int32"), ())
        zero = ops.zeros_like(position)
        new = ops.cast(ops.transpose(new, (0, 2, 1, 3)), cache.dtype)
        return ops.slice_update(cache, ops.stack([zero, zero, position, zero]), new)

    def compute_output_spec(self, cache, new, position):
        return keras.KerasTensor(cache.shape, cache.dtype)


def cache_write(cache, new, position):
    """The cache with `new` in the slots [position, position + s).

    Args:
        cache: float (b, g, n, d).
        new: float (b, s, g, d), with `position + s <= n`.
        position: int () or (1,).

    Returns:
        float (b, g, n, d).
    """
    return CacheWrite()(cache, new, position)
