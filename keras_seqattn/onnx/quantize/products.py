"""The forms of a product with a rounded weight: one scale per column, or one per block of a row."""

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.quantize import rounding


class _Form:
    """A form of products.

    Attributes:
        in_bodies: whether products in the bodies of loops may have this form. The weights of bodies
            are in the main graph.
    """

    in_bodies = True

    def __init__(self, rewriting):
        self.graph, self.settings = rewriting, rewriting.settings
        # The initializers of each rounded weight.
        self.rounded = {}

    def once(self, product, make, dtype=None):
        """The initializers of the weight of a product. `make()` is called once per weight."""
        key = (*product.key, dtype or product.weight.dtype)
        if key not in self.rounded:
            self.rounded[key] = make()
        return self.rounded[key]

    def rows(self, table):
        """(bits, values, scales, zero points) of a table, if a product reads it as packed rows in
        blocks, else None.
        """
        return None


class DynamicColumns(_Form):
    """com.microsoft.DynamicQuantizeMatMul, which quantises the activation inside the node."""

    def rewrite(self, product):
        weight, scales, zeros = self.once(product, lambda: self._round(product))
        last, bias = product.node, None
        if product.weight.dtype == ir.DataType.FLOAT:
            last, bias = self.graph.with_bias(product)

        def node(x):
            inputs = [x, weight, scales, zeros, bias]
            return self.graph.emit(last, "DynamicQuantizeMatMul", inputs, domain="com.microsoft")

        self.graph.replace_product(product, last, self.graph.in_float32(last, product, node))

    def _round(self, product):
        q, scales = rounding.int8_columns(product.read())
        name = product.weight.name
        return (
            self.graph.constant(f"{name}/int8", q),
            self.graph.constant(f"{name}/scales", scales),
            self.graph.constant(f"{name}/zero_points", np.zeros(len(scales), np.int8)),
        )


class StandardColumns(_Form):
    """MatMulInteger, with dynamic quantisation before it and rescaling after it."""

    def __init__(self, rewriting):
        super().__init__(rewriting)
        # Quantised activations by value and graph, because projections may share one.
        self._activations = {}

    def rewrite(self, product):
        weight, scales = self.once(product, lambda: self._round(product))
        node, dtype, graph = product.node, product.weight.dtype, self.graph
        q, scale, zero = self._quantized(node, dtype)
        product_int = graph.emit(node, "MatMulInteger", [q, weight, zero])
        summed = graph.cast(node, product_int, ir.DataType.FLOAT)
        step = graph.emit(node, "Mul", [scale, scales])
        value = graph.emit(node, "Mul", [summed, step])
        if dtype != ir.DataType.FLOAT:
            value = graph.cast(node, value, dtype)
        graph.replace(node, value)

    def _quantized(self, node, dtype):
        x = node.inputs[0]
        key = (x, node.graph)
        if key not in self._activations:
            if dtype != ir.DataType.FLOAT:
                x = self.graph.cast(node, x, ir.DataType.FLOAT)
            parts = self.graph.emit(node, "DynamicQuantizeLinear", [x], outputs=3)
            self._activations[key] = parts
        return self._activations[key]

    def _round(self, product):
        q, scales = rounding.int8_columns(product.read())
        name = product.weight.name
        return self.graph.constant(f"{name}/int8", q), self.graph.constant(f"{name}/scales", scales)


class Blocks(_Form):
    """com.microsoft.MatMulNBits, whose values are packed rows of blocks.

    In the body of a loop, its float16 kernel for CPUs gives wrong numbers (onnxruntime 1.32: an
    error of 27 %, where float32 has 1 %). So it computes in float32 there.
    """

    def rewrite(self, product):
        k, n = product.sizes
        wide = product.weight.dtype == ir.DataType.FLOAT16 and not self.graph.is_outside(product)
        last, bias = (product.node, None) if wide else self.graph.with_bias(product)
        bits, block = self.settings.layout(k, last.outputs[0].is_graph_output())
        dtype = ir.DataType.FLOAT if wide else product.weight.dtype
        bits, *weights = self.once(product, lambda: self._round(product, bits, block, dtype), dtype)
        attributes = {"K": k, "N": n, "bits": bits, "block_size": _block_of(weights[0], bits)}
        if self.settings.accuracy_level:
            attributes["accuracy_level"] = self.settings.accuracy_level

        def node(x):
            inputs = [x, *weights, *([None, bias] if bias is not None else [])]
            return self.graph.emit(last, "MatMulNBits", inputs, attributes, "com.microsoft")

        value = self.graph.in_float32(last, product, node) if wide else node(product.node.inputs[0])
        self.graph.replace_product(product, last, value)

    def rows(self, table):
        return self.rounded.get((table.name, True, table.dtype))

    def _round(self, product, bits, block, dtype):
        q, scales, zeros = rounding.blocks(product.read().T, block, bits)
        if bits == 4:
            q, zeros = rounding.pack_nibbles(q), rounding.pack_nibbles(zeros)
        return bits, *block_constants(self.graph, product.weight, bits, q, scales, zeros, dtype)


class StandardBlocks(_Form):
    """DequantizeLinear in blocks before MatMul. onnxruntime fuses both when it loads the file.

    onnxruntime cannot load a body with that pattern if the weight is outside the body.
    """

    in_bodies = False

    def rewrite(self, product):
        k, _ = product.sizes
        node, graph = product.node, self.graph
        bits, block = self.settings.layout(k, node.outputs[0].is_graph_output())
        if k % block:
            return
        inputs = self.once(product, lambda: self._round(product, bits, block))
        attributes = {"axis": 0, "block_size": k // int(inputs[1].shape[0])}
        weight = graph.emit(node, "DequantizeLinear", inputs, attributes)
        graph.replace(node, graph.emit(node, "MatMul", [node.inputs[0], weight]))

    def _round(self, product, bits, block):
        q, scales, zeros = rounding.blocks(product.read().T, block, bits)
        name, numpy = product.weight.name, product.weight.dtype.numpy()
        integers = self.graph.constant if bits == 8 else self.graph.packed_constant
        return (
            integers(f"{name}/int{bits}", q.reshape(len(q), -1).T),
            self.graph.constant(f"{name}/scales", scales.T.astype(numpy, copy=False)),
            integers(f"{name}/zero_points", zeros.T),
        )


def block_constants(graph, weight, bits, q, scales, zeros, dtype=None):
    """The initializers of a weight that is rounded in blocks. `dtype` is the type of the scales."""
    scales = scales.astype((dtype or weight.dtype).numpy(), copy=False)
    return (
        graph.constant(f"{weight.name}/int{bits}", q),
        graph.constant(f"{weight.name}/scales", scales),
        graph.constant(f"{weight.name}/zero_points", zeros),
    )


def _block_of(values, bits):
    """The block size of packed values (n, blocks, bytes)."""
    return int(values.shape[2]) * 8 // bits
