"""Maxout."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.nothing import is_empty


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Maxout(keras.layers.Layer):
    """The largest of neighbouring linear units (https://arxiv.org/abs/1302.4389).

    ONNX MatMul, Reshape and ReduceMax.

    Args:
        units: width l of the result.
        pool_size: number p of linear units for each unit of the result.
        use_bias: whether the linear units have biases.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Call arguments:
        inputs: float (b, t, m).

    Returns:
        float (b, t, l).

    Example:
        Maxout(256)(states)
    """

    @checked
    def __init__(
        self,
        units,
        pool_size=2,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = units
        self.pool_size = pool_size
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, inputs_shape):
        self.dense = keras.layers.Dense(
            self.units * self.pool_size,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            dtype=self.dtype_policy,
            name="dense",
        )
        self.dense.build(inputs_shape)

    def call(self, inputs):
        x = self.dense(inputs)
        x = ops.reshape(x, (*ops.shape(x)[:2], self.units, self.pool_size))
        return x[..., 0] if is_empty(x) else ops.amax(x, axis=-1)

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape[:-1], self.units)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "units": self.units,
                "pool_size": self.pool_size,
                "use_bias": self.use_bias,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            }
        )
        return config
