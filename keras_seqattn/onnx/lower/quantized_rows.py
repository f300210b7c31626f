"""Weights that Keras has quantised, in one form: integers in rows, with scales and zero points.

A row holds the weights of one output. Keras keeps 4-bit values in pairs, along the outputs or along
the inputs, signed or not, and one scale per output or one per group of inputs.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_seqattn.errors import ExportError

# com.microsoft.MatMulNBits has these block sizes. The larger ones need fewer scales.
_BLOCKS = (256, 128, 64, 32, 16)
_BYTES_OF_SCALE = 4


@dataclasses.dataclass(frozen=True)
class Rows:
    """A weight (inputs k, outputs n), as `weight.T = (values - zeros) * scales`.

    Attributes:
        key: identifies the weight: layers may share it.
        name: the path of the Keras variable with the integers.
        shape: (n, k).
        bits: 4 or 8. The values are from 0 to `2**bits - 1`.
        read: function () -> the values, uint8 (n, k).
        scales: function () -> float32 (n, groups).
        group: the number of inputs that share a scale. The last group may be smaller.
        zeros: None for the middle of the range, or uint8 (n, groups).
        order: None, or int (k,): the inputs in the order of `read`.
        divisors: None, or the variable (k,) by which inputs are divided first (AWQ).
    """

    key: object
    name: str
    shape: tuple
    bits: int
    read: Callable
    scales: Callable
    group: int
    zeros: np.ndarray | None = None
    order: np.ndarray | None = None
    divisors: keras.Variable | None = None

    @property
    def groups(self):
        return -(-self.shape[1] // self.group)

    @property
    def middle(self):
        return 1 << self.bits - 1

    def in_groups(self, size):
        """The same weight with a smaller group, whose size divides that of each group or follows a
        row of one group.
        """
        if size == self.group:
            return self
        count = -(-self.shape[1] // size)
        times = count if self.groups == 1 else self.group // size

        def repeated(x):
            return np.repeat(x, times, axis=1)[:, :count]

        return dataclasses.replace(
            self,
            group=size,
            scales=lambda: repeated(self.scales()),
            zeros=None if self.zeros is None else repeated(self.zeros),
        )

    def block_size(self):
        """The block size of MatMulNBits that holds this weight exactly, or None."""
        if self.bits != 4 or (self.zeros is not None and self.zeros.max(initial=0) > 15):
            return None
        k = self.shape[1]
        sizes = [b for b in _BLOCKS if self.groups == 1 or self.group % b == 0]
        return min(sizes, key=lambda b: -(-k // b) * (b // 2 + _BYTES_OF_SCALE), default=None)


def array(variable, dtype=None):
    """The values of a variable as NumPy. `dtype` None keeps their type."""
    values = keras.ops.convert_to_numpy(variable.value)
    return values if dtype is None else values.astype(dtype)


def scales_of(layer, variable):
    """The values of a variable as float32, rounded to the type in which the layer computes."""
    scales = array(variable, "float32")
    if layer.compute_dtype == "float32":
        return scales
    half = keras.ops.cast(scales, layer.compute_dtype)
    return keras.ops.convert_to_numpy(keras.ops.cast(half, "float32"))


def pairs(packed, axis, length):
    """The 4-bit values of bytes, the low half first, as uint8 from 0 to 15.

    Args:
        packed: int8 or uint8.
        axis: the axis along which pairs were packed.
        length: the size of this axis, without the padding of an odd size.
    """
    packed = np.moveaxis(packed.view(np.uint8), axis, -1)
    values = np.stack([packed & 15, packed >> 4], axis=-1)
    values = values.reshape(*packed.shape[:-1], -1)[..., :length]
    return np.moveaxis(values, -1, axis)


def sorted_groups(where, index, group):
    """None if the inputs lie in groups one after another, else the order in which they do.

    Args:
        where: the path of the layer, for the message.
        index: (k,), the group of each input.
        group: the number of inputs in a group.

    Raises:
        ExportError: the groups do not have that size.
    """
    order = np.argsort(index, kind="stable")
    if not np.array_equal(index[order], np.arange(len(index)) // group):
        raise ExportError(
            f"{where}: the groups of the quantised weight have unequal sizes, which a file cannot "
            "hold; quantise the layer again"
        )
    return None if np.array_equal(order, np.arange(len(index))) else order
