"""Longformer's attention as a mechanism."""

import keras
from keras import ops

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.gather import take_tokens
from keras_seqattn.ops.global_local import global_local_attention, global_tokens
from keras_seqattn.ops.local import local_attention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class GlobalLocal(Mechanism):
    """Longformer's attention (https://arxiv.org/abs/2004.05150), O(n (left + right + G)).

    A token attends to its window and to the global tokens. A global token attends to all tokens,
    with other projections: `softmax(q_g k_g' / sqrt(d)) v_g`.

    Args:
        left, right: a token attends to keys j with `-left <= j - i <= right`.
        max_global_tokens: G, the maximum number of global tokens per row; more are an error. A
            compiled function or an exported graph cannot raise an error: there the tokens after
            the first G are ordinary tokens.
        input_dim: width m of `inputs`; None is `h d`.
        use_bias: whether the global projections have biases.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Call arguments beside those of `Mechanism`:
        inputs: float (b, t, m), the input of the global projections.
        global_mask: bool or int (b, t), nonzero = global; None means no global tokens.

    Raises:
        ValueError: a side of the window is negative, `max_global_tokens` is below 1, a call is
            causal or is cross-attention, a mask comes without inputs, or a row has too many global
            tokens.

    Example:
        MultiHeadAttention(12, 64, attention=GlobalLocal(256, 256, max_global_tokens=32))
    """

    extras = ("inputs", "global_mask")

    @checked
    def __init__(
        self,
        left,
        right,
        max_global_tokens,
        input_dim=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if min(left, right) < 0 or max_global_tokens < 1:
            raise ValueError(
                "Both sides of the window must be 0 or more, and max_global_tokens 1 or more. "
                f"Received: left={left}, right={right}, max_global_tokens={max_global_tokens}"
            )
        self.left = left
        self.right = right
        self.max_global_tokens = max_global_tokens
        self.input_dim = input_dim
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, query_shape, key_shape=None, value_shape=None):
        key_shape, value_shape = key_shape or query_shape, value_shape or query_shape
        width = self.input_dim or query_shape[2] * query_shape[3]
        shapes = {"query": query_shape, "key": key_shape, "value": value_shape}
        self.query_global, self.key_global, self.value_global = (
            self._dense(f"{name}_global", width, shape) for name, shape in shapes.items()
        )
        super().build(query_shape, key_shape, value_shape)

    def _dense(self, name, width, shape):
        layer = keras.layers.Dense(
            shape[2] * shape[3],
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, None, width))
        return layer

    def call(
        self,
        query,
        key,
        value,
        mask=None,
        state=None,
        causal=False,
        scale=None,
        training=None,
        inputs=None,
        global_mask=None,
    ):
        self._check_call(query, key, state, causal, inputs, global_mask)
        window = {"left": self.left, "right": self.right, "scale": scale}
        if global_mask is None:
            return local_attention(query, key, value, mask, **window)
        places, slots = global_tokens(global_mask, mask, max_global_tokens=self.max_global_tokens)
        far = (
            _heads(self.query_global(take_tokens(inputs, places)), query),
            _heads(self.key_global(inputs), key),
            _heads(self.value_global(inputs), value),
        )
        return global_local_attention(query, key, value, places, slots, *far, mask, **window)

    def _check_call(self, query, key, state, causal, inputs, global_mask):
        self.refuse(state)
        if causal:
            raise ValueError(
                f"{self.path}: global tokens attend to the future, so GlobalLocal cannot be "
                "causal; take Local or SinkLocal in a decoder."
            )
        if global_mask is not None and inputs is None:
            raise ValueError(
                f"{self.path}: the projections of global tokens read `inputs`, which is missing "
                "beside `global_mask`."
            )

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "left": self.left,
                "right": self.right,
                "max_global_tokens": self.max_global_tokens,
                "input_dim": self.input_dim,
                "use_bias": self.use_bias,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            }
        )
        return config


def _heads(x, like):
    """Split float (b, t, h d) into (b, t, h, d), with the numbers h and d of another tensor."""
    return ops.reshape(x, (-1, ops.shape(x)[1], *like.shape[2:]))
