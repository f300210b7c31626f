"""The sizes of a graph while it is built: its dynamic dimensions, and the scalars that hold them.

Every dynamic dimension is a `sizes.Size`, and shapes are inferred with integer arithmetic. So a
dynamic size can be recognised everywhere: `past + sequence` is the sum of two dimensions, and a
number of blocks is a dimension divided by a number. So a reshape needs no chain of Shape nodes.
"""

import numpy as np

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import sizes as dynamic
from keras_seqattn.onnx.sizes import is_dynamic
from keras_seqattn.onnx.symbol import Symbol


class SizedGraph:
    """Knows the sizes of one graph. `GraphBuilder` makes the nodes that compute them."""

    def __init__(self):
        # Size -> its scalar, or (tensor, axis) where it can be read.
        self._sizes = {}
        self._dimension_names = {}
        self._size_labels = {}

    def dimension(self, name):
        """The Size of the named dimension. `a+b` is the sum of two dimensions."""
        if "+" in name:
            return sum(self.dimension(part) for part in name.split("+"))
        if name not in self._dimension_names:
            index = len(self._dimension_names)
            if index == dynamic.MOST_DIMENSIONS:
                raise ExportError(f"more than {index} dynamic dimensions in the inputs")
            self._dimension_names[name] = dynamic.dimension(index)
        return self._dimension_names[name]

    @property
    def dimension_names(self):
        """tuple of the names of dynamic dimensions."""
        return tuple(self._dimension_names)

    def label(self, name, label):
        """Give the size of a named dimension, or of a sum, another name in the file."""
        self._size_labels[self.dimension(name)] = label

    def size(self, symbol, axis):
        """The size of an axis: an int if it is static, else a scalar Symbol."""
        number = symbol.sizes[axis]
        if not is_dynamic(number):
            return number
        known = self._sizes.get(number)
        if isinstance(known, Symbol):
            return known
        source, axis = known or (symbol, axis)
        shape = self.emit(
            "Shape",
            [source],
            {"start": axis % len(source.sizes), "end": axis % len(source.sizes) + 1},
            sizes=(1,),
            dtype="int64",
        )
        scalar = self.emit(
            "Squeeze", [shape, self.constant(np.array([0]))], sizes=(), dtype="int64"
        )
        scalar.number = number
        self._sizes[number] = scalar
        return scalar

    def numbers(self, shape, what):
        """The sizes in a shape or a range, as ints.

        Args:
            shape: ints, scalar Symbols and None. None stays None. An integer that was not computed
                from sizes becomes a Size that equals no other one.
            what: str, the purpose of the numbers, for the message.

        Raises:
            ExportError: a number is no whole number.
        """
        for n in shape:
            if isinstance(n, Symbol) and n.number is None:
                if n.sizes or "int" not in n.dtype:
                    raise ExportError(
                        f"{self.where()}: {what} is a {n.dtype} of shape {n.shape}; give a whole "
                        "number, for example ops.cast(n, 'int32')"
                    )
                n.number = dynamic.unknown()
            if isinstance(n, Symbol):
                self.register_number(n, n.number)
        return [n.number if isinstance(n, Symbol) else n for n in shape]

    def scalar(self, number):
        """The Symbol of a registered dynamic size, or None."""
        known = self._sizes.get(number)
        if known is None or isinstance(known, Symbol):
            return known
        return self.size(*known)

    def _known_scalar(self, number):
        scalar = self.scalar(number)
        if scalar is None:
            raise ExportError(
                f"{self.where()}: {self._operations[-1]} needs a length that is known only at run "
                "time, and no tensor here has it; take it from ops.shape(x)"
            )
        return scalar

    def register_number(self, symbol, number):
        """Note that an integer scalar is a size, because it is computed from sizes."""
        symbol.number = number
        if is_dynamic(number):
            self._sizes.setdefault(number, symbol)

    def vector(self, numbers):
        """A 1-D int64 Symbol from ints, Sizes and scalar Symbols."""
        numbers = [self._known_scalar(n) if is_dynamic(n) else _plain(n) for n in numbers]
        if all(isinstance(n, (int, np.integer)) for n in numbers):
            return self.constant(np.array(numbers, np.int64))
        parts = []
        for n in numbers:
            if isinstance(n, Symbol):
                if n.value.producer() is not None and n.value.producer().op_type == "Squeeze":
                    n = Symbol(n.value.producer().inputs[0], (1,), "int64")
                else:
                    n = self.emit(
                        "Reshape", [n, self.constant(np.array([1]))], sizes=(1,), dtype="int64"
                    )
            else:
                n = self.constant(np.array([n]))
            parts.append(n)
        return self.emit("Concat", parts, {"axis": 0}, sizes=(len(parts),), dtype="int64")


def _plain(n):
    """A number as a plain int, if a Symbol is known to be one."""
    known = isinstance(n, Symbol) and isinstance(n.number, int) and not is_dynamic(n.number)
    return n.number if known else n
