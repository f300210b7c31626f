"""LoRA of Dense, EinsumDense and embeddings: `w + alpha / rank * (a @ b)`.

Keras multiplies with the merged weight. So the file holds only that weight, which is computed when
it is written. A quantised weight keeps its integers, and its LoRA is a product beside it, as in
Keras.
"""

import keras
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.symbol import DTYPES, Symbol, lazy_initializer


def finished(layer, x):
    """The bias and the activation of a Dense or EinsumDense, after its product."""
    if layer.bias is not None:
        x = ops.add(x, layer.bias)
    return x if layer.activation is None else layer.activation(x)


def merged(tracer, layer, weight, a, b):
    """The Symbol of a weight with its LoRA. `weight`, `a` and `b` are Keras variables."""

    def read():
        parts = (ops.convert_to_numpy(v.value).astype(np.float32) for v in (weight, a, b))
        weight_array, a_array, b_array = parts
        return weight_array + layer.lora_alpha / layer.lora_rank * np.matmul(a_array, b_array)

    def make():
        dtype = layer.compute_dtype
        name = tracer.unique_name(weight.path)
        value = lazy_initializer(name, tuple(weight.shape), DTYPES[dtype], read)
        tracer.graph.register_initializer(value)
        return Symbol(value, weight.shape, dtype)

    return tracer.once(("lora", id(weight), layer.compute_dtype), make)


def _merged_kernel(tracer, layer):
    return merged(tracer, layer, layer._kernel, layer.lora_kernel_a, layer.lora_kernel_b)


def _merged_table(tracer, layer):
    return merged(
        tracer, layer, layer._embeddings, layer.lora_embeddings_a, layer.lora_embeddings_b
    )


def added_product(layer, x, inputs, multiply):
    """`x`, the product of `inputs` with a quantised weight, with its LoRA.

    Args:
        layer: the layer.
        x: Symbol.
        inputs: Symbol, the inputs of the layer.
        multiply: function(inputs, a), the product of the layer with its first LoRA weight.
    """
    if not layer.lora_enabled:
        return x
    return _added(layer, x, multiply(inputs, layer.lora_kernel_a), layer.lora_kernel_b)


def added_lookup(layer, x, ids):
    """`x`, the rows of a quantised table for `ids`, with its LoRA."""
    if not layer.lora_enabled:
        return x
    return _added(layer, x, ops.take(layer.lora_embeddings_a, ids, axis=0), layer.lora_embeddings_b)


def _added(layer, x, low, b):
    added = ops.multiply(layer.lora_alpha / layer.lora_rank, ops.matmul(low, b))
    return ops.cast(ops.add(x, added), layer.compute_dtype)


@lowers(keras.layers.Dense)
def dense(tracer, layer, inputs, training=None):
    if not layer.lora_enabled:
        return layer.call(inputs, training=training)
    return finished(layer, ops.matmul(inputs, _merged_kernel(tracer, layer)))


@lowers(keras.layers.EinsumDense)
def einsum_dense(tracer, layer, inputs, training=None):
    if not layer.lora_enabled:
        return layer.call(inputs, training=training)
    return finished(layer, ops.einsum(layer.equation, inputs, _merged_kernel(tracer, layer)))


@lowers(keras.layers.Embedding)
def embedding(tracer, layer, inputs):
    if not layer.lora_enabled:
        return layer.call(inputs)
    return _looked_up(_merged_table(tracer, layer), inputs)


def _looked_up(table, ids):
    ids = ids if "int" in ids.dtype else ops.cast(ids, "int32")
    return ops.take(table, ids, axis=0)


@lowers(keras.layers.ReversibleEmbedding)
def reversible_embedding(tracer, layer, inputs, reverse=False):
    if not layer.lora_enabled or (reverse and not layer.tie_weights):
        return layer.call(inputs, reverse=reverse)
    table = _merged_table(tracer, layer)
    if not reverse:
        found = _looked_up(table, inputs)
        # This layer sets the mask itself, as `call` does.
        if layer.mask_zero:
            found._keras_mask = ops.not_equal(inputs, 0)
        return found
    kernel = ops.transpose(table)
    if layer.reverse_dtype is not None:
        inputs, kernel = (ops.cast(x, layer.reverse_dtype) for x in (inputs, kernel))
    return capped(layer, ops.matmul(inputs, kernel))


def capped(layer, logits):
    """The logits of a ReversibleEmbedding under its soft cap."""
    if layer.logit_soft_cap is None:
        return logits
    cap = layer.logit_soft_cap
    return ops.multiply(ops.tanh(ops.divide(logits, cap)), cap)
