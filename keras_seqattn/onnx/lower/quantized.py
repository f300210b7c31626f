"""Lowerings of layers that Keras has quantised (`model.quantize`), in all of its modes.

Keras calls `_int8_call` and its like instead of `call`. Each lowering here does what that method
does, with the integers of the layer in the file. A layer without such a lowering is refused.
"""

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.lora import added_lookup, added_product, capped, finished
from keras_seqattn.onnx.lower.quantized_einsum import einsum
from keras_seqattn.onnx.lower.quantized_layers import (
    is_calibrated,
    product_rows,
    quantizer_of,
    table_rows,
)
from keras_seqattn.onnx.lower.quantized_nodes import (
    FLOAT8_MAX,
    as_float8,
    float8_weight,
    integer_product,
    lookup,
    product,
    rounded_inputs,
)
from keras_seqattn.onnx.lower.quantized_rows import array
from keras_seqattn.onnx.lower.registry import lowers_quantized


@lowers_quantized(keras.layers.Dense, "int8", "int4", "gptq", "awq")
def dense(tracer, layer, inputs, training=None):
    if layer.quantization_mode in ("gptq", "awq") and not is_calibrated(layer):
        return finished(layer, ops.matmul(inputs, layer._kernel))
    rows = product_rows(tracer, layer, (inputs.sizes[-1], layer.units))
    x = _matrix_product(tracer, layer, inputs, rows)
    return finished(layer, added_product(layer, x, inputs, ops.matmul))


def _matrix_product(tracer, layer, inputs, rows):
    """The product, in the compute dtype. Weights with groups take inputs that are not rounded."""
    quantizer = quantizer_of(tracer, layer)
    if quantizer is None or rows.groups > 1 or rows.zeros is not None:
        x = product(tracer, inputs, rows)
    else:
        x = integer_product(tracer, inputs, rows, quantizer)
    return cast(tracer, x, layer.compute_dtype)


@lowers_quantized(keras.layers.EinsumDense, "int8", "int4", "gptq", "awq")
def einsum_dense(tracer, layer, inputs, training=None):
    if layer.quantization_mode in ("gptq", "awq") and not is_calibrated(layer):
        return finished(layer, ops.einsum(layer.equation, inputs, layer._kernel))
    x = einsum(tracer, layer, inputs, _matrix_product)
    by_equation = lambda inputs, a: ops.einsum(layer.equation, inputs, a)  # noqa: E731
    return finished(layer, added_product(layer, x, inputs, by_equation))


@lowers_quantized(keras.layers.Embedding, "int8", "int4")
def embedding(tracer, layer, inputs, training=None):
    ids = inputs if "int" in inputs.dtype else ops.cast(inputs, "int32")
    found = lookup(tracer, ids, table_rows(tracer, layer, "embeddings"))
    return added_lookup(layer, cast(tracer, found, layer.compute_dtype), ids)


@lowers_quantized(keras.layers.ReversibleEmbedding, "int8", "int4")
def reversible_embedding(tracer, layer, inputs, reverse=False):
    if not reverse:
        return embedding(tracer, layer, inputs)
    rows = table_rows(tracer, layer, "embeddings" if layer.tie_weights else "reverse_embeddings")
    quantizer = quantizer_of(tracer, layer)
    if quantizer is not None and quantizer.axis not in (None, (-1,), (len(inputs.sizes) - 1,)):
        raise ExportError(
            f"{tracer.where()}: inputs are quantised along the axes {quantizer.axis}; only the "
            "last one can be exported"
        )
    if quantizer is None:
        logits = product(tracer, inputs, rows)
    elif rows.zeros is None:
        logits = integer_product(tracer, inputs, rows, quantizer)
    else:
        whole, scale = rounded_inputs(cast(tracer, inputs, "float32"), quantizer)
        logits = ops.divide(product(tracer, ops.round(whole), rows), scale)
    return capped(layer, cast(tracer, logits, layer.compute_dtype))


# ---- float8: values are rounded to float8_e4m3fn before the product


@lowers_quantized(keras.layers.Dense, "float8")
def float8_dense(tracer, layer, inputs, training=None):
    x = _float8(tracer, layer, inputs)
    return _float8_finished(tracer, layer, ops.matmul(x, _float8_kernel(tracer, layer)))


@lowers_quantized(keras.layers.EinsumDense, "float8")
def float8_einsum_dense(tracer, layer, inputs, training=None):
    x = _float8(tracer, layer, inputs)
    kernel = _float8_kernel(tracer, layer)
    return _float8_finished(tracer, layer, ops.einsum(layer.equation, x, kernel))


def _float8(tracer, layer, x):
    """Inputs as `quantize_and_dequantize` gives them."""
    dtype, scale = layer.compute_dtype, layer.inputs_scale
    x = ops.clip(ops.divide(cast(tracer, x, "float32"), scale), -FLOAT8_MAX, FLOAT8_MAX)
    return cast(tracer, ops.multiply(as_float8(tracer, x), scale), dtype)


def _float8_kernel(tracer, layer):
    kernel, scale = layer._kernel, layer.kernel_scale

    def read():
        values = array(kernel, np.float32) / array(scale, np.float32)
        return np.clip(values, -FLOAT8_MAX, FLOAT8_MAX)

    with tracer.main_graph():
        values = float8_weight(tracer, kernel, read)
        return cast(tracer, ops.multiply(values, scale), layer.compute_dtype)


def _float8_finished(tracer, layer, x):
    """Keras rounds the bias of a float32 layer to bfloat16."""
    if layer.bias is not None:
        bias = layer.bias
        if layer.compute_dtype == "float32":
            bias = ops.cast(ops.cast(array(bias), "bfloat16"), "float32")
        x = ops.add(x, bias)
    return x if layer.activation is None else layer.activation(x)
