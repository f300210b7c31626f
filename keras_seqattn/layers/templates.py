"""Layers as arguments of layers: kept as their configuration, of which copies are made."""

import keras


def template(layer, name):
    """The serialised configuration of a layer, by which others like it are made.

    Args:
        layer: a layer, such a configuration, or None.
        name: the name that the copies get.

    Returns:
        dict or None.
    """
    if layer is None or isinstance(layer, dict):
        return layer
    stored = keras.saving.serialize_keras_object(layer)
    stored.pop("build_config", None)
    settings = {key: value for key, value in stored["config"].items() if key != "dtype"}
    return {**stored, "config": {**settings, "name": name}}


def from_template(stored, dtype):
    """A new layer from what `template` returned.

    Args:
        stored: dict.
        dtype: its dtype policy.

    Returns:
        A Keras layer.
    """
    return keras.saving.deserialize_keras_object(
        {**stored, "config": {**stored["config"], "dtype": dtype}}
    )
