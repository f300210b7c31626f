"""Preprocessing layers whose call cannot be traced as it is."""

import keras
from keras import ops

from keras_seqattn.onnx import keras_internals
from keras_seqattn.onnx.lower.planes import spatial_axes
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.resampling import aspect_box, cropped, larger, smaller

# The layers whose transformation is not random, and used at inference.
_EXACT = (keras.layers.Resizing,)


@lowers(keras_internals.ImageLayer)
def image_layer(tracer, layer, data, training=True):
    """An augmentation at inference: it draws no random numbers, because it uses none.

    Some of these layers draw them in any case. In the file, they would only be ballast.
    """
    own = keras_internals.is_keras_operation(layer) and not isinstance(layer, _EXACT)
    if own and not training:
        layer = _with_method(layer, "get_random_transformation", lambda *_, **__: None)
    return layer.call(data, training=training)


def _with_method(layer, name, method):
    """A layer with the same attributes and another method."""
    other = object.__new__(type(layer))
    vars(other).update(vars(layer))
    vars(other)[name] = method
    return other


@lowers(keras.layers.CenterCrop)
def center_crop(tracer, layer, data, training=True):
    def transform_images(images, transformation=None, training=True):
        return _middle(tracer, layer, images)

    return _with_method(layer, "transform_images", transform_images).call(data, training=training)


def _middle(tracer, layer, images):
    """The middle of a picture. If it is too small, its largest part with the wanted aspect ratio is
    resized.

    With dynamic sizes, both are a part that is resized, if only by the factor 1.
    """
    x = ops.cast(images, layer.compute_dtype)
    axes, wanted = spatial_axes(x, layer.data_format), (layer.height, layer.width)
    height, width = (tracer.size(x, axis) for axis in axes)
    middle = tuple(
        ((size - new) // 2, new) for size, new in zip((height, width), wanted, strict=True)
    )
    if isinstance(height, int) and isinstance(width, int):
        if height >= wanted[0] and width >= wanted[1]:
            return cropped(x, axes, middle)
        box = aspect_box(height, width, *wanted)
    else:
        # 1 if the picture is large enough, else 0. So the sizes can be followed.
        fits = _fits(height, wanted[0]) * _fits(width, wanted[1])
        part = aspect_box(height, width, *wanted)
        box = [
            [fits * a + (1 - fits) * b for a, b in zip(*ends, strict=True)]
            for ends in zip(middle, part, strict=True)
        ]
    x = cropped(x, axes, box)
    return ops.image.resize(x, wanted, data_format=layer.data_format)


def _fits(size, wanted):
    return smaller(larger(size - wanted + 1, 0), 1)
