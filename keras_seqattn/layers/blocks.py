"""Transformer blocks: attention and feed-forward, each with a residual and a normalisation."""

import keras

from keras_seqattn.layers.attention import MultiHeadAttention
from keras_seqattn.layers.feed_forward import FeedForward
from keras_seqattn.layers.mechanisms.dense import mechanism_template
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.templates import from_template, template
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import combine_masks


class _Block(keras.layers.Layer):
    """Post-norm `x = norm(x + f(x))` or pre-norm `x = x + f(norm(x))`, for each sublayer f.

    Args:
        num_heads, head_dim, num_key_value_heads, use_bias, use_output_bias, window, scale, softcap,
            sinks, positions, query_norm, key_norm, output_gate, attention: as in
            `MultiHeadAttention`.
        mixer: None, or a `Mixer` that stands in for the self-attention.
        intermediate_dim, activation, gated: as in `FeedForward`.
        use_feed_forward_bias: whether the feed-forward has biases; None follows `use_bias`.
        norm: "layer_norm", "rms_norm" or "zero_centered_rms_norm".
        layer_norm_epsilon: epsilon of every normalisation.
        normalize_first: pre-norm.
        dropout: rate, applied to the result of each sublayer.
        attention_dropout: rate, applied to the attention probabilities.
        activation_dropout: rate, applied to the intermediate activations of the feed-forward.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.
    """

    causal = False
    cross_attends = False

    @checked
    def __init__(
        self,
        num_heads,
        head_dim,
        intermediate_dim,
        num_key_value_heads=None,
        activation="gelu",
        gated=False,
        use_bias=True,
        use_output_bias=None,
        use_feed_forward_bias=None,
        norm="layer_norm",
        layer_norm_epsilon=1e-6,
        normalize_first=False,
        window=None,
        scale=None,
        softcap=None,
        sinks=False,
        positions=None,
        query_norm=None,
        key_norm=None,
        output_gate=False,
        attention=None,
        mixer=None,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.norm = norm
        self.layer_norm_epsilon = layer_norm_epsilon
        self.normalize_first = normalize_first
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.attention_settings = {
            "num_heads": num_heads,
            "head_dim": head_dim,
            "num_key_value_heads": num_key_value_heads,
            "use_bias": use_bias,
            "use_output_bias": use_output_bias,
            "scale": scale,
            "softcap": softcap,
            "query_norm": query_norm,
            "key_norm": key_norm,
        }
        self.self_attention_settings = {
            "window": window,
            "sinks": sinks,
            "positions": positions,
            "output_gate": output_gate,
            "attention": mechanism_template(attention),
        }
        self.mixer = template(mixer, "mixer")
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout
        self.feed_forward_settings = {
            "intermediate_dim": intermediate_dim,
            "activation": activation,
            "gated": gated,
        }
        self.use_feed_forward_bias = use_feed_forward_bias

    def _build_sublayers(self, x_shape, context_shape=None):
        if self.mixer is None:
            self.attention = self._attention(
                "attention", x_shape, causal=self.causal, **self.self_attention_settings
            )
        else:
            self.attention = from_template(self.mixer, self.dtype_policy)
            self.attention.build(x_shape)
        self.attention_norm = self._normalization("attention_norm", x_shape)
        if self.cross_attends:
            self.cross_attention = self._attention("cross_attention", x_shape, context_shape)
            self.cross_attention_norm = self._normalization("cross_attention_norm", x_shape)
        use_bias = self.use_feed_forward_bias
        self.feed_forward = FeedForward(
            use_bias=self.attention_settings["use_bias"] if use_bias is None else use_bias,
            dropout=self.activation_dropout,
            **self.feed_forward_settings,
            **self._common("feed_forward"),
        )
        self.feed_forward.build(x_shape)
        self.feed_forward_norm = self._normalization("feed_forward_norm", x_shape)
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )

    def _common(self, name):
        return {
            "kernel_initializer": self.kernel_initializer.clone(),
            "bias_initializer": self.bias_initializer.clone(),
            "dtype": self.dtype_policy,
            "name": name,
        }

    def _attention(self, name, *shapes, **settings):
        layer = MultiHeadAttention(
            **self.attention_settings,
            **settings,
            layer_norm_epsilon=self.layer_norm_epsilon,
            dropout=self.attention_dropout,
            **self._common(name),
        )
        layer.build(*shapes)
        return layer

    def _normalization(self, name, shape):
        return normalization(self.norm, self.layer_norm_epsilon, shape[-1], self.dtype_policy, name)

    def _residual(self, x, norm, sublayer, training):
        """One sublayer with its residual; extra results of the sublayer are handed through."""
        result = sublayer(norm(x) if self.normalize_first else x)
        out, *extra = result if isinstance(result, tuple) else (result,)
        if self.dropout:
            out = self.dropout_layer(out, training=training)
        out = add(x, out)
        return (out if self.normalize_first else norm(out)), extra

    def _self_attention(self, x, training, **call):
        call = {name: value for name, value in call.items() if value is not None}
        unknown = {"bias", "global_attention_mask"} & set(call)
        if self.mixer is not None and unknown:
            raise ValueError(f"{self.path}: the mixer takes no {' and no '.join(sorted(unknown))}.")
        return self._residual(
            x,
            self.attention_norm,
            lambda y: self.attention(y, training=training, **call),
            training,
        )

    def state_shapes(self):
        """As of `MultiHeadAttention` and `Mixer`, for the self-attention or what stands in."""
        return self.attention.state_shapes()

    def cache_shapes(self):
        """As of `MultiHeadAttention` and `Mixer`, for the self-attention or what stands in."""
        return self.attention.cache_shapes()

    def _feed_forward(self, x, training):
        out, _ = self._residual(
            x,
            self.feed_forward_norm,
            lambda y: self.feed_forward(y, training=training),
            training,
        )
        return out

    def get_config(self):
        config = super().get_config()
        config.update(self.attention_settings)
        config.update(self.self_attention_settings)
        config.update(self.feed_forward_settings)
        activation = config["activation"]
        if not isinstance(activation, str):
            config["activation"] = keras.activations.serialize(activation)
        config.update(
            {
                "positions": keras.saving.serialize_keras_object(config["positions"]),
                "mixer": self.mixer,
                "use_feed_forward_bias": self.use_feed_forward_bias,
                "norm": self.norm,
                "layer_norm_epsilon": self.layer_norm_epsilon,
                "normalize_first": self.normalize_first,
                "dropout": self.dropout,
                "attention_dropout": self.attention_dropout,
                "activation_dropout": self.activation_dropout,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        positions = keras.saving.deserialize_keras_object(config["positions"])
        return super().from_config({**config, "positions": positions})


@keras.saving.register_keras_serializable(package="keras_seqattn")
class EncoderBlock(_Block):
    """Bidirectional self-attention and feed-forward.

    Args as in `_Block`:
        num_heads, head_dim, intermediate_dim and their variations.

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
        x, _ = self._self_attention(
            x,
            training,
            attention_mask=attention_mask,
            bias=bias,
            position_ids=position_ids,
            global_attention_mask=global_attention_mask,
        )
        return self._feed_forward(x, training)

    def compute_output_spec(self, x, *args, **kwargs):
        return keras.KerasTensor(x.shape, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class DecoderBlock(_Block):
    """Causal self-attention, optional cross-attention, and feed-forward, with an explicit cache.

    Args:
        cross_attention: attend to a context between the two other sublayers.
        And those of `_Block`: num_heads, head_dim, intermediate_dim and their variations.

    Call arguments:
        x: float (b, t, m).
        context: float (b, s, m'), for the cross-attention.
        attention_mask: bool or int over the cached and the new positions: (b, p + t),
            (b, t, p + t) or (b|1, h|1, t, p + t).
        context_mask: bool or int (b, s) or (b, t, s); None takes the implicit mask of `context`.
        bias: finite float (b|1, h|1, t, p + t), added to the self-attention's scores.
        position_ids: int (b, t).
        cache, cache_position: as in `MultiHeadAttention`, for the self-attention.
        context_cache: tuple of key (b, g, c, d) and value (b, g, c, d), for the cross-attention:
            with `context`, those of what comes before it; without, those of the whole context.

    Returns:
        float (b, t, m); with `cache` a tuple of it and the new cache; with `context_cache` and
        `context` the new context cache last.

    Raises:
        ValueError: cross-attention without `context` and without `context_cache`.

    Example:
        DecoderBlock(9, 64, 1536, num_key_value_heads=3, norm="rms_norm", normalize_first=True,
                     activation="silu", gated=True, use_bias=False, positions=RotaryPositions(64))
    """

    causal = True

    @checked
    def __init__(self, *args, cross_attention=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.cross_attends = cross_attention

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
        x, present = self._self_attention(
            x,
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
        x = self._feed_forward(x, training)
        presents = [*present, *context_present]
        return (x, *presents) if presents else x

    def _cross_attention(self, x, context, context_mask, context_cache, training):
        if context is None and context_cache is None:
            raise ValueError(
                f"{self.path}: cross-attention needs `context`, or `context_cache` with all of it."
            )
        return self._residual(
            x,
            self.cross_attention_norm,
            lambda y: self.cross_attention(
                y,
                context,
                attention_mask=context_mask,
                cache=context_cache,
                frozen_cache=context is None,
                training=training,
            ),
            training,
        )

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
