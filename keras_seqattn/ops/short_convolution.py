"""Causal depthwise convolution over a few tokens, with the last inputs as its state."""

import keras
from keras import ops

from keras_seqattn.ops.broadcasting import add


@keras.saving.register_keras_serializable(package="keras_seqattn")
class CausalConvolution(keras.Operation):
    """`y_t = sum_i w_i x_{t-k+1+i} + b` for each channel, zeros before the start; ONNX Mul and Add.

    It is computed as a few shifted products, the cheapest form for three or four tokens.
    """

    def call(self, x, kernel, bias=None, mask=None, state=None):
        kept, length = kernel.shape[0] - 1, ops.shape(x)[1]
        if mask is not None:
            mask = ops.cast(ops.cast(mask, "bool"), x.dtype)
            x = ops.multiply(x, ops.expand_dims(mask, -1))
        if state is None:
            x = ops.pad(x, [[0, 0], [kept, 0], [0, 0]])
        else:
            x = ops.concatenate([ops.cast(state, x.dtype), x], axis=1)
        terms = [ops.multiply(x[:, i : i + length], kernel[i]) for i in range(kept + 1)]
        out = terms[0] if bias is None else ops.add(terms[0], bias)
        for term in terms[1:]:
            out = add(out, term)
        return out, x[:, length:]

    def compute_output_spec(self, x, kernel, bias=None, mask=None, state=None):
        kept = (x.shape[0], kernel.shape[0] - 1, x.shape[2])
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor(kept, x.dtype)


def causal_convolution(x, kernel, bias=None, mask=None, state=None):
    """Convolution of each channel over the last k tokens.

    Args:
        x: float (b, t, m).
        kernel: float (k, m), its last row for the token itself.
        bias: float (m,).
        mask: bool or int (b, t); tokens with 0 count as zeros.
        state: float (b, k - 1, m), the inputs before the first token; None is zeros.

    Returns:
        tuple of float (b, t, m) and the new state.
    """
    return CausalConvolution()(x, kernel, bias, mask, state)
