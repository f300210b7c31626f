"""Writing new keys or values into a buffer of fixed size."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_seqattn")
class CacheWrite(keras.Operation):
    """Replaces s slots of a cache, beginning at `position`.

    In ONNX this is one Concat of the slots before, the new ones and the slots after, because
    TensorScatter needs opset 24.
    """

    def call(self, cache, new, position):
        position = ops.reshape(ops.cast(position, "int32"), ())
        new = ops.cast(ops.transpose(new, (0, 2, 1, 3)), cache.dtype)
        # TensorFlow's slice update has no gradient, and tf2onnx cannot write it.
        if keras.backend.backend() == "tensorflow":
            return _select(cache, new, position)
        zero = ops.zeros_like(position)
        return ops.slice_update(cache, ops.stack([zero, zero, position, zero]), new)

    def compute_output_spec(self, cache, new, position):
        return keras.KerasTensor(cache.shape, cache.dtype)


def cache_write(cache, new, position):
    """Write `new` into the slots [position, position + s) of a cache.

    Args:
        cache: float (b, g, n, d).
        new: float (b, s, g, d), with `position + s <= n`.
        position: int () or (1,).

    Returns:
        float (b, g, n, d).
    """
    return CacheWrite()(cache, new, position)


def _select(cache, new, position):
    rows = ops.subtract(ops.arange(ops.shape(cache)[2], dtype="int32"), position)
    last = ops.shape(new)[2] - 1
    written = ops.logical_and(ops.greater_equal(rows, 0), ops.less_equal(rows, last))
    spread = ops.take(new, ops.clip(rows, 0, last), axis=2)
    return ops.where(ops.reshape(written, (1, 1, -1, 1)), spread, cache)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class UncachedContext(keras.Operation):
    """`context[:, c:]`, the part of a context whose first c keys are cached; one ONNX Slice."""

    def call(self, context, past_key):
        return context[:, ops.shape(past_key)[2] :]

    def compute_output_spec(self, context, past_key):
        length, cached = context.shape[1], past_key.shape[2]
        known = length is not None and cached is not None
        length = max(length - cached, 0) if known else None
        return keras.KerasTensor((context.shape[0], length, context.shape[2]), context.dtype)


def uncached_context(context, past_key):
    """The part of a context that is not cached yet: all of it, or nothing once it is cached.

    Args:
        context: float (b, s, m).
        past_key: float (b, g, c, d), the keys of the first c positions.

    Returns:
        float (b, s - c, m).
    """
    return UncachedContext()(context, past_key)
