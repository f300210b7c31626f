"""The hash of TensorFlow, FarmHash, of the decimal digits of integers, in integer arithmetic.

TensorFlow writes an integer as a text and hashes the text. It has up to 20 characters, so that a
few cases of the hash are enough. All numbers are int64, whose products and sums are those of uint64
modulo 2**64.
"""

import numpy as np
import onnx_ir as ir
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.symbol import Symbol

# The length of the longest text: the sign and 19 digits, or 20 digits.
_LONGEST = 20
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F

_HALF, _BITS = np.uint64(2**32 - 1), np.uint64(32)


def hashed(tracer, x, bins, salt=None):
    """The bins, 0 <= int64 < `bins`, of the texts of integers. Fractions of floats are cut off.

    Raises:
        ExportError: the values are texts or bools, or the hash has a salt.
    """
    if salt is not None or x.dtype in ("string", "bool"):
        what = "with a salt" if salt is not None else f"of the dtype {x.dtype}"
        raise ExportError(
            f"{tracer.where()}: a hash {what} cannot be exported; hash before the file and give "
            "it the numbers, or use a vocabulary"
        )
    words = _Words(tracer)
    x = cast(tracer, x, "int64")
    with tracer.all_bits():
        text, length = _text(words, x)
        return words.remainder(_fingerprint(words, text, length), bins)


class _Words:
    """Arithmetic modulo 2**64."""

    def __init__(self, tracer):
        self.tracer = tracer

    def number(self, value):
        """A constant, or an array of them, made of its two halves.

        As one constant, it could be mistaken for a size that is known only at run time.
        """
        array = np.array(value, np.uint64)
        low, high = (self.tracer.constant(half) for half in (array & _HALF, array >> _BITS))
        if not (array >> _BITS).any():
            return low
        key = ("number", array.shape, *array.ravel().tolist())
        return self.tracer.once(key, lambda: high * 2**32 + low)

    def unsigned(self, x):
        """The same bits as uint64."""
        to = {"to": int(ir.DataType.UINT64)}
        x = self.tracer.emit("Cast", [x], to, sizes=x.sizes, dtype="int64")
        x.value.type = ir.TensorType(ir.DataType.UINT64)
        return x

    def _of_unsigned(self, op_type, x, number, attributes=None):
        """An operator of `x` and a constant, for which the sign matters."""
        inputs = [self.unsigned(x), self.unsigned(self.number(number))]
        made = self.tracer.emit(op_type, inputs, attributes, sizes=x.sizes, dtype="int64")
        made.value.type = ir.TensorType(ir.DataType.UINT64)
        to = {"to": int(ir.DataType.INT64)}
        return self.tracer.emit("Cast", [made], to, sizes=x.sizes, dtype="int64")

    def right(self, x, bits):
        """`x` shifted to the right. Zeros come in."""
        return self._of_unsigned("BitShift", x, bits, {"direction": "RIGHT"})

    def remainder(self, x, divisor):
        """`x` modulo a number."""
        return self._of_unsigned("Mod", x, divisor)

    def plus(self, x, y):
        return self._of_two("Add", x, y)

    def times(self, x, y):
        return self._of_two("Mul", x, y)

    def xor(self, x, y):
        return self._of_two("BitwiseXor", x, y)

    def _of_two(self, op_type, x, y):
        x, y = (a if isinstance(a, Symbol) else self.number(a) for a in (x, y))
        sizes = max(x.sizes, y.sizes, key=len)
        return self.tracer.emit(op_type, [x, y], sizes=sizes, dtype="int64")

    def rotated(self, x, bits):
        """`x` rotated to the right."""
        return self.plus(self.right(x, bits), self.times(x, 1 << (64 - bits)))

    def mixed(self, x):
        return self.xor(x, self.right(x, 47))

    def folded(self, x, y, factor):
        """The hash of 16 bytes."""
        a = self.mixed(self.times(self.xor(x, y), factor))
        b = self.mixed(self.times(self.xor(y, a), factor))
        return self.times(b, factor)


def _text(words, x):
    """The characters of integers, int64 (..., 20), and their number, int64 (...)."""
    minus = ops.cast(x < 0, "int64")
    size = words.times(x, 1 - 2 * minus)
    # The size of the least integer is 2**63, negative as int64. So the first digit is apart.
    tens = words.right(size, 1) // 5
    first = words.plus(size, words.times(tens, 2**64 - 10))
    powers = np.array([10**k for k in range(_LONGEST - 1)])
    quotients = ops.expand_dims(tens, -1) // powers
    digits = ops.concatenate([ops.expand_dims(first, -1), quotients % 10], axis=-1)
    count = 1 + ops.sum(ops.cast(quotients > 0, "int64"), axis=-1)
    length = count + minus
    place = ops.expand_dims(length, -1) - 1 - np.arange(_LONGEST)
    characters = ops.take_along_axis(digits, ops.clip(place, 0, _LONGEST - 1), axis=-1) + ord("0")
    is_sign = ops.expand_dims(minus, -1) * np.eye(1, _LONGEST, dtype=np.int64)[0]
    characters = ops.where(is_sign > 0, ord("-"), characters)
    return ops.where(place >= 0, characters, 0), length


def _read(words, text, start, count):
    """`count` characters from `start` on as one number. The first one is the lowest byte."""
    if count == 8:
        # The sums of onnxruntime are exact only up to 2**53, so there are two of them.
        low, high = (_read(words, text, start + place, 4) for place in (0, 4))
        return words.plus(low, words.times(high, 2**32))
    if isinstance(start, Symbol):
        places = ops.clip(ops.expand_dims(start, -1) + np.arange(count), 0, _LONGEST - 1)
        part = ops.take_along_axis(text, places, axis=-1)
    else:
        part = text[..., start : start + count]
    return ops.sum(part * np.array([256**k for k in range(count)]), axis=-1)


def _fingerprint(words, text, length):
    """Fingerprint64 of FarmHash, for texts of 1 to 20 characters."""
    factor = words.plus(length * 2, _K2)
    last = _read(words, text, length - 8, 8)
    return ops.where(
        length < 4,
        _up_to_3(words, text, length),
        ops.where(
            length < 8,
            _up_to_7(words, text, length, factor),
            ops.where(
                length < 17,
                _up_to_16(words, text, last, factor),
                _up_to_32(words, text, length, last, factor),
            ),
        ),
    )


def _up_to_3(words, text, length):
    first, middle, last = (_read(words, text, at, 1) for at in (0, length // 2, length - 1))
    y, z = first + middle * 256, length + last * 4
    mixed = words.mixed(words.xor(words.times(y, _K2), words.times(z, _K0)))
    return words.times(mixed, _K2)


def _up_to_7(words, text, length, factor):
    first, last = _read(words, text, 0, 4), _read(words, text, length - 4, 4)
    return words.folded(length + first * 8, last, factor)


def _up_to_16(words, text, last, factor):
    a = words.plus(_read(words, text, 0, 8), _K2)
    c = words.plus(words.times(words.rotated(last, 37), factor), a)
    d = words.times(words.plus(words.rotated(a, 25), last), factor)
    return words.folded(c, d, factor)


def _up_to_32(words, text, length, last, factor):
    a, b = words.times(_read(words, text, 0, 8), _K1), _read(words, text, 8, 8)
    c = words.times(last, factor)
    d = words.times(_read(words, text, length - 16, 8), _K2)
    x = words.plus(words.rotated(words.plus(a, b), 43), words.plus(words.rotated(c, 30), d))
    y = words.plus(a, words.plus(words.rotated(words.plus(b, _K2), 18), c))
    return words.folded(x, y, factor)
