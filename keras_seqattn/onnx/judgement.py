"""How a file is judged: by its precision, and by the type in which the model itself computes."""

import dataclasses

from keras_seqattn.onnx.keras_internals import all_layers
from keras_seqattn.onnx.measures import MEAN

# The error of computing in half precision. Measured on tiny re-randomised models of 24 families and
# tasks on PyTorch, as the mean over all positions: float16 0.001 to 0.006, and 0.0084 with 11
# layers; bfloat16, whose steps are eight times as wide, 0.008 to 0.05, and 0.067 with 11 layers.
_TOLERANCES = {"float16": 0.02, "bfloat16": 0.16}


def judged_by(precision, model):
    """The precision. If the model computes in half precision, its tolerance is larger.

    Each backend rounds such a model at other places, and so does onnxruntime.

    Args:
        precision: Precision of the file.
        model: the Keras model.
    """
    types = {getattr(layer, "compute_dtype", None) for layer in all_layers(model)}
    half = [tolerance for dtype, tolerance in _TOLERANCES.items() if dtype in types]
    if not half:
        return precision
    tolerance = max(precision.tolerance, *half)
    return dataclasses.replace(precision, tolerance=tolerance, measure=MEAN, exact=False)
