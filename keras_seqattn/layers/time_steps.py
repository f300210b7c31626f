"""Learned decay of a state: `exp(-exp(A_log) dt)`, with time steps that depend on the token."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.precision import full_precision, in_full_precision


class TimeSteps(keras.layers.Layer):
    """`dt = softplus(x + dt_bias)` and the log decay `-exp(A_log) dt`, both for each head.

    The initial values give the heads memories from 1000 tokens to less than one token. The layer
    computes in float32 with every dtype policy.

    Args:
        num_heads: number h of heads.
        limit: None or (least, largest) time step.

    Call arguments:
        x: float (b, t, h).

    Returns:
        tuple of the time steps and the log decay, float32 (b, t, h).
    """

    @checked
    def __init__(self, num_heads, limit=None, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.limit = limit

    def build(self, x_shape=None):
        heads = (self.num_heads,)
        steps = np.geomspace(1e-3, 1e-1, self.num_heads)
        # The inverse of softplus.
        biases = steps + np.log(-np.expm1(-steps))
        rates = np.log(np.linspace(1.0, 16.0, self.num_heads))
        self.A_log = self.add_weight(
            name="A_log", shape=heads, initializer=_values(rates), autocast=False
        )
        self.dt_bias = self.add_weight(
            name="dt_bias", shape=heads, initializer=_values(biases), autocast=False
        )

    def call(self, x):
        # In full precision even if the weights are not, because sums of steps are exponents.
        steps = ops.softplus(ops.add(in_full_precision(x), self.dt_bias))
        if self.limit is not None:
            steps = ops.clip(steps, *self.limit)
        # A tensor, so that an export does not compute it now: the bits of exp differ by backend.
        rates = ops.exp(ops.convert_to_tensor(self.A_log))
        return steps, ops.multiply(ops.negative(rates), steps)

    def compute_output_spec(self, x):
        return tuple(keras.KerasTensor(x.shape, full_precision(x.dtype)) for _ in range(2))


def _values(array):
    return lambda shape, dtype=None: ops.convert_to_tensor(array, dtype)
