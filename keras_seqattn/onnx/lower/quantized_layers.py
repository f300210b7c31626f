"""Reads the weights of Keras's quantised layers as `Rows`."""

import keras
import numpy as np

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.quantized_rows import Rows, array, pairs, scales_of, sorted_groups

# Added to signed values of 4 and 8 bits, so that they are unsigned.
_SHIFTS = {4: 8, 8: 128}


def product_rows(tracer, layer, shape):
    """The weight of a Dense, or that of an EinsumDense as Keras flattens it.

    Args:
        tracer: Tracer.
        layer: the layer, in the mode int4, gptq or awq, or a Dense in the mode int8.
        shape: (k, n), the numbers of inputs and outputs.
    """
    mode = layer.quantization_mode
    return (_calibrated if mode in ("gptq", "awq") else _rounded)(tracer, layer, shape)


def _rounded(tracer, layer, shape):
    k, n = shape
    scales = lambda: scales_of(layer, layer.kernel_scale)  # noqa: E731
    if layer.quantization_mode == "int8":
        return scaled(layer._kernel, scales, 8, lambda q: q.T, (n, k))
    integers = lambda q: pairs(q, -1, n).T  # noqa: E731
    group = layer._int4_block_size
    if group is None or group == -1:
        return scaled(layer._kernel, scales, 4, integers, (n, k))
    return grouped(
        layer, layer._kernel, layer.kernel_scale, layer.kernel_zero, group, integers,
        (n, k), outputs_last=True,
    )  # fmt: skip


def scaled(integers, scales, bits, arrange, shape):
    """A weight with one scale per output, by which Keras divides.

    Args:
        integers: the variable with the integers.
        scales: function () -> float32, n scales.
        bits: 4 or 8.
        arrange: function of the stored integers -> (n, k), int8, or uint8 for 4 bits.
        shape: (n, k).
    """

    def read():
        return _unsigned(arrange(array(integers)), bits)

    return Rows(
        (id(integers), shape), integers.path, shape, bits, read,
        lambda: (1 / scales()).reshape(-1, 1), shape[1],
    )  # fmt: skip


def grouped(layer, integers, scale, zero, group, arrange, shape, *, outputs_last):
    """A 4-bit weight with scales and signed zero points for groups of inputs.

    Args:
        layer, integers, arrange, shape: as for `scaled`.
        scale, zero: the variables (groups, n) if `outputs_last`, else (n, groups).
        group: the number of inputs in a group.
    """
    turned = (lambda x: x.T) if outputs_last else lambda x: x
    zeros = _unsigned(turned(array(zero, np.int8)), 4)
    return Rows(
        (id(integers), shape), integers.path, shape, 4,
        lambda: _unsigned(arrange(array(integers)), 4),
        lambda: turned(scales_of(layer, scale)),
        group if zeros.shape[1] > 1 else shape[1],
        zeros,
    )  # fmt: skip


def _calibrated(tracer, layer, shape):
    """A weight of the modes gptq and awq: unsigned integers (n, k)."""
    k, n = shape
    integers, scale = layer.quantized_kernel, layer.kernel_scale
    zeros, index = array(layer.kernel_zero, np.uint8), array(layer.g_idx, np.int64)
    groups = zeros.shape[1]
    # With several groups, the first has its full size, and Keras counts groups from the first input
    # in the order in which it rounded them.
    group = k if groups == 1 else int((index == 0).sum())
    order = sorted_groups(tracer.where(), index, group) if groups > 1 else None
    packed, bits = _bits(layer) == 4, 4 if _bits(layer) <= 4 else 8

    def read():
        q = array(integers, np.uint8)
        q = pairs(q, 0, n) if packed else q
        return q if order is None else q[:, order]

    return Rows(
        (id(integers), (n, k)), integers.path, (n, k), bits, read,
        lambda: scales_of(layer, scale), group, zeros, order,
        layer.awq_scales if layer.quantization_mode == "awq" else None,
    )  # fmt: skip


def _bits(layer):
    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[layer.path]
    return policy.weight_bits


def _unsigned(values, bits):
    """Values from 0, of signed ones: int8, or the 4 bits of one as uint8."""
    if values.dtype == np.uint8:
        return values ^ np.uint8(_SHIFTS[bits])
    return (values.astype(np.int16) + _SHIFTS[bits]).astype(np.uint8)


def table_rows(tracer, layer, part):
    """The table of an Embedding, or the weight of its reverse: one row for each id.

    Args:
        tracer: Tracer.
        layer: the layer, in the mode int8 or int4.
        part: "embeddings", or "reverse_embeddings" for the separate weight of the reverse.
    """
    shape = layer.input_dim, layer.output_dim
    is_table = part == "embeddings"
    integers = layer._embeddings if is_table else layer.reverse_embeddings
    scale = getattr(layer, f"{part}_scale")
    scales = lambda: scales_of(layer, scale)  # noqa: E731
    turned = (lambda q: q) if is_table else lambda q: q.T
    if layer.quantization_mode == "int8":
        return scaled(integers, scales, 8, turned, shape)
    axis = -1 if is_table else 0
    arrange = lambda q: turned(pairs(q, axis, layer.output_dim))  # noqa: E731
    group = layer._int4_block_size
    if group is None or group == -1:
        return scaled(integers, scales, 4, arrange, shape)
    zero = getattr(layer, f"{part}_zero")
    return grouped(layer, integers, scale, zero, group, arrange, shape, outputs_last=not is_table)


def is_calibrated(layer):
    """Whether a layer of the modes gptq or awq has its integers. Before, it computes in floats."""
    return bool(getattr(layer, f"is_{layer.quantization_mode}_calibrated", False))


def quantizer_of(tracer, layer):
    """The quantiser of the layer's inputs, or None.

    Raises:
        ExportError: it is not Keras's AbsMaxQuantizer with int8 values.
    """
    quantizer = getattr(layer, "inputs_quantizer", None)
    if quantizer is None:
        return None
    known = type(quantizer) is keras.quantizers.AbsMaxQuantizer
    if not known or quantizer.output_dtype != "int8" or quantizer.value_range[1] <= 0:
        raise ExportError(
            f"{tracer.where()}: inputs are quantised by {type(quantizer).__name__}; only "
            "AbsMaxQuantizer with int8 values can be exported"
        )
    return quantizer
