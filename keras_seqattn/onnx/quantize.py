"""Quantise the matrix products of a float graph: dynamic 8-bit products, or 4-bit weights.

Which forms are emitted was measured (export/benchmark.py has the figures):

| precision | with com.microsoft | standard operators only |
| --- | --- | --- |
| int8 | DynamicQuantizeMatMul, bias within | DynamicQuantizeLinear, MatMulInteger, Cast, Mul |
| int4 | MatMulNBits, bias within | DequantizeLinear in blocks, MatMul |
| int4 tables | GatherBlockQuantized; a tied head lends its bytes | Gather of 8-bit rows |
"""

import dataclasses
import re

import numpy as np
import onnx_ir as ir

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import rounding
from keras_seqattn.onnx.passes.matching import added_bias, is_op, is_weight

# A scale for every 64 weights: 10 to 20 % faster to decode than one for every 32, and with zero
# points and the search of rounding.blocks no less accurate than 32 symmetric ones.
BLOCK_SIZE = 64
_SMALLEST_BLOCK = 16
# Products with fewer columns, such as a classifier's, cost nothing and decide everything.
_MIN_COLUMNS = 16
# An embedding table that no product shares is rounded to 8 bits from this many values.
_MIN_TABLE = 1 << 20


def quantize(
    model, precision, *, block_size=BLOCK_SIZE, accuracy_level=4, tables=False, progress=None
):
    """Quantise the products of activations with constant 2-D weights, in place.

    Weights are read, rounded and dropped one at a time. With "int4" and in decoders an embedding
    table shares its head's values, or is rounded to 8 bits; otherwise see `tables`.

    Args:
        model: the float `onnx_ir.Model` of the exporter. Operators of com.microsoft are used if it
            imports that domain.
        precision: "int8" or "int4".
        block_size: weights that share a scale with "int4", a power of two from 16; halved for a
            weight whose rows it does not divide.
        accuracy_level: of MatMulNBits; 4 computes with 8-bit activations, 0 with float ones.
        tables: with "int8", round the embedding tables of encoders to 8 bits as well.
        progress: called with (done, total).

    Returns:
        `model`.

    Raises:
        ExportError: for an unknown precision or block size.
    """
    if precision not in ("int8", "int4"):
        raise ExportError(f"cannot quantise to {precision!r}; choose int8 or int4")
    if block_size < _SMALLEST_BLOCK or block_size & (block_size - 1):
        raise ExportError(f"block_size {block_size} is not a power of two from {_SMALLEST_BLOCK}")
    form = _form(model, precision, tables)
    bits = 4 if precision == "int4" else 8
    form(model.graph, bits, block_size, accuracy_level).apply(progress)
    return model


def _form(model, precision, tables):
    """The rewriting for a precision. One scale for a whole activation suits encoders; those of
    decoders have outliers, so "int8" gives every block of a row its own (with SmolLM2-135M the
    divergence from the float model falls from 0.5 to 0.006).
    """
    contrib = "com.microsoft" in model.opset_imports
    decodes = any(re.match("past_(key_values|states)", v.name) for v in model.graph.inputs)
    if precision == "int4" or decodes:
        return _Blocks if contrib else _StandardBlocks
    if tables:
        return _DynamicInt8AndTables if contrib else _StandardInt8AndTables
    return _DynamicInt8 if contrib else _StandardInt8


@dataclasses.dataclass
class _Product:
    """x @ weight (k, n), or x @ weight.T with the weight stored as rows (n, k)."""

    node: ir.Node
    weight: ir.Value
    stored_as_rows: bool

    @property
    def sizes(self):
        k, n = (int(size) for size in self.weight.shape)
        return (n, k) if self.stored_as_rows else (k, n)

    def read(self):
        """The weight (k, n); a view where it is stored as rows."""
        values = self.weight.const_value.numpy()
        return values.T if self.stored_as_rows else values


class _Rewriting:
    """What all forms share: finding products, inserting nodes, replacing values.

    Attributes:
        in_bodies: also rewrite in the bodies of loops, whose weights the main graph holds.
    """

    in_bodies = True

    def __init__(self, graph, bits, block_size, accuracy_level):
        self.graph, self.bits = graph, bits
        self.block_size, self.accuracy_level = block_size, accuracy_level
        # Rounded weights by (name, stored_as_rows): layers may share one.
        self.rounded = {}
        # Quantised activations by value and graph: projections may share one.
        self.activations = {}
        # How many nodes have each name, so that none has it twice.
        self.emitted = {}

    def apply(self, progress):
        nodes = ir.traversal.RecursiveGraphIterator(self.graph) if self.in_bodies else self.graph
        nodes = list(nodes)
        products = list(filter(None, map(_product, nodes)))
        lookups = [node for node in nodes if self.is_lookup(node)]
        total = len(products) + len(lookups)
        for done, item in enumerate([*products, *lookups]):
            if isinstance(item, _Product):
                self.product(item)
            else:
                self.lookup(item)
            if progress is not None:
                progress(done + 1, total)
        self._drop_unused()

    def is_lookup(self, node):
        """Whether a Gather reads an embedding table that this form rounds."""
        return False

    def once(self, product, make):
        """The initializers of a product's weight, made by `make()` when first asked for."""
        key = (product.weight.name, product.stored_as_rows)
        if key not in self.rounded:
            self.rounded[key] = make()
        return self.rounded[key]

    def block(self, k, is_head=False):
        """The largest block up to the wanted one that divides k, if any does.

        Scores over a vocabulary suffer most from rounding, so 4-bit heads have half the block.
        """
        wanted = self.block_size
        if is_head and self.bits == 4:
            wanted = max(wanted // 2, _SMALLEST_BLOCK)
        block = wanted
        while k % block and block > _SMALLEST_BLOCK:
            block //= 2
        return block if k % block == 0 else wanted

    def initializer(self, name, array=None, tensor=None):
        tensor = ir.Tensor(np.ascontiguousarray(array), name=name) if tensor is None else tensor
        value = ir.Value(
            name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def emit(self, before, op_type, inputs, attributes=None, domain="", outputs=1):
        """Insert a node and return its output, or its outputs if there are several."""
        name = f"{before.name}/{op_type}"
        self.emitted[name] = self.emitted.get(name, 0) + 1
        name = f"{name}_{self.emitted[name]}"
        values = [ir.Value(name=f"{name}/output_{i}") for i in range(outputs)]
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, outputs=values, name=name)
        before.graph.insert_before(before, node)
        return values[0] if outputs == 1 else values

    def replace(self, node, value):
        """Let `value` take the place and the name of a node's output, and remove the node."""
        old = node.outputs[0]
        value.shape, value.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)
        value.name = old.name

    def absorb_bias(self, product):
        """(node to replace, bias or None): the Add that follows a product goes into its node."""
        add, bias = added_bias(product.node.outputs[0])
        return (product.node, None) if add is None else (add, bias)

    def replace_product(self, product, last, value):
        self.replace(last, value)
        if last is not product.node:
            product.node.graph.remove(product.node, safe=True)

    def _drop_unused(self):
        """Remove transpositions of weights that are gone, and then the weights."""
        for node in list(self.graph):
            if is_op(node, "Transpose") and not node.outputs[0].uses():
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]


def _product(node):
    """The product that a node computes, if it is one that pays."""
    if is_op(node, "MatMul"):
        weight, rows = node.inputs[1], False
        if is_op(weight.producer(), "Transpose"):
            weight, rows = weight.producer().inputs[0], True
    elif is_op(node, "FusedMatMul", "com.microsoft"):
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if attributes.pop("transB", 0) != 1 or any(attributes.values()):
            return None
        weight, rows = node.inputs[1], True
    else:
        return None
    if not is_weight(weight, 2) or weight.dtype != ir.DataType.FLOAT:
        return None
    product = _Product(node, weight, rows)
    return product if product.sizes[1] >= _MIN_COLUMNS else None


def _is_table(node):
    if not is_op(node, "Gather") or not is_weight(node.inputs[0], 2):
        return False
    axis = node.attributes.get("axis")
    table = node.inputs[0]
    return (axis is None or axis.value == 0) and table.dtype == ir.DataType.FLOAT


class _DynamicInt8(_Rewriting):
    """com.microsoft.DynamicQuantizeMatMul: the activation is quantised within the node."""

    def product(self, product):
        weight, scales, zeros = self.once(product, lambda: self._round(product))
        last, bias = self.absorb_bias(product)
        inputs = [product.node.inputs[0], weight, scales, zeros, bias]
        self.replace_product(
            product,
            last,
            self.emit(last, "DynamicQuantizeMatMul", inputs, domain="com.microsoft"),
        )

    def _round(self, product):
        q, scales = rounding.int8_columns(product.read())
        name = product.weight.name
        return (
            self.initializer(f"{name}/int8", q),
            self.initializer(f"{name}/scales", scales),
            self.initializer(f"{name}/zero_points", np.zeros(len(scales), np.int8)),
        )


class _StandardInt8(_Rewriting):
    """MatMulInteger between a dynamic quantisation and a rescaling."""

    def product(self, product):
        weight, scales = self.once(product, lambda: self._round(product))
        node, x = product.node, product.node.inputs[0]
        key = (x, node.graph)
        if key not in self.activations:
            self.activations[key] = self.emit(node, "DynamicQuantizeLinear", [x], outputs=3)
        q, scale, zero = self.activations[key]
        product_int = self.emit(node, "MatMulInteger", [q, weight, zero])
        to_float = {"to": int(ir.DataType.FLOAT)}
        summed = self.emit(node, "Cast", [product_int], to_float)
        step = self.emit(node, "Mul", [scale, scales])
        self.replace(node, self.emit(node, "Mul", [summed, step]))

    def _round(self, product):
        q, scales = rounding.int8_columns(product.read())
        name = product.weight.name
        return self.initializer(f"{name}/int8", q), self.initializer(f"{name}/scales", scales)


class _Blocks(_Rewriting):
    """com.microsoft.MatMulNBits, and GatherBlockQuantized for tables."""

    def product(self, product):
        k, n = product.sizes
        last, bias = self.absorb_bias(product)
        block = self.block(k, is_head=last.outputs[0].is_graph_output())
        inputs = self.once(product, lambda: self._round(product, block))
        attributes = {"K": k, "N": n, "bits": self.bits, "block_size": block}
        if self.accuracy_level:
            attributes["accuracy_level"] = self.accuracy_level
        inputs = [product.node.inputs[0], *inputs, *([None, bias] if bias is not None else [])]
        self.replace_product(
            product, last, self.emit(last, "MatMulNBits", inputs, attributes, "com.microsoft")
        )

    def _round(self, product, block):
        q, scales, zeros = rounding.blocks(product.read().T, block, self.bits)
        if self.bits == 4:
            q, zeros = rounding.pack_nibbles(q), rounding.pack_nibbles(zeros)
        return self._initializers(product.weight, self.bits, q, scales, zeros)

    def _initializers(self, weight, bits, q, scales, zeros):
        return (
            self.initializer(f"{weight.name}/int{bits}", q),
            self.initializer(f"{weight.name}/scales", scales),
            self.initializer(f"{weight.name}/zero_points", zeros),
        )

    def is_lookup(self, node):
        return _is_table(node) and int(node.inputs[0].shape[1]) % _SMALLEST_BLOCK == 0

    def lookup(self, node):
        table = node.inputs[0]
        rows, width = (int(size) for size in table.shape)
        if (table.name, True) in self.rounded:
            bits, (packed, scales, zeros) = self.bits, self.rounded[table.name, True]
            shape = np.array([rows, width * bits // 8])
            shape = self.initializer(f"{table.name}/packed_shape", shape)
            data = self.emit(node, "Reshape", [packed, shape])
        elif rows * width >= _MIN_TABLE:
            bits, (data, scales, zeros) = 8, self._round_table(table)
        else:
            return
        block = width // int(scales.shape[1])
        attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
        inputs = [data, node.inputs[1], scales, zeros]
        found = self.emit(node, "GatherBlockQuantized", inputs, attributes, "com.microsoft")
        self.replace(node, found)

    def _round_table(self, table):
        block = self.block(int(table.shape[1]))
        q, scales, zeros = rounding.blocks(table.const_value.numpy(), block, bits=8)
        return self._initializers(table, 8, q.reshape(len(q), -1), scales, zeros)


class _StandardBlocks(_Rewriting):
    """DequantizeLinear in blocks before MatMul, which onnxruntime fuses when it loads the file.

    It cannot load a body with that pattern if the weight is outside.
    """

    in_bodies = False

    def product(self, product):
        k, _ = product.sizes
        block = self.block(k, is_head=product.node.outputs[0].is_graph_output())
        if k % block:
            return
        inputs = self.once(product, lambda: self._round(product, block))
        node, attributes = product.node, {"axis": 0, "block_size": block}
        weight = self.emit(node, "DequantizeLinear", inputs, attributes)
        self.replace(node, self.emit(node, "MatMul", [node.inputs[0], weight]))

    def _round(self, product, block):
        q, scales, zeros = rounding.blocks(product.read().T, block, self.bits)
        name = product.weight.name
        return (
            self._integers(f"{name}/int{self.bits}", q.reshape(len(q), -1).T),
            self.initializer(f"{name}/scales", scales.T),
            self._integers(f"{name}/zero_points", zeros.T),
        )

    def _integers(self, name, array):
        if self.bits == 8:
            return self.initializer(name, array)
        packed = rounding.pack_nibbles(np.ascontiguousarray(array).reshape(-1))
        tensor = ir.PackedTensor(packed, ir.DataType.UINT4, shape=ir.Shape(array.shape), name=name)
        return self.initializer(name, tensor=tensor)

    def is_lookup(self, node):
        return _is_table(node) and np.prod(node.inputs[0].shape) >= _MIN_TABLE

    def lookup(self, node):
        table, ids = node.inputs
        q, scales = rounding.int8_columns(table.const_value.numpy().T)
        rows = self.initializer(f"{table.name}/int8_rows", q.T)
        steps = self.initializer(f"{table.name}/row_scales", scales[:, None])
        to_float = {"to": int(ir.DataType.FLOAT)}
        found = self.emit(node, "Cast", [self.emit(node, "Gather", [rows, ids])], to_float)
        step = self.emit(node, "Gather", [steps, ids])
        self.replace(node, self.emit(node, "Mul", [found, step]))


class _DynamicInt8AndTables(_DynamicInt8, _Blocks):
    """The products of the one and the tables of the other."""


class _StandardInt8AndTables(_StandardInt8, _StandardBlocks):
    """The products of the one and the tables of the other."""
