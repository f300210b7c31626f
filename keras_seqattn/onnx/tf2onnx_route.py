"""Conversion by tf2onnx: a second, independent way to ONNX, for comparison and as a fallback."""

import keras
import onnx_ir as ir

from keras_seqattn.errors import ExportError
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.onnx.declared import (
    input_ports,
    is_dict_of_tensors,
    named_inputs,
    named_outputs,
    output_name,
)
from keras_seqattn.tasks import task_of_model

# The highest opset that tf2onnx writes.
_OPSET = 18


def convert(model):
    """Convert a Keras model that runs on TensorFlow with tf2onnx.

    Raises:
        ExportError: the backend is another one, the model is an encoder-decoder, or tf2onnx is not
            installed or cannot convert the model.
    """
    if task_of_model(model).reads_source:
        raise ExportError("route 'tf2onnx' writes one graph; an encoder-decoder needs 'trace'")
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            "route 'tf2onnx' needs the TensorFlow backend; set KERAS_BACKEND=tensorflow"
        )
    try:
        import tensorflow as tf
        import tf2onnx
    except ImportError as error:
        raise ExportError("route 'tf2onnx' needs pip install \"keras-seqattn[tf2onnx]\"") from error
    struct, tensors, names = model.input, named_inputs(model), []

    @tf.function(
        input_signature=[
            tf.TensorSpec(x.shape, _dtype(model, x), name=name) for name, x in tensors.items()
        ]
    )
    def call(*values):
        if is_dict_of_tensors(struct):
            packed = dict(zip(tensors, values, strict=True))
        else:
            packed = keras.tree.pack_sequence_as(struct, list(values))
        outputs = named_outputs(model, model(packed, training=False), input_ports(model))
        names[:] = [output_name(name, tensors) for name in outputs]
        return list(outputs.values())

    try:
        proto, _ = tf2onnx.convert.from_function(
            call, input_signature=call.input_signature, opset=_OPSET
        )
    except Exception as error:
        raise ExportError(f"tf2onnx cannot convert {model.name}: {error}") from error
    made = ir.from_proto(proto)
    for value, name in zip(made.graph.outputs, names, strict=True):
        value.name = name
    return made


def _dtype(model, tensor):
    """The type in the file: int64 for the integers of our families, else the declared type."""
    wide = isinstance(model, SequenceModel) and "int" in tensor.dtype
    return "int64" if wide else tensor.dtype
