"""Transformer blocks: attention and feed-forward, each with a residual and its norms."""

import keras

from keras_seqattn.layers.block import Block
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.masks import combine_masks


@keras.saving.register_keras_serializable(package="keras_seqattn")
class EncoderBlock(Block):
    """Bidirectional self-attention and feed-forward.

    The arguments are those of `Block`: num_heads, head_dim, intermediate_dim and others.

    Call arguments:
        x: float (b, t, m).
        attention_mask: bool or int (b, t), (b, t, t) or (b|1, h|1, t, t); None takes the implicit
            Keras mask of `x`.
        bias: finite float (b|1, h|1, t, t), added to the scores.
        position_ids: int (b, t).
        global_attention_mask: as in `MultiHeadAttention`.

    Returns:
        float (b, t, m).

    Example:
        EncoderBlock(num_heads=12, head_dim=64, intermediate_dim=3072)
    """

    def build(self, x_shape):
        self._build_sublayers(x_shape)

    def call(
        self,
        x,
        attention_mask=None,
        bias=None,
        position_ids=None,
        global_attention_mask=None,
        training=None,
        *,
        mask=None,
        x_mask=None,
    ):
        if attention_mask is None:
            attention_mask = combine_masks(mask, x_mask)
        source = self._source(x)
        x, _ = self._self_attention(
            x,
            source,
            training,
            attention_mask=attention_mask,
            bias=bias,
            position_ids=position_ids,
            global_attention_mask=global_attention_mask,
        )
        return self._feed_forward(x, source, training)

    def compute_output_spec(self, x, *args, **kwargs):
        return keras.KerasTensor(x.shape, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class DecoderBlock(Block):
    """Causal self-attention, optional cross-attention, and feed-forward, with an explicit cache.

    Args:
        cross_attention: attend to a context between the two other sublayers.
        The other arguments are those of `Block`: num_heads, head_dim, intermediate_dim and others.

    Call arguments:
        x: float (b, t, m).
        context: float (b, s, m'), for the cross-attention.
        attention_mask: bool or int over the cached and the new positions: (b, p + t),
            (b, t, p + t) or (b|1, h|1, t, p + t).
        context_mask: bool or int (b, s) or (b, t, s); None takes the implicit mask of `context`.
        bias: finite float (b|1, h|1, t, p + t), added to the scores of the self-attention.
        position_ids: int (b, t).
        cache, cache_position: as in `MultiHeadAttention`, for the self-attention.
        context_cache: tuple of key (b, g, c, d) and value (b, g, c, d), for the cross-attention.
            With `context`, they belong to the part before it; without, to the whole context.

    Returns:
        float (b, t, m); with `cache`, a tuple of this and the new cache; with `context_cache` and
        `context`, the new context cache comes last.

    Raises:
        ValueError: a block with cross-attention gets neither `context` nor `context_cache`.

    Example:
        DecoderBlock(9, 64, 1536, num_key_value_heads=3, norm="rms_norm", normalize_first=True,
                     activation="silu", gated=True, use_bias=False, positions=RotaryPositions(64))
    """

    causal = True

    @checked
    def __init__(self, *args, cross_attention=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.cross_attends = cross_attention
        if cross_attention and self.residual.parallel:
            raise ValueError("A block with cross-attention has no parallel sublayers.")

    def build(self, x_shape, context_shape=None):
        self._build_sublayers(x_shape, context_shape)

    def call(
        self,
        x,
        context=None,
        attention_mask=None,
        context_mask=None,
        bias=None,
        position_ids=None,
        cache=None,
        cache_position=None,
        context_cache=None,
        training=None,
        *,
        mask=None,
        x_mask=None,
    ):
        if attention_mask is None and cache is None:
            attention_mask = combine_masks(mask, x_mask)
        source = self._source(x)
        x, present = self._self_attention(
            x,
            source,
            training,
            attention_mask=attention_mask,
            bias=bias,
            position_ids=position_ids,
            cache=cache,
            cache_position=cache_position,
        )
        context_present = []
        if self.cross_attends:
            x, context_present = self._cross_attention(
                x, context, context_mask, context_cache, training
            )
        x = self._feed_forward(x, source, training)
        presents = [*present, *context_present]
        return (x, *presents) if presents else x

    def _cross_attention(self, x, context, context_mask, context_cache, training):
        if context is None and context_cache is None:
            raise ValueError(
                f"{self.path}: cross-attention needs `context`, or `context_cache` with all of it."
            )

        def attend(y):
            return self.cross_attention(
                y,
                context,
                attention_mask=context_mask,
                cache=context_cache,
                frozen_cache=context is None,
                training=training,
            )

        return self._add("cross_attention", x, x, attend, training)

    def compute_output_spec(
        self,
        x,
        context=None,
        attention_mask=None,
        context_mask=None,
        bias=None,
        position_ids=None,
        cache=None,
        cache_position=None,
        context_cache=None,
        training=None,
        **masks,
    ):
        outputs = [keras.KerasTensor(x.shape, self.compute_dtype)]
        if cache is not None:
            outputs.append(
                self.attention.compute_output_spec(x, cache=cache, cache_position=cache_position)[1]
            )
        if context_cache is not None and context is not None:
            outputs.append(
                self.cross_attention.compute_output_spec(x, context, cache=context_cache)[1]
            )
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def get_config(self):
        config = super().get_config()
        config["cross_attention"] = self.cross_attends
        return config
