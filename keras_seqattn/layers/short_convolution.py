"""Short causal convolutions: the weights around the operation, and the gated mixer of LFM2."""

import keras
from keras import ops

from keras_seqattn.layers.feed_forward import activate, build_activation
from keras_seqattn.layers.mixer import Mixer
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.masks import combine_masks
from keras_seqattn.ops.short_convolution import causal_convolution


@keras.saving.register_keras_serializable(package="keras_seqattn")
class CausalConv1D(keras.layers.Layer):
    """A causal convolution of each channel over the last tokens, and an activation.

    Args:
        kernel_size: number k of tokens.
        use_bias: add a bias.
        activation: as in `keras.layers.Dense`.

    Call arguments:
        x: float (b, t, m).
        mask: bool or int (b, t); tokens with 0 count as zeros.
        state: float (b, k - 1, m), the inputs before the first token; None is zeros.

    Returns:
        tuple of float (b, t, m) and the new state.
    """

    @checked
    def __init__(self, kernel_size, use_bias=True, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.kernel_size = kernel_size
        self.use_bias = use_bias
        self.activation = keras.activations.get(activation)

    def build(self, x_shape):
        # Uniform up to 1 / sqrt(k), because each output is a sum of k products.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, x_shape[-1]),
            initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=x_shape[-1:], initializer="zeros")
        build_activation(self.activation, x_shape)

    def call(self, x, mask=None, state=None):
        out, state = causal_convolution(x, self.kernel, self.bias, mask, state)
        return activate(self.activation, out), state

    def compute_output_spec(self, x, mask=None, state=None):
        kept = (x.shape[0], self.kernel_size - 1, x.shape[2])
        return tuple(keras.KerasTensor(s, self.compute_dtype) for s in (x.shape, kept))

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "kernel_size": self.kernel_size,
                "use_bias": self.use_bias,
                "activation": keras.activations.serialize(self.activation),
            }
        )
        return config


@keras.saving.register_keras_serializable(package="keras_seqattn")
class ShortConvolution(Mixer):
    """`W_o (c * conv(b * u))` with `[b, c, u] = W_i x`, a gated convolution over a few tokens.

    The mixer of LFM2 (https://arxiv.org/abs/2511.23404), causal, O(n).

    Args:
        kernel_size: number k of tokens that an output sees.
        use_bias: whether the projections and the convolution have biases.
        kernel_initializer: for the projections, as in `keras.layers.Dense`.

    Call arguments:
        As in `Mixer`. Tokens that are not real count as zeros.
        cache: tuple of the state float (b, k - 1, m).

    Returns:
        As in `Mixer`.

    Example:
        DecoderBlock(8, 64, 1536, mixer=ShortConvolution(kernel_size=3))
    """

    @checked
    def __init__(self, kernel_size, use_bias=False, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.kernel_size = kernel_size
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape):
        width = self.width = x_shape[-1]
        self.in_proj = self._dense("in_proj", width, 3 * width, self.use_bias)
        self.conv = CausalConv1D(
            self.kernel_size, self.use_bias, dtype=self.dtype_policy, name="conv"
        )
        self.conv.build((None, None, width))
        self.out_proj = self._dense("out_proj", width, width, self.use_bias)

    def state_shapes(self):
        return {"conv": ((self.kernel_size - 1, self.width), None)}

    def call(
        self,
        x,
        attention_mask=None,
        position_ids=None,
        cache=None,
        cache_position=None,
        training=None,
        *,
        mask=None,
        x_mask=None,
    ):
        if attention_mask is None:
            attention_mask = combine_masks(mask, x_mask)
        gate_in, gate_out, x = ops.split(self.in_proj(x), 3, axis=-1)
        x = ops.multiply(gate_in, x)
        x, state = self.conv(x, mask=attention_mask, state=cache and cache[0])
        out = self.out_proj(ops.multiply(gate_out, x))
        return out if cache is None else (out, (state,))

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "kernel_size": self.kernel_size,
                "use_bias": self.use_bias,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            }
        )
        return config
