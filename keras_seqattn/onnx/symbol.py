"""Keras tensors that carry ONNX values, and the rules for their sizes and dtypes."""

import keras
import numpy as np
import onnx_ir as ir

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.bounds import of_dtype
from keras_seqattn.onnx.sizes import is_dynamic


class _Types(dict):
    def __missing__(self, dtype):
        raise ExportError(f"values of the dtype {dtype} cannot be written to a file")


_OTHERS = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "float64": ir.DataType.DOUBLE,
    "bool": ir.DataType.BOOL,
}
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
# Types of values inside the graph, where every integer is int64, and of its inputs and outputs.
DTYPES = _Types(_OTHERS | dict.fromkeys(_INTEGERS, ir.DataType.INT64))
BOUNDARY_DTYPES = _Types(_OTHERS | {name: ir.DataType[name.upper()] for name in _INTEGERS})


class Symbol(keras.KerasTensor):
    """A Keras tensor that stands for an ONNX value.

    Attributes:
        value: the `onnx_ir.Value`.
        sizes: the shape in ints. Dynamic sizes are `sizes.Size` (`shape` shows those as None).
        number: the int or Size of an integer scalar that is computed only from sizes; else None.
        bounds: (least, greatest) integer that the values may be; None for floats.
    """

    def __init__(self, value, sizes, dtype, number=None, bounds=None):
        sizes = tuple(n if is_dynamic(n) else int(n) for n in sizes)
        shape = tuple(None if is_dynamic(n) else n for n in sizes)
        super().__init__(shape=shape, dtype=dtype, name=value.name)
        self.value = value
        self.sizes = sizes
        self.number = number
        self.bounds = of_dtype(dtype) if bounds is None else bounds
        # The Symbol before a reshape, for lowerings that can leave out the reshape.
        self.reshaped_from = self

    # With this, arrays of NumPy and JAX leave `array + symbol` to the Symbol, as other backends do.
    # What KerasTensor defines here would refuse it.
    __array_ufunc__ = None

    @property
    def __jax_array__(self):
        raise AttributeError("__jax_array__")

    # Tensors of all backends compare element by element, where KerasTensor compares identities.
    # Sizes are ints in Keras: `-1 in shape` must not ask for a tensor.
    def __eq__(self, other):
        if self.number is not None and _number(other) is not None:
            return self.number == _number(other)
        return keras.ops.equal(self, other) if _is_operand(other) else NotImplemented

    def __ne__(self, other):
        if self.number is not None and _number(other) is not None:
            return self.number != _number(other)
        return keras.ops.not_equal(self, other) if _is_operand(other) else NotImplemented

    __hash__ = keras.KerasTensor.__hash__

    def view(self, dtype):
        """The same ONNX value with another Keras dtype, which has all integers in its bounds."""
        return Symbol(self.value, self.sizes, dtype, self.number, self.bounds)


def _number(x):
    """The int or Size that an argument is, or None."""
    return x if isinstance(x, int) else getattr(x, "number", None)


def _is_operand(x):
    return isinstance(x, (bool, int, float)) or hasattr(x, "__array__") or hasattr(x, "sizes")


def lazy_initializer(name, shape, dtype, read):
    """An initializer whose array is made by `read()` when it is written, and is not kept."""

    def load():
        array = np.asarray(read(), dtype=dtype.numpy(), order="C")
        return ir.Tensor(array, dtype=dtype, name=name)

    tensor = ir.LazyTensor(load, dtype=dtype, shape=ir.Shape(shape), name=name, cache=False)
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor)


def joined_name(names):
    """`a/query/kernel`, `a/key/kernel` -> `a/query+key/kernel`."""
    split = [n.split("/") for n in names]
    if len({len(s) for s in split}) != 1:
        return "+".join(names)
    parts = []
    for choices in zip(*split, strict=True):
        parts.append(choices[0] if len(set(choices)) == 1 else "+".join(choices))
    return "/".join(parts)
