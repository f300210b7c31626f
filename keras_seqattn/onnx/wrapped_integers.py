"""Integers of a graph that keep their type: bounds are followed, and what may overflow wraps."""

import contextlib

import onnx_ir as ir

from keras_seqattn.onnx import bounds
from keras_seqattn.onnx.symbol import BOUNDARY_DTYPES, DTYPES


class WrappedIntegers:
    """The part of a graph builder that is about the ranges of integers."""

    _wraps = True

    def _bounded(self, symbol, place, op_type, inputs, attributes):
        """The output of a node with the bounds of its integers. It wraps if it may overflow."""
        sizes, dtype = symbol.sizes, symbol.dtype
        found = bounds.of_result(op_type, inputs, attributes, sizes, dtype, place)
        if bounds.overflows(found, inputs, dtype):
            return self.wrapped(symbol)
        if found is not None and bounds.fits(found, dtype):
            symbol.bounds = found
        return symbol

    @contextlib.contextmanager
    def all_bits(self):
        """Integers that are computed in the `with` block have 64 bits, whatever their dtype says.

        On JAX, the dtypes of Keras have no 64 bits.
        """
        before, self._wraps = self._wraps, False
        try:
            yield
        finally:
            self._wraps = before

    def wrapped(self, symbol):
        """Integers as their dtype holds them, modulo 2**bits."""
        sizes, dtype = symbol.sizes, symbol.dtype
        if not self._wraps:
            return symbol
        kind = BOUNDARY_DTYPES[dtype]
        narrow = self.emit("Cast", [symbol], {"to": int(kind)}, sizes=sizes, dtype=dtype)
        narrow.value.type = ir.TensorType(kind)
        narrow.bounds = bounds.of_dtype(dtype)
        return self.emit("Cast", [narrow], {"to": int(DTYPES[dtype])}, sizes=sizes, dtype=dtype)
