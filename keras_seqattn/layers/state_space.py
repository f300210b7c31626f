"""Mamba-2, as a layer that replaces self-attention."""

import keras
from keras import ops

from keras_seqattn.layers.mixer import Mixer
from keras_seqattn.layers.short_convolution import CausalConv1D
from keras_seqattn.layers.time_steps import TimeSteps
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.chunked_scan import chunked_scan
from keras_seqattn.ops.masks import combine_masks


@keras.saving.register_keras_serializable(package="keras_seqattn")
class StateSpace(Mixer):
    """The mixer of Mamba-2 (https://arxiv.org/abs/2405.21060), a selective state-space model.

    `[z, x, B, C, dt] = W_i u`, where x, B and C also pass through a short convolution. Then
    `S_t = exp(-exp(A_log) dt_t) S_{t-1} + dt_t B_t x_t'` and `y_t = S_t' C_t + D x_t`. The result
    is `W_o rms_norm(y * silu(z))`. The layer is causal and O(n), with a state of fixed size.

    Args:
        num_heads: number h of heads.
        head_dim: size e of a head.
        state_dim: size d of the state of each channel.
        num_groups: number g of groups of heads. The heads of a group share B and C, and they are
            normalised together.
        kernel_size: number of tokens of the convolution.
        use_bias: whether the projections have biases.
        use_conv_bias: whether the convolution has a bias.
        time_step_limit: None or (least, largest) time step.
        chunk_size: as in `chunked_scan`.
        layer_norm_epsilon: epsilon of the norm.
        kernel_initializer: for the projections, as in `keras.layers.Dense`.

    Call arguments:
        As in `Mixer`.
        cache: tuple of the state of the convolution, float (b, kernel_size - 1, h e + 2 g d), and
            the state of the recurrence, float32 (b, h, d, e).

    Returns:
        As in `Mixer`.

    Raises:
        ValueError: g does not divide h.

    Example:
        DecoderBlock(8, 64, 1536, mixer=StateSpace(num_heads=16, head_dim=64, state_dim=128))
    """

    @checked
    def __init__(
        self,
        num_heads,
        head_dim,
        state_dim,
        num_groups=1,
        kernel_size=4,
        use_bias=False,
        use_conv_bias=True,
        time_step_limit=None,
        chunk_size=64,
        layer_norm_epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        # XLA cannot differentiate TensorFlow's loops if their length is not a Python number.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.state_dim = state_dim
        self.num_groups = num_groups
        self.kernel_size = kernel_size
        self.use_bias = use_bias
        self.use_conv_bias = use_conv_bias
        self.time_step_limit = time_step_limit and list(time_step_limit)
        self.chunk_size = chunk_size
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if num_heads % num_groups:
            raise ValueError(
                "num_groups must divide num_heads. Received: "
                f"num_heads={num_heads}, num_groups={num_groups}"
            )
        self._inner = num_heads * head_dim
        self._conv_width = self._inner + 2 * num_groups * state_dim

    def build(self, x_shape):
        width, heads = x_shape[-1], self.num_heads
        units = self._inner + self._conv_width + heads
        self.in_proj = self._dense("in_proj", width, units, self.use_bias)
        settings = {"use_bias": self.use_conv_bias, "activation": "silu"}
        self.conv = CausalConv1D(self.kernel_size, **settings, dtype=self.dtype_policy, name="conv")
        self.conv.build((None, None, self._conv_width))
        self.time_steps = TimeSteps(
            heads, self.time_step_limit, dtype=self.dtype_policy, name="time_steps"
        )
        self.time_steps.build()
        self.D = self.add_weight(name="D", shape=(heads,), initializer="ones")
        self.norm_scale = self.add_weight(
            name="norm_scale", shape=(self._inner,), initializer="ones"
        )
        self.out_proj = self._dense("out_proj", self._inner, width, self.use_bias)

    def state_shapes(self):
        return {
            "conv": ((self.kernel_size - 1, self._conv_width), None),
            "recurrent": ((self.num_heads, self.state_dim, self.head_dim), "float32"),
        }

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
        conv_state, state = cache or (None, None)
        edges = [self._inner, self._inner + self._conv_width]
        gate, x, steps = ops.split(self.in_proj(x), edges, axis=-1)
        x, conv_state = self.conv(x, mask=attention_mask, state=conv_state)
        x, key, query = self._heads(x)
        steps, log_decay = self.time_steps(steps)
        value = ops.multiply(ops.cast(x, steps.dtype), ops.expand_dims(steps, -1))
        out, state = chunked_scan(
            query, key, value, log_decay, None, attention_mask, state, chunk_size=self.chunk_size
        )
        out = add(out, ops.multiply(x, ops.expand_dims(self.D, -1)))
        out = self.out_proj(self._gated_norm(out, gate))
        return out if cache is None else (out, (conv_state, state))

    def _heads(self, x):
        groups = self.num_groups
        shared = groups * self.state_dim
        parts = ops.split(x, [self._inner, self._inner + shared], axis=-1)
        sizes = ((self.num_heads, self.head_dim), *[(groups, self.state_dim)] * 2)
        lead = ops.shape(x)[:2]
        return [ops.reshape(p, (*lead, *size)) for p, size in zip(parts, sizes, strict=True)]

    def _gated_norm(self, x, gate):
        lead, inner, groups = ops.shape(x)[:2], self._inner, self.num_groups
        x = ops.multiply(ops.reshape(x, (*lead, inner)), ops.silu(ops.cast(gate, x.dtype)))
        x = ops.reshape(x, (*lead, groups, inner // groups))
        x = ops.rms_normalization(x, epsilon=self.layer_norm_epsilon)
        x = ops.cast(ops.reshape(x, (*lead, inner)), self.compute_dtype)
        return ops.multiply(x, self.norm_scale)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "head_dim": self.head_dim,
                "state_dim": self.state_dim,
                "num_groups": self.num_groups,
                "kernel_size": self.kernel_size,
                "use_bias": self.use_bias,
                "use_conv_bias": self.use_conv_bias,
                "time_step_limit": self.time_step_limit,
                "chunk_size": self.chunk_size,
                "layer_norm_epsilon": self.layer_norm_epsilon,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            }
        )
        return config
