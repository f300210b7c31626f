"""How a file is judged: by its precision, and by the type in which the model itself computes."""

import dataclasses

from keras_seqattn.onnx.keras_internals import all_layers
from keras_seqattn.onnx.measures import MEAN

# The error of computing in half precision. Measured on tiny re-randomised models of 24 families and
# tasks on PyTorch, as the mean over all positions: float16 0.001 to 0.006, and 0.0084 with 11
# layers; bfloat16, whose steps are eight times as wide, 0.008 to 0.05, and 0.067 with 11 layers.
_TOLERANCES = {"float16": 0.02, "bfloat16": 0.16}
# Keras may round the inputs of its quantised layers to 8 bits. There, a difference in the last bit
# moves a value by a whole step, and the error of the model is that of a few such steps. Measured on
# backbones of three layers (Gemma, LLaMA) and four (BERT): 4e-7 without such a step, and up to
# 0.0063 with some, as much as changes in the last bit of the weights move Keras itself.
_ROUNDED_INPUTS = 0.02


def judged_by(precision, model):
    """The precision. For models that round what they compute, its tolerance is larger.

    These compute in half precision, or round the inputs of quantised layers. Each backend rounds
    such a model at other places, and so does onnxruntime.

    Args:
        precision: Precision of the file.
        model: the Keras model.
    """
    layers = all_layers(model)
    types = {getattr(layer, "compute_dtype", None) for layer in layers}
    rounding = [tolerance for dtype, tolerance in _TOLERANCES.items() if dtype in types]
    if any(map(_rounds_inputs, layers)):
        rounding.append(_ROUNDED_INPUTS)
    if not rounding:
        return precision
    tolerance = max(precision.tolerance, *rounding)
    return dataclasses.replace(precision, tolerance=tolerance, measure=MEAN, exact=False)


def _rounds_inputs(layer):
    mode = getattr(layer, "quantization_mode", None)
    quantizes = getattr(layer, "inputs_quantizer", None) is not None
    return mode == "float8" or (mode is not None and quantizes)
