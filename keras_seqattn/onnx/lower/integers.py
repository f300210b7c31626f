"""Lowerings of integer arithmetic: division, remainders, powers, bits, shifts, common divisors."""

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from keras_seqattn.onnx.bounds import LIMITS
from keras_seqattn.onnx.lower.elementwise import (
    cast,
    dtype_of,
    logical,
    of_numbers,
    operands,
    result_spec,
    through_ops,
)
from keras_seqattn.onnx.lower.registry import lowers

_BITS = 64


def _both(tracer, operation, x1, x2):
    """(a, b, sizes, dtype) of two operands in the dtype of the result. Bools become int32."""
    sizes, dtype = result_spec(tracer, operation, (x1, x2))
    dtype = "int32" if dtype == "bool" else dtype
    return *operands(tracer, (x1, x2), dtype), sizes, dtype


def _divisor(tracer, b):
    """`b`, but 1 in place of 0. In onnxruntime, a division of integers by 0 ends the process."""
    if b.bounds[0] > 0 or b.bounds[1] < 0 or b.number is not None:
        return b
    zero = tracer.emit("Equal", [b, tracer.constant(0)], sizes=b.sizes, dtype="bool")
    return tracer.emit("Where", [zero, tracer.constant(1), b], sizes=b.sizes, dtype=b.dtype)


@lowers("FloorDivide")
def floor_divide(tracer, operation, x1, x2):
    a, b, sizes, dtype = _both(tracer, operation, x1, x2)
    if "int" not in dtype:
        if keras.backend.backend() != "tensorflow":
            return _exact_floor_divide(a, b)
        quotient = tracer.emit("Div", [a, b], sizes=sizes, dtype=dtype)
        return tracer.emit("Floor", [quotient], sizes=sizes, dtype=dtype)
    # The integer Div of ONNX truncates. If the remainder is not 0 and has the other sign, the
    # result is one less. What is divided may be outside of the type.
    b = _divisor(tracer, b)
    remainder = tracer.emit("Mod", [a, b], sizes=sizes, dtype=dtype)
    floored = tracer.emit("Sub", [a.view("int64"), remainder], sizes=sizes, dtype="int64")
    quotient = tracer.emit("Div", [floored, b.view("int64")], sizes=sizes, dtype="int64")
    low, high = a.bounds
    most = max(abs(low), abs(high))
    quotient.bounds = (min(low, 0), max(high, 0)) if b.bounds[0] >= 0 else (-most, most)
    return cast(tracer, quotient, dtype)


def _exact_floor_divide(a, b):
    """PyTorch and JAX divide what is left without the remainder: 1 // 0.1 is 9, as in Python.

    TensorFlow rounds the quotient, which is 10.
    """
    quotient = a / b
    exact = ops.round((a - ops.mod(a, b)) / b)
    return ops.where(ops.isfinite(quotient), exact, quotient)


@lowers("Mod")
def mod(tracer, operation, x1, x2):
    """The remainder with the sign of the divisor."""
    a, b, sizes, dtype = _both(tracer, operation, x1, x2)
    if "int" in dtype:
        return tracer.emit("Mod", [a, _divisor(tracer, b)], sizes=sizes, dtype=dtype)
    rest = tracer.emit("Mod", [a, b], {"fmod": 1}, sizes=sizes, dtype=dtype)
    return ops.where(rest * ops.sign(b) < 0, rest + b, rest)


@lowers("Fmod")
def fmod(tracer, operation, x1, x2):
    """The remainder with the sign of the dividend."""
    a, b, sizes, dtype = _both(tracer, operation, x1, x2)
    b = _divisor(tracer, b) if "int" in dtype else b
    return tracer.emit("Mod", [a, b], {"fmod": 1}, sizes=sizes, dtype=dtype)


@lowers("Power")
def power(tracer, operation, x1, x2):
    """Powers of integers are products, because onnxruntime computes its Pow in float64."""
    a, b, sizes, dtype = _both(tracer, operation, x1, x2)
    if "int" not in dtype or (a.number is not None and b.bounds[0] == b.bounds[1]):
        return tracer.emit("Pow", [a, b], sizes=sizes, dtype=dtype)
    low, high = b.bounds
    negative = ops.less(b, 0) if low < 0 else None
    exponent = ops.absolute(b) if low < 0 else b
    result = _power(a, exponent, max(abs(low), abs(high)), low == high)
    if negative is None:
        return result
    whole = ops.where(ops.equal(ops.absolute(a), 1), result, 0)
    return ops.where(negative, whole, result)


def _power(base, exponent, most, is_one_number):
    """`base` to the exponent, which is at most `most`, by squaring: one factor for each bit."""
    result = None
    for bit in range(most.bit_length()):
        if is_one_number:
            factor = base if most >> bit & 1 else None
        else:
            odd = ops.equal(ops.mod(ops.right_shift(exponent, bit), 2), 1)
            factor = ops.where(odd, base, 1)
        if factor is not None:
            result = factor if result is None else result * factor
        if most >> bit > 1:
            base = base * base
    return ops.ones_like(base) if result is None else result


# ---- bits

BITWISE = {
    "BitwiseAnd": ("BitwiseAnd", "And"),
    "BitwiseOr": ("BitwiseOr", "Or"),
    "BitwiseXor": ("BitwiseXor", "Xor"),
}


def bitwise(onnx_name, of_bools):
    """The sign of an int64 continues the bits of a narrower type, so the result stays in it."""

    def lowering(tracer, operation, x, y):
        if dtype_of(x) in (bool, "bool") and dtype_of(y) in (bool, "bool"):
            return logical(of_bools)(tracer, operation, x, y)
        a, b, sizes, dtype = _both(tracer, operation, x, y)
        return tracer.emit(onnx_name, [a, b], sizes=sizes, dtype=dtype)

    return lowering


for _keras_name, _names in BITWISE.items():
    lowers(_keras_name)(bitwise(*_names))


@lowers("BitwiseInvert", "BitwiseNot")
def bitwise_not(tracer, operation, x):
    if x.dtype == "bool":
        return ops.logical_not(x)
    if x.dtype.startswith("uint") and x.dtype != "uint64":
        ones = tracer.constant(LIMITS[x.dtype][1])
        return tracer.emit("BitwiseXor", [x, ones], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("BitwiseNot", [x], sizes=x.sizes, dtype=x.dtype)


def _shift_operands(tracer, operation, x, y):
    a, b, sizes, dtype = _both(tracer, operation, x, y)
    return a, ops.minimum(b, _BITS - 1) if b.bounds[1] >= _BITS else b, sizes, dtype


def _bit_shift(tracer, x, y, direction, sizes, dtype):
    """A shift of 64 unsigned bits. onnxruntime shifts no signed ones."""
    unsigned = ir.DataType.UINT64
    both = [
        tracer.emit("Cast", [v], {"to": int(unsigned)}, sizes=v.sizes, dtype=dtype) for v in (x, y)
    ]
    for value in both:
        value.value.type = ir.TensorType(unsigned)
    shifted = tracer.emit("BitShift", both, {"direction": direction}, sizes=sizes, dtype=dtype)
    shifted.value.type = ir.TensorType(unsigned)
    return tracer.emit("Cast", [shifted], {"to": int(ir.DataType.INT64)}, sizes=sizes, dtype=dtype)


@lowers("BitwiseLeftShift", "LeftShift")
def left_shift(tracer, operation, x, y):
    """Multiplication by a power of two, which wraps. All bits may leave."""
    a, b, sizes, dtype = _shift_operands(tracer, operation, x, y)
    one = tracer.constant(1)
    if b.value.const_value is not None:
        factor = tracer.constant(np.left_shift(1, b.value.const_value.numpy()))
    else:
        factor = _bit_shift(tracer, one, b, "LEFT", b.sizes, "int64")
    return tracer.emit("Mul", [a, factor], sizes=sizes, dtype=dtype)


@lowers("BitwiseRightShift", "RightShift")
def right_shift(tracer, operation, x, y):
    """Negative numbers shift as their complement does: -1 stays -1."""
    a, b, sizes, dtype = _shift_operands(tracer, operation, x, y)
    if a.bounds[0] >= 0 or dtype == "uint64":
        return _bit_shift(tracer, a, b, "RIGHT", sizes, dtype)
    sign = ops.negative(ops.cast(ops.less(a, 0), dtype))
    shifted = _bit_shift(tracer, ops.bitwise_xor(a, sign), b, "RIGHT", sizes, dtype)
    return ops.bitwise_xor(shifted, sign)


# ---- common divisors


@lowers("Gcd")
def gcd(tracer, operation, x1, x2):
    """The algorithm of Euclid, as a loop that ends when all remainders are 0."""
    a, b, sizes, dtype = _both(tracer, operation, x1, x2)
    total = tracer.emit("Add", [a, b], sizes=sizes, dtype=dtype)
    shape = tracer.emit("Shape", [total], sizes=(len(sizes),), dtype="int64")
    a, b = (
        tracer.emit("Expand", [ops.absolute(v), shape], sizes=sizes, dtype=dtype) for v in (a, b)
    )
    most = tracer.constant(2 * _BITS)
    with tracer.body("gcd") as body:
        tracer.body_input(body, "step", (), "int64")
        tracer.body_input(body, "going", (), "bool")
        p, q = (tracer.body_input(body, name, sizes, dtype) for name in ("a", "b"))
        ends = ops.equal(q, 0)
        rest = tracer.emit("Mod", [p, ops.where(ends, 1, q)], sizes=sizes, dtype=dtype)
        p, q = ops.where(ends, p, q), ops.where(ends, 0, rest)
        going = ops.any(ops.not_equal(q, 0))
        body.outputs.extend(v.value for v in (going, p, q))
    start = tracer.constant(np.array(True), "bool")
    specs = [(sizes, dtype)] * 2
    return tracer.emit("Loop", [most, start, a, b], {"body": body}, outputs=specs)[0]


@through_ops("Lcm")
def lcm(operation, a, b):
    divisor = ops.gcd(a, b)
    return ops.absolute(ops.floor_divide(a, ops.maximum(divisor, 1)) * b)


# ---- rounding and signs


@lowers("Round")
def round_(tracer, operation, x):
    """Half to even. With decimals, of x 10**decimals."""
    decimals = operation.decimals
    if "int" in x.dtype and decimals >= 0 or x.dtype == "bool":
        return x
    dtype = x.dtype
    x = cast(tracer, x, keras.config.floatx()) if "int" in dtype else x
    scale = tracer.constant(10.0 ** abs(decimals), x.dtype)
    scaling = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    if decimals:
        x = tracer.emit(scaling[0], [x, scale], sizes=x.sizes, dtype=x.dtype)
    x = tracer.emit("Round", [x], sizes=x.sizes, dtype=x.dtype)
    if decimals:
        x = tracer.emit(scaling[1], [x, scale], sizes=x.sizes, dtype=x.dtype)
    return cast(tracer, x, dtype)


@lowers("Sign")
def sign(tracer, operation, x):
    return of_numbers(tracer, "Sign", [x], sizes=x.sizes, dtype=x.dtype)


@lowers("Trunc")
def trunc(tracer, operation, x):
    if "float" not in x.dtype:
        return x
    up, down = (tracer.emit(n, [x], sizes=x.sizes, dtype=x.dtype) for n in ("Ceil", "Floor"))
    return ops.where(x < 0, up, down)


@lowers("Signbit")
def signbit(tracer, operation, x):
    """Of floats also that of -0, whose reciprocal is negative."""
    if "float" not in x.dtype:
        return ops.less(x, 0)
    return ops.logical_or(x < 0, ops.reciprocal(x) < 0)
