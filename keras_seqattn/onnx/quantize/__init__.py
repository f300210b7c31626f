"""Quantises the matrix products of a float graph: dynamic 8-bit products, or 4-bit weights.

A rewriting has one form for products and one form for embedding tables. Measurements decided which
forms are used (export/benchmark.py prints the figures):

| precision | with com.microsoft | standard operators only |
| --- | --- | --- |
| int8 | DynamicQuantizeMatMul, bias within | DynamicQuantizeLinear, MatMulInteger, Cast, Mul |
| int8, decoders | MatMulNBits, bias within | DequantizeLinear in blocks, MatMul |
| int4 | MatMulNBits, bias within | DequantizeLinear in blocks, MatMul |
| tables | GatherBlockQuantized; a tied head lends its bytes | Gather of 8-bit rows |
"""

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.passes.matching import port_of
from keras_seqattn.onnx.quantize import products, tables
from keras_seqattn.onnx.quantize.rewriting import SMALLEST_BLOCK, Rewriting, Settings

# One scale for every 64 weights. Decoding is 10 to 20 % faster than with one for every 32. With
# zero points and the search of rounding.blocks, it is as accurate as 32 with symmetric rounding.
BLOCK_SIZE = 64
_BITS = {"int8": 8, "int4": 4}


def quantize(
    model,
    precision,
    *,
    head_bits=None,
    block_size=BLOCK_SIZE,
    accuracy_level=4,
    tables=False,
    progress=None,
):
    """Quantise the products of activations with constant 2-D weights, in place.

    Weights are read, rounded and freed one at a time. With "int4" and in decoders, an embedding
    table shares the values of its head, or is rounded to 8 bits. In other cases, see `tables`.
    Weights that Keras has quantised keep their integers. If they have 4 bits, their products get
    the `accuracy_level`, too.

    Args:
        model: the `onnx_ir.Model` of the exporter, whose weights are float32 or float16. Operators
            of com.microsoft are used if it imports that domain.
        precision: "int8" or "int4".
        head_bits: with "int4", 8 rounds the weight of the product that gives the graph's output to
            8 bits.
        block_size: with "int4", the number of weights that share a scale, a power of two from 16.
            It is halved for a weight if it does not divide the length of its rows.
        accuracy_level: attribute of MatMulNBits. 4 computes with 8-bit activations, 0 with float
            activations.
        tables: with "int8", round the embedding tables of encoders to 8 bits as well.
        progress: None, or a function that is called with (done, total).

    Returns:
        `model`.

    Raises:
        ExportError: the precision or the block size is unknown.
    """
    if precision not in _BITS:
        raise ExportError(f"cannot quantise to {precision!r}; choose int8 or int4")
    if block_size < SMALLEST_BLOCK or block_size & (block_size - 1):
        raise ExportError(f"block_size {block_size} is not a power of two from {SMALLEST_BLOCK}")
    bits = _BITS[precision]
    settings = Settings(bits, head_bits or bits, block_size, accuracy_level)
    in_blocks = precision == "int4" or _decodes(model)
    product_form, table_form = _forms(model, in_blocks, in_blocks or tables)
    Rewriting(model.graph, settings).apply(product_form, table_form, progress)
    return model


def _forms(model, in_blocks, with_tables):
    """The forms of products and of tables. None leaves the tables as they are."""
    if "com.microsoft" in model.opset_imports:
        form = products.Blocks if in_blocks else products.DynamicColumns
        return form, tables.BlockRows if with_tables else None
    form = products.StandardBlocks if in_blocks else products.StandardColumns
    return form, tables.StandardRows if with_tables else None


def _decodes(model):
    """Whether a model is a decoder. For encoders, one scale for a whole activation is good enough.
    Activations of decoders have outliers, so "int8" gives every block of a row its own scale (with
    SmolLM2-135M the divergence from the float model falls from 0.5 to 0.006).
    """
    return any(port_of(value).is_past for value in model.graph.inputs)
