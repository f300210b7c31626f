"""Choosing a normalisation by name."""

import keras
from keras import ops

from keras_seqattn.errors import ConfigError
from keras_seqattn.ops.arguments import checked


@keras.saving.register_keras_serializable(package="keras_seqattn")
class ZeroCenteredRMSNormalization(keras.layers.Layer):
    """`x / rms(x) * (1 + w)`: weight decay moves the factor towards 1; ONNX RMSNormalization.

    Args:
        epsilon: added to the mean square.

    Call arguments:
        x: float (..., m).

    Returns:
        float (..., m).
    """

    @checked
    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, x_shape):
        # Not cast to half precision, because 1 + w would lose digits of w there.
        self.scale = self.add_weight(
            name="scale", shape=x_shape[-1:], initializer="zeros", autocast=False
        )

    def call(self, x):
        # A tensor, because a value that is computed from a weight alone has no name in an export.
        factor = ops.add(ops.convert_to_tensor(self.scale), 1.0)
        return ops.rms_normalization(x, factor, axis=-1, epsilon=self.epsilon)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


def normalization(kind, epsilon, dim, dtype, name):
    """A built normalisation over the last axis.

    Args:
        kind: "layer_norm", "rms_norm", "zero_centered_rms_norm" or None.
        epsilon: added to the variance.
        dim: size of the last axis.
        dtype: dtype policy of the layer.
        name: name of the layer.

    Returns:
        A Keras layer; None if `kind` is None.

    Raises:
        ConfigError: the kind is unknown.
    """
    kinds = {
        "layer_norm": keras.layers.LayerNormalization,
        "rms_norm": keras.layers.RMSNormalization,
        "zero_centered_rms_norm": ZeroCenteredRMSNormalization,
    }
    if kind is None:
        return None
    if kind not in kinds:
        raise ConfigError(
            f"Unknown normalisation {kind!r} for {name!r}; use one of {', '.join(kinds)}."
        )
    layer = kinds[kind](epsilon=epsilon, dtype=dtype, name=name)
    # Keras does not set it for RMSNormalization and would warn about every masked input.
    layer.supports_masking = True
    layer.build((None, None, dim))
    return layer


def normalize_sums(norm, x):
    """Apply an RMSNormalization to sums that may be too large for half precision.

    Args:
        norm: a built `keras.layers.RMSNormalization`.
        x: float (..., m), in full precision.

    Returns:
        float (..., m), with the compute dtype of the layer.
    """
    x = ops.rms_normalization(x, norm.scale, axis=-1, epsilon=norm.epsilon)
    return ops.cast(x, norm.compute_dtype)
