"""Layers as arguments of layers: the configuration is kept, and copies are made from it."""

import keras


def template(layer, name):
    """The serialised configuration of a layer, from which copies are made.

    Args:
        layer: a layer, its serialised configuration, or None.
        name: the name of the copies.

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
    """A new layer from a template.

    Args:
        stored: dict, the result of `template`.
        dtype: dtype policy of the new layer.

    Returns:
        A Keras layer.
    """
    return keras.saving.deserialize_keras_object(
        {**stored, "config": {**stored["config"], "dtype": dtype}}
    )
