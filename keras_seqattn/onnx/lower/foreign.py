"""Layers that hold a program of another library. They cannot be traced; what to do instead."""

import keras

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.registry import lowers

_WAYS_OUT = {
    "TorchModuleWrapper": "export the module by itself with torch.onnx.export",
    "JaxLayer": "write the function with keras.ops",
    "FlaxLayer": "write the module with layers of Keras",
    "TFSMLayer": 'export it on the TensorFlow backend with route="tf2onnx"',
}


@lowers(*(getattr(keras.layers, name) for name in _WAYS_OUT))
def foreign(tracer, layer, *args, **kwargs):
    kind = next(c.__name__ for c in type(layer).__mro__ if c.__name__ in _WAYS_OUT)
    raise ExportError(
        f"{tracer.where()}: {kind} holds a program that is not of Keras and cannot be traced; "
        f"{_WAYS_OUT[kind]}, or cut the model before this layer and after it"
    )
