"""The forms of an embedding table with rounded rows."""

import numpy as np

from keras_seqattn.onnx.quantize import rounding
from keras_seqattn.onnx.quantize.products import block_constants
from keras_seqattn.onnx.quantize.rewriting import SMALLEST_BLOCK

# A table that no product shares is rounded to 8 bits if it has at least this many values.
_MIN_TABLE = 1 << 20


class BlockRows:
    """com.microsoft.GatherBlockQuantized. It uses the values of a tied head if they are in rows."""

    def __init__(self, rewriting, products):
        self.graph, self.products = rewriting, products
        self._rounded = {}

    def takes(self, table):
        """Whether a table may have this form."""
        return int(table.shape[1]) % SMALLEST_BLOCK == 0

    def rewrite(self, node):
        table, ids = node.inputs
        rows, width = (int(size) for size in table.shape)
        lent = self.products.rows(table)
        if lent:
            bits, packed, scales, zeros = lent
            shape = np.array([rows, width * bits // 8])
            shape = self.graph.constant(f"{table.name}/packed_shape", shape)
            data = self.graph.emit(node, "Reshape", [packed, shape])
        elif rows * width >= _MIN_TABLE:
            bits = 8
            data, scales, zeros = self._own(table)
        else:
            return
        block = width // int(scales.shape[1])
        attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
        inputs = [data, ids, scales, zeros]
        found = self.graph.emit(node, "GatherBlockQuantized", inputs, attributes, "com.microsoft")
        self.graph.replace(node, found)

    def _own(self, table):
        if table.name not in self._rounded:
            _, block = self.graph.settings.layout(int(table.shape[1]))
            q, scales, zeros = rounding.blocks(table.const_value.numpy(), block, bits=8)
            self._rounded[table.name] = block_constants(
                self.graph, table, 8, q.reshape(len(q), -1), scales, zeros
            )
        return self._rounded[table.name]


class StandardRows:
    """Gather of 8-bit rows and of their scales."""

    def __init__(self, rewriting, products):
        self.graph = rewriting
        self._rounded = {}

    def takes(self, table):
        """Whether a table may have this form."""
        return np.prod(table.shape) >= _MIN_TABLE

    def rewrite(self, node):
        table, ids = node.inputs
        rows, steps = self._own(table)
        gathered = self.graph.emit(node, "Gather", [rows, ids])
        found = self.graph.cast(node, gathered, table.dtype)
        step = self.graph.emit(node, "Gather", [steps, ids])
        self.graph.replace(node, self.graph.emit(node, "Mul", [found, step]))

    def _own(self, table):
        if table.name not in self._rounded:
            q, scales = rounding.int8_columns(table.const_value.numpy().T)
            scales = scales[:, None].astype(table.dtype.numpy(), copy=False)
            self._rounded[table.name] = (
                self.graph.constant(f"{table.name}/int8_rows", q.T),
                self.graph.constant(f"{table.name}/row_scales", scales),
            )
        return self._rounded[table.name]
