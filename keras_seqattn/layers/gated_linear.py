"""Gated linear attention, as a layer that replaces self-attention."""

import keras
from keras import ops

from keras_seqattn.layers.mixer import Mixer
from keras_seqattn.layers.normalization import normalization, normalize_sums
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.chunked_scan import chunked_scan
from keras_seqattn.ops.masks import combine_masks
from keras_seqattn.ops.precision import in_full_precision


@keras.saving.register_keras_serializable(package="keras_seqattn")
class GatedLinearAttention(Mixer):
    """Linear attention whose state decays in each channel (https://arxiv.org/abs/2312.06635).

    `S_t = diag(a_t) S_{t-1} + k_t v_t'` with `a = sigmoid(W_2 W_1 x + b)^(1 / gate_temperature)`.
    The result is `W_o (rms_norm(S_t' q_t / sqrt(d)) * silu(W_r x))`. The layer is causal and O(n),
    with a state of fixed size.

    Args:
        num_heads: number h of heads.
        head_dim: size d of a query and key head.
        value_dim: size e of a value head; None is d.
        gate_rank: rank of the projection of the decay.
        gate_temperature: a larger value makes the decay slower.
        chunk_size: as in `chunked_scan`.
        layer_norm_epsilon: epsilon of the norm.
        kernel_initializer: for the projections, as in `keras.layers.Dense`.

    Call arguments:
        As in `Mixer`.
        cache: tuple of the state float32 (b, h, d, e).

    Returns:
        As in `Mixer`.

    Example:
        DecoderBlock(8, 64, 1536, mixer=GatedLinearAttention(num_heads=4, head_dim=64))
    """

    @checked
    def __init__(
        self,
        num_heads,
        head_dim,
        value_dim=None,
        gate_rank=16,
        gate_temperature=16.0,
        chunk_size=32,
        layer_norm_epsilon=1e-6,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        # XLA cannot differentiate TensorFlow's loops if their length is not a Python number.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.value_dim = value_dim or head_dim
        self.gate_rank = gate_rank
        self.gate_temperature = gate_temperature
        self.chunk_size = chunk_size
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape):
        width = x_shape[-1]
        keys, values = self.num_heads * self.head_dim, self.num_heads * self.value_dim
        self.query = self._dense("query", width, keys)
        self.key = self._dense("key", width, keys)
        self.value = self._dense("value", width, values)
        self.decay_down = self._dense("decay_down", width, self.gate_rank)
        self.decay_up = self._dense("decay_up", self.gate_rank, keys, use_bias=True)
        self.gate = self._dense("gate", width, values)
        self.norm = normalization(
            "rms_norm", self.layer_norm_epsilon, self.value_dim, self.dtype_policy, "norm"
        )
        self.output_dense = self._dense("output_dense", values, width)

    def state_shapes(self):
        return {"recurrent": ((self.num_heads, self.head_dim, self.value_dim), "float32")}

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
        decay = in_full_precision(self.decay_up(self.decay_down(x)))
        out, state = chunked_scan(
            self._heads(ops.multiply(self.query(x), self.head_dim**-0.5), self.head_dim),
            self._heads(self.key(x), self.head_dim),
            self._heads(in_full_precision(self.value(x)), self.value_dim),
            self._heads(ops.divide(ops.log_sigmoid(decay), self.gate_temperature), self.head_dim),
            mask=attention_mask,
            state=cache and cache[0],
            chunk_size=self.chunk_size,
        )
        gate = ops.silu(self._heads(self.gate(x), self.value_dim))
        out = ops.multiply(normalize_sums(self.norm, out), gate)
        out = ops.reshape(out, (*ops.shape(out)[:2], self.num_heads * self.value_dim))
        out = self.output_dense(out)
        return out if cache is None else (out, (state,))

    def _heads(self, x, size):
        return ops.reshape(x, (*ops.shape(x)[:2], self.num_heads, size))

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "head_dim": self.head_dim,
                "value_dim": self.value_dim,
                "gate_rank": self.gate_rank,
                "gate_temperature": self.gate_temperature,
                "chunk_size": self.chunk_size,
                "layer_norm_epsilon": self.layer_norm_epsilon,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            }
        )
        return config
