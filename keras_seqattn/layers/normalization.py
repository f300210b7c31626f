"""Choosing a normalisation by name."""

import keras

from keras_seqattn.errors import ConfigError


def normalization(kind, epsilon, dim, dtype, name):
    """A built normalisation over the last axis.

    Args:
        kind: "layer_norm", "rms_norm" or None.
        epsilon: added to the variance.
        dim: size of the last axis.
        dtype: dtype policy of the layer.
        name: name of the layer.

    Returns:
        A Keras layer, or None for None.

    Raises:
        ConfigError: for another kind.
    """
    kinds = {
        "layer_norm": keras.layers.LayerNormalization,
        "rms_norm": keras.layers.RMSNormalization,
    }
    if kind is None:
        return None
    if kind not in kinds:
        raise ConfigError(
            f"Unknown normalisation {kind!r} for {name!r}; use one of {', '.join(kinds)}."
        )
    layer = kinds[kind](epsilon=epsilon, dtype=dtype, name=name)
    # Keras does not declare it for RMSNormalization, and would warn at every masked input.
    layer.supports_masking = True
    layer.build((None, None, dim))
    return layer
