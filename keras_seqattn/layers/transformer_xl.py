"""Attention by content and distance, over a segment and a memory of the earlier segments."""

import functools

import keras
from keras import ops

from keras_seqattn.layers.mixer import Mixer
from keras_seqattn.layers.recording import is_recording, record
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.attention import Attention, apply_attention
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import combine_masks
from keras_seqattn.ops.precision import products
from keras_seqattn.ops.relative_shift import distance_sinusoids, relative_shift


@keras.saving.register_keras_serializable(package="keras_seqattn")
class TransformerXLAttention(Mixer):
    """`softmax(((q + u) k' + (q + v) R') / sqrt(d)) v` (https://arxiv.org/abs/1901.02860).

    R holds the projected sinusoids of the distances `i - j`; u and v are learned for each head. The
    layer is causal. It is a mixer: use it as `mixer=` of a block, or alone. Its state is the
    memory, the last inputs of the layer. No gradient flows through the memory. Distances count
    positions, and padding counts too.

    Args:
        num_heads: number of heads h.
        head_dim: size d of a head.
        memory_length: number of positions M that are kept of earlier segments.
        same_length: attend only to the last M keys, including the own key. Then segments of any
            length give the same as one long call. Without it, this is only true while M covers the
            whole past.
        clamp_distance: larger distances are treated as this one; None is no limit.
        dropout: rate, applied to the probabilities.
        position_dropout: rate, applied to the sinusoids.
        kernel_initializer: for the projections and for u and v.

    Call arguments:
        x: float (b, t, m), m even.
        attention_mask: bool or int (b, t), nonzero = real; None takes the implicit Keras mask.
        position_ids, cache_position: not used; other mixers need them.
        cache: tuple of memory, float (b, M, m), and its mask, int (b, M); zeros at first.

    Returns:
        float (b, t, m); with `cache`, a tuple of this and the new cache.

    Raises:
        ValueError: `memory_length` is below 1, or the width m is odd.

    Example:
        DecoderBlock(8, 64, 2048, mixer=TransformerXLAttention(8, 64, memory_length=512))
    """

    @checked
    def __init__(
        self,
        num_heads,
        head_dim,
        memory_length,
        same_length=False,
        clamp_distance=None,
        dropout=0.0,
        position_dropout=0.0,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if memory_length < 1:
            raise ValueError(f"memory_length must be 1 or more. Received: {memory_length}")
        self.supports_masking = True
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.memory_length = memory_length
        self.same_length = same_length
        self.clamp_distance = clamp_distance
        self.dropout = dropout
        self.position_dropout = position_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape):
        self.width = width = x_shape[-1]
        if width % 2:
            raise ValueError(f"The width of the input must be even. Received: {width}")
        heads = (self.num_heads, self.head_dim)
        self.query, self.key, self.value = (
            self._projection(name, "btm,mhd->bthd", (None, *heads), (None, None, width))
            for name in ("query", "key", "value")
        )
        self.distance = self._projection("distance", "sm,mhd->shd", heads, (None, width))
        self.output_dense = self._projection(
            "output_dense", "bthd,hdm->btm", (None, width), (None, None, *heads)
        )
        self.content_bias, self.distance_bias = (
            self.add_weight(name=name, shape=heads, initializer=self.kernel_initializer.clone())
            for name in ("content_bias", "distance_bias")
        )
        self.dropout_layer, self.position_dropout_layer = (
            keras.layers.Dropout(rate, dtype=self.dtype_policy, name=name)
            for name, rate in (
                ("dropout", self.dropout),
                ("position_dropout", self.position_dropout),
            )
        )

    def _projection(self, name, equation, output_shape, input_shape):
        layer = keras.layers.EinsumDense(
            equation,
            output_shape,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.supports_masking = True
        layer.build(input_shape)
        return layer

    def state_shapes(self):
        """The memory, float (M, m), and its mask, int32 (M,); see `Mixer`."""
        return {
            "memory": ((self.memory_length, self.width), None),
            "mask": ((self.memory_length,), "int32"),
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
        context = x
        if cache is not None:
            context, attention_mask = self._remember(x, attention_mask, *cache)
        query, key, value = self.query(x), self.key(context), self.value(context)
        drops = training and self.dropout
        dropout = functools.partial(self.dropout_layer, training=True) if drops else None
        bias = self._distance_scores(query, ops.shape(context)[1], training)
        query = add(query, ops.cast(self.content_bias, query.dtype))
        window = (self.memory_length - 1, 0) if self.same_length else None
        operation = Attention(causal=True, window=window, return_scores=is_recording())
        out, _, scores = apply_attention(
            operation, query, key, value, attention_mask, bias, dropout=dropout
        )
        record(self, scores)
        y = self.output_dense(out)
        if cache is None:
            return y
        return y, (context[:, -self.memory_length :], attention_mask[:, -self.memory_length :])

    def _remember(self, x, attention_mask, memory, memory_mask):
        """The memory and then the new positions, and the mask of both."""
        context = ops.concatenate([ops.stop_gradient(memory), x], axis=1)
        if attention_mask is None:
            attention_mask = ops.ones(ops.shape(x)[:2], dtype=memory_mask.dtype)
        attention_mask = ops.cast(attention_mask, memory_mask.dtype)
        return context, ops.concatenate([memory_mask, attention_mask], axis=1)

    def _distance_scores(self, query, keys, training):
        """`(q + v) R' / sqrt(d)` for each key, float (b, h, t, s)."""
        sinusoids = distance_sinusoids(keys, self.width, self.clamp_distance)
        sinusoids = ops.cast(sinusoids, self.compute_dtype)
        if self.position_dropout:
            sinusoids = self.position_dropout_layer(sinusoids, training=training)
        query = add(query, ops.cast(self.distance_bias, query.dtype))
        scores = products(
            ops.transpose(ops.multiply(query, self.head_dim**-0.5), (0, 2, 1, 3)),
            ops.transpose(self.distance(sinusoids), (1, 0, 2)),
        )
        return relative_shift(scores)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "head_dim": self.head_dim,
                "memory_length": self.memory_length,
                "same_length": self.same_length,
                "clamp_distance": self.clamp_distance,
                "dropout": self.dropout,
                "position_dropout": self.position_dropout,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            }
        )
        return config
