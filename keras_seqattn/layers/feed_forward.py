"""The position-wise feed-forward layer, plain or gated."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked


def _quick_gelu(x):
    return ops.multiply(x, ops.sigmoid(ops.multiply(x, 1.702)))


def _gelu(x):
    return ops.gelu(x, approximate=False)


def _gelu_tanh(x):
    return ops.gelu(x, approximate=True)


_ACTIVATIONS = {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "quick_gelu": _quick_gelu}


def activation_function(activation):
    """The function for "gelu" (exact), "gelu_tanh", "quick_gelu" or an activation of Keras."""
    if isinstance(activation, str) and activation in _ACTIVATIONS:
        return _ACTIVATIONS[activation]
    return keras.activations.get(activation)


def build_activation(function, shape):
    """Build an activation that is a layer, because nothing else builds it."""
    if isinstance(function, keras.Layer) and not function.built:
        function.build(shape)


def activate(function, x):
    """`function(x)`, which must have the shape of x.

    Raises:
        ValueError: the result has another shape.
    """
    y = function(x)
    shape = getattr(y, "shape", ())
    sizes = zip(shape, x.shape, strict=False)
    if len(shape) != len(x.shape) or any(None not in pair and pair[0] != pair[1] for pair in sizes):
        raise ValueError(
            "An activation must keep the shape of what it is given. Received: "
            f"activation={str(function)[:80]}, which gives {tuple(shape)} for {tuple(x.shape)}"
        )
    return y


@keras.saving.register_keras_serializable(package="keras_seqattn")
class FeedForward(keras.layers.Layer):
    """`down(act(up(x)))`, or gated `down(act(gate(x)) * up(x))` (https://arxiv.org/abs/2002.05202).

    Args:
        intermediate_dim: feed-forward width f.
        output_dim: width of the result; None is the width of the input.
        activation: "gelu" (exact), "gelu_tanh", "quick_gelu", or anything that `keras.activations`
            accepts: a function or a layer that keeps the shape.
        gated: multiply by an activated gate (SwiGLU with "silu", GeGLU with "gelu").
        use_bias: whether the Dense sublayers have biases.
        dropout: rate, applied to the intermediate activations.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Call arguments:
        inputs: float (b, t, m).

    Returns:
        float (b, t, m).

    Example:
        FeedForward(1536, activation="silu", gated=True, use_bias=False)
    """

    @checked
    def __init__(
        self,
        intermediate_dim,
        output_dim=None,
        activation="gelu",
        gated=False,
        use_bias=True,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.intermediate_dim = intermediate_dim
        self.output_dim = output_dim
        self.activation = activation
        self.gated = gated
        self.use_bias = use_bias
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self._activate = activation_function(activation)

    def build(self, inputs_shape):
        width = inputs_shape[-1]
        self.up = self._dense("up", width, self.intermediate_dim)
        self.gate = self._dense("gate", width, self.intermediate_dim) if self.gated else None
        build_activation(self._activate, (*inputs_shape[:-1], self.intermediate_dim))
        self.down = self._dense("down", self.intermediate_dim, self.output_dim or width)
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )

    def _dense(self, name, input_dim, units):
        layer = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, None, input_dim))
        return layer

    def call(self, inputs, training=None):
        hidden = self.up(inputs)
        if self.gate is None:
            hidden = activate(self._activate, hidden)
        else:
            hidden = ops.multiply(activate(self._activate, self.gate(inputs)), hidden)
        if self.dropout:
            hidden = self.dropout_layer(hidden, training=training)
        return self.down(hidden)

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape[:-1], self.output_dim or inputs_shape[-1])

    def get_config(self):
        activation = self.activation
        config = super().get_config()
        config.update(
            {
                "intermediate_dim": self.intermediate_dim,
                "output_dim": self.output_dim,
                "activation": activation
                if activation is None or isinstance(activation, str)
                else keras.activations.serialize(activation),
                "gated": self.gated,
                "use_bias": self.use_bias,
                "dropout": self.dropout,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            }
        )
        return config
