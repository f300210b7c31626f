"""Multi-head latent attention: one small vector per token gives keys and values for all heads."""

import functools
import math

import keras
from keras import ops

from keras_seqattn.layers.mixer import Mixer
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.recording import is_recording, record
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.attention import Attention, apply_attention
from keras_seqattn.ops.cache import cache_write
from keras_seqattn.ops.masks import band_mask, combine_masks, expand_mask
from keras_seqattn.ops.nothing import is_empty
from keras_seqattn.ops.positions import slot_positions


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LatentAttention(Mixer):
    """Multi-head latent attention (https://arxiv.org/abs/2405.04434), causal.

    `c = norm(W_c x)`, `k = [W_k c; rotate(W_r x)]`, `v = W_v c`: all heads share the latent c and
    the rotated part of the key. Without a cache, the keys and values of each head are computed.
    With a cache they are not: the cache keeps only c and the rotated part. Because
    `q' W_k c = (W_k' q)' c`, the queries are projected to the latent space, and the results back.
    There, one key of size r + dr and one value of size r serve all heads. Both forms give the same
    result. It is a mixer: use it as `mixer=` of a block, or alone.

    Args:
        num_heads: number of heads h.
        head_dim: size d of the part of a query and key head that does not depend on positions.
        rotary_dim: size dr of the part that depends on positions.
        latent_dim: size r of the latent.
        value_dim: size e of a value head; None is d.
        query_latent_dim: size of a latent of the queries; None projects them directly.
        positions: None, or a `RotaryPositions` of size dr.
        scale: factor of the scores; None is `1 / sqrt(d + dr)`.
        use_bias: whether the projections to the latents and the output projection have biases.
        layer_norm_epsilon: epsilon of the norms of the latents.
        dropout: rate, applied to the probabilities.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Call arguments:
        x: float (b, t, m).
        attention_mask: bool or int (b, p + t), nonzero = attend, over the cached and the new
            positions; None takes the implicit Keras mask.
        position_ids: int (b, t); None continues after the cache.
        cache: tuple of key, float (b, 1, p, dr), the rotated parts, and value, float (b, 1, p, r),
            the latents. With `cache_position` they are buffers of n slots.
        cache_position: int () or (1,), the slot of the first new token; the mask is then (b, n).

    Returns:
        float (b, t, m); with `cache`, a tuple of this and the new cache.

    Example:
        LatentAttention(16, 128, rotary_dim=64, latent_dim=512,
                        positions=RotaryPositions(64, interleaved=True))
    """

    @checked
    def __init__(
        self,
        num_heads,
        head_dim,
        rotary_dim,
        latent_dim,
        value_dim=None,
        query_latent_dim=None,
        positions=None,
        scale=None,
        use_bias=False,
        layer_norm_epsilon=1e-6,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.rotary_dim = rotary_dim
        self.latent_dim = latent_dim
        self.value_dim = value_dim or head_dim
        self.query_latent_dim = query_latent_dim
        self.positions = positions
        self.scale = scale
        self.use_bias = use_bias
        self.layer_norm_epsilon = layer_norm_epsilon
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, x_shape):
        width, heads = x_shape[-1], self.num_heads
        query_width = width
        if self.query_latent_dim is not None:
            query_width = self.query_latent_dim
            self.query_down = self._dense("query_down", width, query_width, self.use_bias)
            self.query_norm = self._norm("query_norm", query_width)
        self.query = self._dense("query", query_width, heads * (self.head_dim + self.rotary_dim))
        self.latent = self._dense("latent", width, self.latent_dim + self.rotary_dim, self.use_bias)
        self.latent_norm = self._norm("latent_norm", self.latent_dim)
        self.key_value = self.add_weight(
            name="key_value",
            shape=(self.latent_dim, heads, self.head_dim + self.value_dim),
            initializer=self.kernel_initializer.clone(),
        )
        self.output_dense = self._dense(
            "output_dense", heads * self.value_dim, width, self.use_bias
        )
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )

    def _dense(self, name, input_dim, units, use_bias=False):
        layer = keras.layers.Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, None, input_dim))
        return layer

    def _norm(self, name, dim):
        return normalization("rms_norm", self.layer_norm_epsilon, dim, self.dtype_policy, name)

    def cache_shapes(self):
        """One head for the rotated parts of the keys, and one for the latents; see `Mixer`."""
        return {"key": (1, self.rotary_dim), "value": (1, self.latent_dim)}

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
        if attention_mask is None and cache is None:
            attention_mask = combine_masks(mask, x_mask)
        past_key = None if cache is None else cache[0]
        slots, key_slots = slot_positions(x, past_key, cache_position)
        content, rotated, key, latent = self._project(x, position_ids, slots)
        dropout = None
        if training and self.dropout:
            dropout = functools.partial(self.dropout_layer, training=True)
        if cache is None:
            operation = self._operation(causal=True)
            parts = self._written_out(content, rotated, key, latent)
            out, _, scores = apply_attention(operation, *parts, attention_mask, dropout=dropout)
        else:
            cache = _extend(cache, (key, latent), cache_position)
            allowed = combine_masks(
                band_mask(slots, key_slots, causal=True),
                None if attention_mask is None else expand_mask(attention_mask),
            )
            query, past = self._absorbed(content, rotated, *cache)
            out, _, scores = apply_attention(
                self._operation(), query, None, None, allowed, past=past, dropout=dropout
            )
            out = self._from_latent(out)
        record(self, scores)
        out = ops.reshape(out, (*ops.shape(out)[:2], self.num_heads * self.value_dim))
        y = self.output_dense(out)
        return y if cache is None else (y, cache)

    def _project(self, x, position_ids, slots):
        """The projections of the input.

        Returns:
            The two parts of the queries (b, t, h, d) and (b, t, h, dr), the rotated part of the
            keys (b, t, 1, dr), and the latents (b, t, 1, r).
        """
        query = x
        if self.query_latent_dim is not None:
            query = self.query_norm(self.query_down(query))
        shape = (*ops.shape(x)[:2], self.num_heads, self.head_dim + self.rotary_dim)
        query = ops.reshape(self.query(query), shape)
        content, rotated = query[..., : self.head_dim], query[..., self.head_dim :]
        latent = self.latent(x)
        key = ops.expand_dims(latent[..., self.latent_dim :], 2)
        latent = self.latent_norm(latent[..., : self.latent_dim])
        if self.positions is not None:
            if position_ids is None:
                position_ids = ops.expand_dims(slots, 0)
            rotated, key = self.positions.rotate(rotated, key, position_ids)
        return content, rotated, key, ops.expand_dims(latent, 2)

    def _operation(self, causal=False):
        scale = self.scale
        if scale is None:
            scale = 1.0 / math.sqrt(self.head_dim + self.rotary_dim)
        return Attention(causal, scale=scale, return_scores=is_recording())

    def _written_out(self, content, rotated, key, latent):
        """Query, key and value of each head, (b, t, h, d + dr) and (b, t, h, e)."""
        kernel = ops.convert_to_tensor(self.key_value)
        latent = ops.squeeze(latent, 2)
        if is_empty(latent):
            # Without rows and tokens, TensorFlow would make one row.
            both = ops.zeros((*latent.shape[:2], *kernel.shape[1:]), latent.dtype)
        else:
            both = ops.einsum("btr,rhc->bthc", latent, kernel)
        key = ops.concatenate(
            [both[..., : self.head_dim], ops.repeat(key, self.num_heads, axis=2)], axis=-1
        )
        return ops.concatenate([content, rotated], axis=-1), key, both[..., self.head_dim :]

    def _absorbed(self, content, rotated, key, latent):
        """Attention in the latent space.

        Returns:
            The queries (b, t, h, r + dr), one key (b, 1, s, r + dr) and one value (b, 1, s, r).
        """
        kernel = ops.convert_to_tensor(self.key_value)[..., : self.head_dim]
        content = _per_head(content, ops.transpose(kernel, (1, 2, 0)))
        query = ops.concatenate([content, rotated], axis=-1)
        return query, (ops.concatenate([latent, key], axis=-1), latent)

    def _from_latent(self, out):
        """The results of the heads, (b, t, h, e), from those in the latent space, (b, t, h, r)."""
        kernel = ops.convert_to_tensor(self.key_value)[..., self.head_dim :]
        return _per_head(out, ops.transpose(kernel, (1, 0, 2)))

    def compute_output_spec(
        self, x, attention_mask=None, position_ids=None, cache=None, cache_position=None, **kwargs
    ):
        y = keras.KerasTensor(x.shape, self.compute_dtype)
        if cache is None:
            return y
        length = cache[0].shape[2]
        if cache_position is None:
            known = length is not None and x.shape[1] is not None
            length = length + x.shape[1] if known else None
        return y, tuple(
            keras.KerasTensor((*old.shape[:2], length, old.shape[3]), old.dtype) for old in cache
        )

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "head_dim": self.head_dim,
                "rotary_dim": self.rotary_dim,
                "latent_dim": self.latent_dim,
                "value_dim": self.value_dim,
                "query_latent_dim": self.query_latent_dim,
                "positions": keras.saving.serialize_keras_object(self.positions),
                "scale": self.scale,
                "use_bias": self.use_bias,
                "layer_norm_epsilon": self.layer_norm_epsilon,
                "dropout": self.dropout,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        positions = keras.saving.deserialize_keras_object(config["positions"])
        return super().from_config({**config, "positions": positions})


def _extend(cache, new, cache_position):
    """Put new entries (b, t, 1, size) into a cache: after the others, or at a slot."""
    pairs = zip(cache, new, strict=True)
    if cache_position is not None:
        return tuple(cache_write(*pair, cache_position) for pair in pairs)
    return tuple(
        ops.concatenate([old, ops.transpose(entry, (0, 2, 1, 3))], axis=2) for old, entry in pairs
    )


def _per_head(x, kernels):
    """Multiply each head by its own matrix: (b, t, h, i) and (h, i, o) give (b, t, h, o)."""
    return ops.transpose(ops.matmul(ops.transpose(x, (0, 2, 1, 3)), kernels), (0, 2, 1, 3))
