"""The common part of all quantised forms: what is rounded, blocks, and edits of the graph."""

import dataclasses

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.passes.building import constant, initializer, insert, replace_by_value
from keras_seqattn.onnx.passes.matching import added_bias, is_op, is_weight
from keras_seqattn.onnx.quantize.rounding import pack_nibbles

SMALLEST_BLOCK = 16
# Products with fewer columns, such as those of a classifier, cost little and decide the result. So
# they are not rounded.
_MIN_COLUMNS = 16
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to round.

    Attributes:
        bits: number of bits of weights.
        head_bits: number of bits of the weight whose product is an output of the graph.
        block_size: the wanted number of weights that share a scale.
        accuracy_level: attribute of MatMulNBits.
    """

    bits: int
    head_bits: int
    block_size: int
    accuracy_level: int

    def layout(self, k, is_head=False):
        """(bits, block size) of a weight with k rows. The block size is the largest one up to the
        wanted one that divides k, if there is one.

        Rounding harms scores over a vocabulary the most, so 4-bit heads have half the block size.
        """
        bits, wanted = self.head_bits if is_head else self.bits, self.block_size
        if is_head and bits == 4:
            wanted = max(wanted // 2, SMALLEST_BLOCK)
        block = wanted
        while k % block and block > SMALLEST_BLOCK:
            block //= 2
        return bits, block if k % block == 0 else wanted


@dataclasses.dataclass
class Product:
    """x @ weight (k, n), or x @ weight.T if the weight is stored as rows (n, k)."""

    node: ir.Node
    weight: ir.Value
    stored_as_rows: bool

    @property
    def sizes(self):
        k, n = (int(size) for size in self.weight.shape)
        return (n, k) if self.stored_as_rows else (k, n)

    @property
    def key(self):
        """The key of its rounded weight. Layers may share a weight."""
        return self.weight.name, self.stored_as_rows

    def read(self):
        """The weight (k, n). It is a view if the weight is stored as rows."""
        values = self.weight.const_value.numpy()
        return values.T if self.stored_as_rows else values


class Rewriting:
    """Finds products and tables, and makes the edits for the forms.

    Args:
        graph: the `onnx_ir.Graph`.
        settings: Settings.
    """

    def __init__(self, graph, settings):
        self.graph, self.settings = graph, settings
        # The number of nodes with each name, so that names stay unique.
        self._emitted = {}

    def apply(self, product_form, table_form, progress):
        """Rewrite the graph.

        Args:
            product_form: a class of products.py.
            table_form: a class of tables.py, or None.
            progress: None, or a function that is called with (done, total).
        """
        products = product_form(self)
        tables = table_form(self, products) if table_form else None
        bodies = product_form.in_bodies
        nodes = list(ir.traversal.RecursiveGraphIterator(self.graph) if bodies else self.graph)
        jobs = [(products.rewrite, found) for found in filter(None, map(_product, nodes))]
        if tables:
            lookups = [node for node in nodes if _is_lookup(node) and tables.takes(node.inputs[0])]
            jobs += [(tables.rewrite, node) for node in lookups]
        if self.settings.accuracy_level:
            # Weights that Keras has quantised keep their integers, but the product becomes faster.
            for node in nodes:
                if is_op(node, "MatMulNBits", "com.microsoft"):
                    level = ir.AttrInt64("accuracy_level", self.settings.accuracy_level)
                    node.attributes["accuracy_level"] = level
        for done, (rewrite, item) in enumerate(jobs):
            rewrite(item)
            if progress is not None:
                progress(done + 1, len(jobs))
        self._drop_unused()

    def constant(self, name, array):
        """An initializer of the main graph. Its name may be taken, because a weight may have one
        form as a table and another one as a head.
        """
        return constant(self.graph, self._free(name), array)

    def packed_constant(self, name, array):
        """A UINT4 initializer of the main graph, for uint8 values below 16."""
        packed = pack_nibbles(np.ascontiguousarray(array).reshape(-1))
        shape, name = ir.Shape(array.shape), self._free(name)
        tensor = ir.PackedTensor(packed, ir.DataType.UINT4, shape=shape, name=name)
        return initializer(self.graph, tensor)

    def _free(self, name):
        return self._free(f"{name}_2") if name in self.graph.initializers else name

    def emit(self, before, op_type, inputs, attributes=None, domain="", outputs=1):
        """Insert a node and return its output, or its outputs if there are several."""
        name = f"{before.name}/{op_type}"
        self._emitted[name] = self._emitted.get(name, 0) + 1
        name = f"{name}_{self._emitted[name]}"
        values = [ir.Value(name=f"{name}/output_{i}") for i in range(outputs)]
        insert(before, op_type, inputs, attributes, domain, name=name, outputs=values)
        return values[0] if outputs == 1 else values

    def cast(self, before, value, dtype):
        """The value, cast to another type."""
        return self.emit(before, "Cast", [value], {"to": int(dtype)})

    def in_float32(self, before, product, make):
        """`make(x)` for the activation x in float32. The result has the type of the weight."""
        x, dtype = product.node.inputs[0], product.weight.dtype
        if dtype == ir.DataType.FLOAT:
            return make(x)
        return self.cast(before, make(self.cast(before, x, ir.DataType.FLOAT)), dtype)

    def is_outside(self, product):
        """Whether a product is in the main graph, outside the bodies of loops."""
        return product.node.graph is self.graph

    def replace(self, node, value):
        """Replace the output of a node by `value`, which takes its name. Remove the node."""
        replace_by_value(node, value)

    def with_bias(self, product):
        """(node to replace, bias or None). The Add after a product becomes part of its node."""
        add, bias = added_bias(product.node.outputs[0])
        if add is None or bias.dtype != product.weight.dtype:
            return product.node, None
        return add, bias

    def replace_product(self, product, last, value):
        """Replace a product by `value`; if `last` is the Add of its bias, replace that, too."""
        self.replace(last, value)
        if last is not product.node:
            product.node.graph.remove(product.node, safe=True)

    def _drop_unused(self):
        """Remove transpositions of weights that are not used any more, and then the weights."""
        for node in list(self.graph):
            value = node.outputs[0]
            if is_op(node, "Transpose") and not value.uses() and not value.is_graph_output():
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]


def _product(node):
    """The product that a node computes, if it is large enough to be rounded, else None."""
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
    if not is_weight(weight, 2) or weight.dtype not in _FLOATS:
        return None
    product = Product(node, weight, rows)
    return product if product.sizes[1] >= _MIN_COLUMNS else None


def _is_lookup(node):
    """Whether a Gather reads rows of an embedding table."""
    if not is_op(node, "Gather") or not is_weight(node.inputs[0], 2):
        return False
    axis = node.attributes.get("axis")
    return (axis is None or axis.value == 0) and node.inputs[0].dtype in _FLOATS
