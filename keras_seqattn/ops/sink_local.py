"""Attention to a window and to the first tokens, which many models need at every position."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.local import LocalAttention
from keras_seqattn.ops.nothing import of_tokens


@keras.saving.register_keras_serializable(package="keras_seqattn")
class SinkLocalAttention(keras.Operation):
    """`softmax(scale q k') v` over the first real tokens and those with `-left <= j - i <= 0`.

    Args:
        num_sinks: number S of first tokens.
        left: number of keys before its own key that a query attends to.
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Raises:
        ValueError: there are no sinks, or the window is negative.
    """

    @checked
    def __init__(self, num_sinks, left, scale=None, *, name=None):
        super().__init__(name=name)
        if num_sinks < 1 or left < 0:
            raise ValueError(
                "num_sinks must be 1 or more and left 0 or more. Received: "
                f"num_sinks={num_sinks}, left={left}"
            )
        self.num_sinks = num_sinks
        self.left = left
        self.scale = scale

    @of_tokens("state")
    def call(self, query, key, value, real, counts, far_query=None, state=None):
        sinks = self._sinks(key, value, real, counts)
        past = (None, None, None)
        if state is not None:
            sinks = tuple(ops.add(old, new) for old, new in zip(state[:2], sinks, strict=True))
            past = state[2:]
        # A sink in the window counts as a sink, so it must not count again as a near key.
        nearby = ops.logical_and(real, ops.greater(counts, self.num_sinks))
        seen = ops.greater(ops.expand_dims(counts, 2), self._places())
        shared = (*(ops.transpose(x, (0, 2, 1, 3)) for x in sinks), seen, far_query)
        operation = LocalAttention(self.left, scale=self.scale)
        result = operation(query, key, value, nearby, *past, *shared)
        return result if state is None else (result[0], *sinks, *result[1:])

    def _places(self):
        return np.arange(self.num_sinks, dtype="int32")

    def _sinks(self, key, value, real, counts):
        """The sinks among the new tokens, in their slots: (b, g, S, d) and (b, g, S, e)."""
        chosen = ops.equal(ops.expand_dims(counts, 2), self._places() + 1)
        chosen = ops.logical_and(chosen, ops.expand_dims(real, 2))
        chosen = ops.expand_dims(ops.swapaxes(ops.cast(chosen, key.dtype), 1, 2), 1)
        return tuple(ops.matmul(chosen, ops.transpose(x, (0, 2, 1, 3))) for x in (key, value))

    def compute_output_spec(self, query, key, value, real, counts, far_query=None, state=None):
        out = keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)
        if state is None:
            return out
        return (out, *(keras.KerasTensor(x.shape, x.dtype) for x in state))


def sink_local_attention(
    query, key, value, real, counts, far_query=None, state=None, *, num_sinks, left, scale=None
):
    """Attention sinks and a rolling window (https://arxiv.org/abs/2309.17453).

    Args:
        query: float (b, t, h, d).
        key: float (b, t, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, t, g, e).
        real: bool (b, t), padding is False.
        counts: int (b, t), the number of real tokens up to each token, including earlier calls.
        far_query: float (b, t, h, d), the queries for the keys of the sinks; None is `query`.
        state: None, or the keys (b, g, S, d) and values (b, g, S, e) of the sinks, and the last
            keys (b, g, left, d), values (b, g, left, e) and mask (b, left); zeros at first.
        num_sinks, left, scale: as in `SinkLocalAttention`.

    Returns:
        float (b, t, h, e); with `state`, a tuple of this and each tensor of the new state.
    """
    operation = SinkLocalAttention(num_sinks, left, scale)
    return operation(query, key, value, real, counts, far_query, state)
