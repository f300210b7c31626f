"""The common part of both kinds of blocks: their sublayers, and how these add to the stream."""

import keras

from keras_seqattn.layers.attention import MultiHeadAttention
from keras_seqattn.layers.feed_forward import FeedForward
from keras_seqattn.layers.mechanisms.full import mechanism_template
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.residuals import read_residual
from keras_seqattn.layers.templates import from_template, template
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.broadcasting import add

# The arguments of every attention, of the self-attention only, of the feed-forward, and of the
# block itself.
_ATTENTION = (
    *("num_heads", "head_dim", "num_key_value_heads", "use_bias", "use_output_bias"),
    *("scale", "softcap", "query_norm", "key_norm"),
)
_SELF_ATTENTION = ("window", "sinks", "positions", "output_gate", "attention")
_FEED_FORWARD = ("intermediate_dim", "activation", "gated")
_OWN = (
    *("use_feed_forward_bias", "norm", "layer_norm_epsilon", "normalize_first"),
    *("dropout", "attention_dropout", "activation_dropout"),
)


class Block(keras.layers.Layer):
    """A residual stream x to which sublayers f add, with pre-norm, post-norm or other norms.

    Args:
        num_heads, head_dim, num_key_value_heads, use_bias, use_output_bias, window, scale, softcap,
            sinks, positions, query_norm, key_norm, output_gate, attention: as in
            `MultiHeadAttention`.
        mixer: None, or a `Mixer` that replaces the self-attention.
        intermediate_dim, activation, gated: as in `FeedForward`.
        use_feed_forward_bias: whether the feed-forward has biases; None follows `use_bias`.
        norm: "layer_norm", "rms_norm" or "zero_centered_rms_norm".
        layer_norm_epsilon: epsilon of every normalisation.
        normalize_first: pre-norm `x + f(norm(x))`, or else post-norm `norm(x + f(x))`.
        residual: None, or another place for the norms: a name in `residuals.RESIDUALS`, for example
            "both" or "parallel", or a `Residual`.
        feed_forward: None, or a layer that replaces the feed-forward, from float (b, t, m) to the
            same shape. `intermediate_dim` and the other arguments of `FeedForward` are then not
            used.
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
        intermediate_dim=None,
        num_key_value_heads=None,
        activation="gelu",
        gated=False,
        use_bias=True,
        use_output_bias=None,
        use_feed_forward_bias=None,
        norm="layer_norm",
        layer_norm_epsilon=1e-6,
        normalize_first=False,
        residual=None,
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
        feed_forward=None,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        arguments = dict(locals())
        super().__init__(**kwargs)
        self.supports_masking = True
        if intermediate_dim is None and feed_forward is None:
            raise ValueError("A block needs intermediate_dim, or a layer for feed_forward.")
        self._keep_arguments(arguments)
        self.residual = read_residual(residual, normalize_first)

    def _keep_arguments(self, given):
        """Keep the arguments of `__init__`, grouped by sublayer."""
        self.attention_settings = {name: given[name] for name in _ATTENTION}
        self.self_attention_settings = {name: given[name] for name in _SELF_ATTENTION}
        attention = mechanism_template(given["attention"])
        self.self_attention_settings["attention"] = attention
        self.feed_forward_settings = {name: given[name] for name in _FEED_FORWARD}
        for name in _OWN:
            setattr(self, name, given[name])
        self.mixer = template(given["mixer"], "mixer")
        self.feed_forward_template = template(given["feed_forward"], "feed_forward")
        self.given_residual = given["residual"]
        self.kernel_initializer = keras.initializers.get(given["kernel_initializer"])
        self.bias_initializer = keras.initializers.get(given["bias_initializer"])

    def _build_sublayers(self, x_shape, context_shape=None):
        if self.mixer is None:
            self.attention = self._attention(
                "attention", x_shape, causal=self.causal, **self.self_attention_settings
            )
        else:
            self.attention = from_template(self.mixer, self.dtype_policy)
            self.attention.build(x_shape)
        self._build_norms("attention", x_shape)
        if self.residual.shared_norm:
            self.attention_norm = self._normalization("attention_norm", x_shape)
        if self.cross_attends:
            self.cross_attention = self._attention("cross_attention", x_shape, context_shape)
            self._build_norms("cross_attention", x_shape)
        self.feed_forward = self._make_feed_forward()
        self.feed_forward.build(x_shape)
        self._build_norms("feed_forward", x_shape)
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )

    def _make_feed_forward(self):
        if self.feed_forward_template is not None:
            return from_template(self.feed_forward_template, self.dtype_policy)
        use_bias = self.use_feed_forward_bias
        return FeedForward(
            use_bias=self.attention_settings["use_bias"] if use_bias is None else use_bias,
            dropout=self.activation_dropout,
            **self.feed_forward_settings,
            **self._common("feed_forward"),
        )

    def _build_norms(self, sublayer, shape):
        for name in self.residual.norms(sublayer).values():
            setattr(self, name, self._normalization(name, shape))

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

    def _source(self, x):
        """The input of the first sublayer, before a norm of that sublayer."""
        return self.attention_norm(x) if self.residual.shared_norm else x

    def _add(self, name, x, source, sublayer, training):
        """Add the result of a sublayer on `source` to `x`; its other results are passed on."""
        result = sublayer(self._normalized(name, "input", source))
        out, *extra = result if isinstance(result, tuple) else (result,)
        out = self._normalized(name, "output", out)
        if self.dropout:
            out = self.dropout_layer(out, training=training)
        return self._normalized(name, "sum", add(x, out)), extra

    def _normalized(self, sublayer, place, x):
        name = self.residual.norms(sublayer).get(place)
        return x if name is None else getattr(self, name)(x)

    def _self_attention(self, x, source, training, **call):
        call = {name: value for name, value in call.items() if value is not None}
        unknown = {"bias", "global_attention_mask"} & set(call)
        if self.mixer is not None and unknown:
            raise ValueError(f"{self.path}: the mixer takes no {' and no '.join(sorted(unknown))}.")

        def attend(y):
            return self.attention(y, training=training, **call)

        return self._add("attention", x, source, attend, training)

    def state_shapes(self):
        """The state of the self-attention, or of the mixer in its place. See `Mixer`."""
        return self.attention.state_shapes()

    def cache_shapes(self):
        """The cache of the self-attention, or of the mixer in its place. See `Mixer`."""
        return self.attention.cache_shapes()

    def _feed_forward(self, x, source, training):
        def feed(y):
            return self.feed_forward(y, training=training)

        source = source if self.residual.parallel else x
        return self._add("feed_forward", x, source, feed, training)[0]

    def get_config(self):
        config = super().get_config()
        config.update(self.attention_settings)
        config.update(self.self_attention_settings)
        config.update(self.feed_forward_settings)
        activation = config["activation"]
        if not isinstance(activation, str):
            config["activation"] = keras.activations.serialize(activation)
        config.update({name: getattr(self, name) for name in _OWN})
        config.update(
            {
                "positions": keras.saving.serialize_keras_object(config["positions"]),
                "residual": keras.saving.serialize_keras_object(self.given_residual),
                "mixer": self.mixer,
                "feed_forward": self.feed_forward_template,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        # Older files have no residual.
        objects = {name: config.get(name) for name in ("positions", "residual")}
        objects = {n: keras.saving.deserialize_keras_object(x) for n, x in objects.items()}
        return super().from_config({**config, **objects})
