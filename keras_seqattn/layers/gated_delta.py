"""Linear attention by the gated delta rule, as a layer that replaces self-attention."""

import keras
from keras import ops

from keras_seqattn.layers.mixer import Mixer
from keras_seqattn.layers.normalization import normalization, normalize_sums
from keras_seqattn.layers.short_convolution import CausalConv1D
from keras_seqattn.layers.time_steps import TimeSteps
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.chunked_scan import chunked_scan
from keras_seqattn.ops.masks import combine_masks
from keras_seqattn.ops.precision import in_full_precision


@keras.saving.register_keras_serializable(package="keras_seqattn")
class GatedDelta(Mixer):
    """Gated DeltaNet (https://arxiv.org/abs/2412.06464): the state of a head is a matrix.

    The new value of a key replaces its old value:
    `S_t = a_t (I - b_t k_t k_t') S_{t-1} + b_t k_t v_t'`.
    Queries, keys and values pass through a short convolution, and queries and keys are scaled to
    length 1. The result is `W_o (rms_norm(S_t' q_t / sqrt(d)) * silu(z_t))`. The layer is causal
    and O(n), with a state of fixed size. Its weights have the layout of Qwen3-Next.

    Args:
        num_heads: number h of value heads.
        head_dim: size d of a query and key head.
        num_key_heads: number g of query and key heads, which divides h; None is h.
        value_dim: size e of a value head; None is d.
        kernel_size: number of tokens of the convolution.
        chunk_size: as in `chunked_scan`.
        layer_norm_epsilon: epsilon of the norm.
        kernel_initializer: for the projections, as in `keras.layers.Dense`.

    Call arguments:
        As in `Mixer`.
        cache: tuple of the state of the convolution, float (b, kernel_size - 1, 2 g d + h e), and
            the state of the recurrence, float32 (b, h, d, e).

    Returns:
        As in `Mixer`.

    Raises:
        ValueError: g does not divide h.

    Example:
        DecoderBlock(8, 64, 1536, mixer=GatedDelta(num_heads=8, head_dim=64))
    """

    @checked
    def __init__(
        self,
        num_heads,
        head_dim,
        num_key_heads=None,
        value_dim=None,
        kernel_size=4,
        chunk_size=64,
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
        self.num_key_heads = num_key_heads or num_heads
        self.value_dim = value_dim or head_dim
        self.kernel_size = kernel_size
        self.chunk_size = chunk_size
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if num_heads % self.num_key_heads:
            raise ValueError(
                "num_key_heads must divide num_heads. Received: "
                f"num_heads={num_heads}, num_key_heads={self.num_key_heads}"
            )
        # Sizes in one group: a query head, a key head, its value heads, and their gates.
        self._values = num_heads // self.num_key_heads * self.value_dim
        self._parts = (head_dim, head_dim, self._values, self._values)

    def build(self, x_shape):
        width, heads = x_shape[-1], self.num_heads
        groups, values = self.num_key_heads, heads * self.value_dim
        self.in_proj_qkvz = self._dense("in_proj_qkvz", width, groups * sum(self._parts))
        self.in_proj_ba = self._dense("in_proj_ba", width, 2 * heads)
        self.conv = CausalConv1D(
            self.kernel_size,
            use_bias=False,
            activation="silu",
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build((None, None, self._conv_width()))
        self.time_steps = TimeSteps(heads, dtype=self.dtype_policy, name="time_steps")
        self.time_steps.build((None, None, heads))
        self.norm = normalization(
            "rms_norm", self.layer_norm_epsilon, self.value_dim, self.dtype_policy, "norm"
        )
        self.out_proj = self._dense("out_proj", values, width)

    def _conv_width(self):
        return 2 * self.num_key_heads * self.head_dim + self.num_heads * self.value_dim

    def state_shapes(self):
        return {
            "conv": ((self.kernel_size - 1, self._conv_width()), None),
            "recurrent": ((self.num_heads, self.head_dim, self.value_dim), "float32"),
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
        mixed, gate = self._project(x)
        mixed, conv_state = self.conv(mixed, mask=attention_mask, state=conv_state)
        beta, log_decay = self._gates(x)
        out, state = chunked_scan(
            *self._heads(mixed),
            log_decay,
            beta,
            attention_mask,
            state,
            chunk_size=self.chunk_size,
        )
        gate = ops.reshape(gate, ops.shape(out))
        out = ops.multiply(normalize_sums(self.norm, out), ops.silu(gate))
        out = self.out_proj(_merge(out))
        return out if cache is None else (out, (conv_state, state))

    def _project(self, x):
        """The input of the convolution, float (b, t, c), and the gates, float (b, t, g, r * e)."""
        groups = self.num_key_heads
        x = self.in_proj_qkvz(x)
        x = ops.reshape(x, (*ops.shape(x)[:2], groups, sum(self._parts)))
        edges = [sum(self._parts[:i]) for i in (1, 2, 3)]
        *mixed, gate = ops.split(x, edges, axis=-1)
        return ops.concatenate([_merge(part) for part in mixed], axis=-1), gate

    def _heads(self, mixed):
        keys = self.num_key_heads * self.head_dim
        query, key, value = ops.split(mixed, [keys, 2 * keys], axis=-1)
        query, key = (_split(x, self.num_key_heads, self.head_dim) for x in (query, key))
        query = ops.multiply(_unit(query), self.head_dim**-0.5)
        return query, _unit(key), _split(in_full_precision(value), self.num_heads, self.value_dim)

    def _gates(self, x):
        groups = self.num_key_heads
        x = self.in_proj_ba(x)
        x = ops.reshape(x, (*ops.shape(x)[:2], groups, 2, self.num_heads // groups))
        beta, x = _merge(x[:, :, :, 0]), _merge(x[:, :, :, 1])
        _, log_decay = self.time_steps(x)
        return ops.sigmoid(ops.cast(beta, log_decay.dtype)), log_decay

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "head_dim": self.head_dim,
                "num_key_heads": self.num_key_heads,
                "value_dim": self.value_dim,
                "kernel_size": self.kernel_size,
                "chunk_size": self.chunk_size,
                "layer_norm_epsilon": self.layer_norm_epsilon,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            }
        )
        return config


def _unit(x):
    """Scale the vectors of the last axis to length 1, in full precision; zeros stay zeros."""
    x = in_full_precision(x)
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.add(squares, 1e-6)))


def _split(x, heads, size):
    return ops.reshape(x, (*ops.shape(x)[:2], heads, size))


def _merge(x):
    return ops.reshape(x, (*ops.shape(x)[:2], x.shape[2] * x.shape[3]))
