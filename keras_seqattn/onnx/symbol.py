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
    "string": ir.DataType.STRING,
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

    def without_mask(self):
        """The same ONNX value without the mask that a layer attached."""
        twin = self.view(self.dtype)
        if self.reshaped_from is not self:
            twin.reshaped_from = self.reshaped_from
        return twin

    def __getitem__(self, key):
        # For tensors of PyTorch, a list of numbers is a tensor of indices. In the layers of a
        # functional model, a list is a tuple for Keras; those call the operation itself.
        if isinstance(key, list) and all(isinstance(k, (int, list)) for k in key):
            key = np.array(key)
        return super().__getitem__(key)

    # Python asks for these where code decides by a value. While a model is traced, there is none.

    def __bool__(self):
        return bool(self._known("`if`, `while`, `and`, `or` or `not`", "ops.cond, ops.while_loop"))

    def __int__(self):
        return self._known("int()", "ops.cast, or ops.while_loop for a loop that it bounds")

    def __index__(self):
        return self._known("an index or range()", "ops.take, or ops.fori_loop for a loop")

    def __float__(self):
        return float(self._known("float()", "ops.cast"))

    def __len__(self):
        return self._length("len()", "ops.shape")

    def __iter__(self):
        return (self[i] for i in range(self._length("a loop over a tensor", "ops.map or ops.scan")))

    def _known(self, use, instead):
        """The value as a plain int."""
        if self.number is None or is_dynamic(self.number):
            raise ExportError(
                f"{self.name}: {use} of Python needs the value of a tensor, which is known only at "
                f"run time; use {instead} or ops.where"
            )
        return int(self.number)

    def _length(self, use, instead):
        """The size of the first axis as a plain int."""
        if not self.sizes or is_dynamic(self.sizes[0]):
            raise ExportError(
                f"{self.name}: {use} needs a first axis of fixed length; use {instead}"
            )
        return self.sizes[0]


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
