"""Preprocessing layers whose call cannot be traced as it is."""

import keras

from keras_seqattn.onnx import keras_internals
from keras_seqattn.onnx.lower.registry import lowers

# The layers whose transformation is not random, and used at inference.
_EXACT = (keras.layers.Resizing, keras.layers.CenterCrop)


@lowers(keras_internals.ImageLayer)
def image_layer(tracer, layer, data, training=True):
    """An augmentation at inference: it draws no random numbers, because it uses none.

    Some of these layers draw them in any case. In the file, they would only be ballast.
    """
    own = keras_internals.is_keras_operation(layer) and not isinstance(layer, _EXACT)
    if own and not training:
        layer = _without_transformation(layer)
    return layer.call(data, training=training)


def _without_transformation(layer):
    """A layer with the same attributes that draws no transformation."""
    other = object.__new__(type(layer))
    vars(other).update(vars(layer))
    vars(other)["get_random_transformation"] = lambda *_, **__: None
    return other
