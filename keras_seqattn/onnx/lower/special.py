"""Lowerings of elementwise functions of floats for which ONNX has no operator."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import (
    cast,
    common_dtype,
    operands,
    through_ops,
)
from keras_seqattn.onnx.lower.registry import lowers

# erfc(x) = t exp(-x^2 + P(t)) with t = 1 / (1 + x / 2), relative error 1.2e-7 (Press et al.,
# Numerical Recipes, 6.2).
_ERFC = (
    *(-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398),
    *(1.48851587, -0.82215223, 0.17087277),
)
# erfinv(x) = x P(-log(1 - x^2) - 2.5), and x Q(sqrt(-log(1 - x^2)) - 3) in the tails (Giles 2010).
_ERFINV = (
    *(1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06),
    *(-3.5233877e-06, 3.43273939e-07, 2.81022636e-08),
)
_ERFINV_TAIL = (
    *(2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844),
    *(0.00134934322, 0.000100950558, -0.000200214257),
)
# I0 as a polynomial of (x / 3.75)^2, and beyond 3.75 exp(x) / sqrt(x) times one of 3.75 / x
# (Abramowitz and Stegun, 9.8.1 and 9.8.2).
_I0 = (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813)
_I0_TAIL = (
    *(0.39894228, 0.01328592, 0.00225319, -0.00157565, 0.00916281, -0.02057706, 0.02635537),
    *(-0.01647633, 0.00392377),
)


def polynomial(x, coefficients):
    """c0 + c1 x + c2 x^2 + ..., by Horner's rule."""
    result = x * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        result = result * x + c
    return result


def _is_negative(x):
    """Also for -0, whose reciprocal is negative."""
    return ops.logical_or(x < 0, ops.reciprocal(x) < 0)


@through_ops("Erfc")
def erfc(operation, x):
    z = ops.absolute(x)
    t = 1 / (1 + z / 2)
    tail = t * ops.exp(polynomial(t, _ERFC) - ops.square(z))
    return ops.where(x < 0, 2 - tail, tail)


@through_ops("Erfinv")
def erfinv(operation, x):
    w = -ops.log((1 - x) * (1 + x))
    # At -1 and 1 the polynomials would be inf - inf.
    near, far = ops.minimum(w, 5) - 2.5, ops.sqrt(ops.clip(w, 5, 1e4)) - 3
    value = x * ops.where(w < 5, polynomial(near, _ERFINV), polynomial(far, _ERFINV_TAIL))
    value = ops.where(ops.absolute(x) > 1, math.nan, value)
    return ops.where(ops.equal(ops.absolute(x), 1), x * math.inf, value)


@through_ops("I0")
def i0(operation, x):
    x = ops.absolute(x)
    near = polynomial(ops.square(ops.minimum(x, 3.75) / 3.75), _I0)
    far = ops.maximum(x, 3.75)
    # exp(x) may leave the range where exp(x) / sqrt(x) does not.
    far = ops.exp(far - ops.log(far) / 2) * polynomial(3.75 / far, _I0_TAIL)
    return ops.where(x < 3.75, near, far)


@through_ops("Cbrt")
def cbrt(operation, x):
    return ops.sign(x) * ops.power(ops.absolute(x), 1 / 3)


@through_ops("Exp2")
def exp2(operation, x):
    return ops.power(2.0, x)


@through_ops("Deg2rad")
def deg2rad(operation, x):
    return x * (math.pi / 180)


@through_ops("Rad2deg")
def rad2deg(operation, x):
    return x * (180 / math.pi)


@through_ops("Sinc")
def sinc(operation, x):
    """sin(pi x) / (pi x), and 1 at 0."""
    zero = ops.equal(x, 0)
    turned = ops.where(zero, 1, x) * math.pi
    return ops.where(zero, 1, ops.sin(turned) / turned)


@through_ops("Angle")
def angle(operation, x):
    """Of real numbers: pi for negative ones, with JAX also for -0. NaN stays, but in TensorFlow."""
    backend = keras.backend.backend()
    turned = ops.where(_is_negative(x) if backend == "jax" else x < 0, math.pi, 0.0)
    return turned if backend == "tensorflow" else ops.where(ops.isnan(x), x, turned)


@through_ops("Arctan2")
def arctan2(operation, y, x):
    """The angle of (x, y), by the arc tangent of a quotient that is at most 1."""
    a, b = ops.absolute(x), ops.absolute(y)
    same = ops.equal(a, b)
    low, high = ops.minimum(a, b), ops.maximum(a, b)
    # Both 0 and both infinite have no quotient.
    quotient = ops.where(same, ops.where(ops.equal(a, 0), 0.0, 1.0), low / high)
    turn = ops.arctan(quotient)
    turn = ops.where(b > a, math.pi / 2 - turn, turn)
    turn = ops.where(_is_negative(x), math.pi - turn, turn)
    return ops.where(_is_negative(y), -turn, turn)


@through_ops("Hypot")
def hypot(operation, x, y):
    """Scaled by the larger one, so that no square leaves the range."""
    x, y = ops.absolute(x), ops.absolute(y)
    low, high = ops.minimum(x, y), ops.maximum(x, y)
    length = ops.where(ops.equal(high, 0), 0, high * ops.sqrt(ops.square(low / high) + 1))
    # With an infinity, NaN is a number of any size. In TensorFlow, the quotient counts.
    if keras.backend.backend() == "tensorflow":
        return length
    return ops.where(ops.logical_or(ops.isinf(x), ops.isinf(y)), math.inf, length)


@through_ops("Logaddexp")
def logaddexp(operation, x, y):
    # The difference of equal infinities is NaN.
    gap = ops.where(ops.equal(x, y), 0, ops.absolute(x - y))
    return ops.maximum(x, y) + ops.log1p(ops.exp(-gap))


@through_ops("Logaddexp2")
def logaddexp2(operation, x, y):
    gap = ops.where(ops.equal(x, y), 0, ops.absolute(x - y))
    return ops.maximum(x, y) + ops.log1p(ops.exp2(-gap)) / math.log(2)


@through_ops("Ldexp")
def ldexp(operation, x, exponent):
    """In two factors, because 2**exponent may leave the range where the product does not."""
    half = ops.floor(exponent / 2)
    return x * ops.exp2(half) * ops.exp2(exponent - half)


@through_ops("Heaviside")
def heaviside(operation, x, at_zero):
    """NaN stays NaN in JAX. It counts as 0 in TensorFlow, and as negative in PyTorch."""
    backend = keras.backend.backend()
    step = ops.where(x > 0, 1, ops.where(ops.equal(x, 0), at_zero, 0))
    if backend == "torch":
        return step
    return ops.where(ops.isnan(x), x if backend == "jax" else at_zero, step)


@through_ops("Fmax")
def fmax(operation, x, y):
    return _without_nan(ops.maximum, x, y)


@through_ops("Fmin")
def fmin(operation, x, y):
    return _without_nan(ops.minimum, x, y)


def _without_nan(choose, x, y):
    """NaN loses against a number."""
    if "float" not in x.dtype:
        return choose(x, y)
    return ops.where(ops.isnan(x), y, ops.where(ops.isnan(y), x, choose(x, y)))


@through_ops("DivideNoNan")
def divide_no_nan(operation, x, y):
    zero = ops.equal(y, 0)
    return ops.where(zero, 0, x / ops.where(zero, 1, y))


@through_ops("NanToNum")
def nan_to_num(operation, x):
    if "float" not in x.dtype:
        return x
    most = float(np.finfo("float32" if x.dtype == "bfloat16" else x.dtype).max)
    high = most if operation.posinf is None else operation.posinf
    low = -most if operation.neginf is None else operation.neginf
    if operation.nan is not None:
        x = ops.where(ops.isnan(x), operation.nan, x)
    return ops.where(ops.isposinf(x), high, ops.where(ops.isneginf(x), low, x))


@through_ops("Nextafter")
def nextafter(operation, x, towards):
    """The next float32. Adding a little more than half of the gap rounds to it."""
    kind = np.finfo("float32")
    gap = ops.maximum(ops.absolute(x) * 2.0**-24 * (1 + 2.0**-20), float(kind.smallest_subnormal))
    moved = ops.where(x < towards, x + gap, x - gap)
    moved = ops.where(ops.isinf(x), ops.sign(x) * float(kind.max), moved)
    moved = ops.where(ops.equal(x, towards), towards, moved)
    return ops.where(ops.isnan(x + towards), math.nan, moved)


def _near(tracer, x1, x2, rtol, atol, equal_nan, infinities):
    """|x1 - x2| <= atol + rtol |x2|. If `infinities`, they are near to themselves alone."""
    dtype = common_dtype((x1, x2))
    x1, x2 = operands(tracer, (x1, x2), "int32" if dtype == "bool" else dtype)
    if "float" not in x1.dtype:
        return ops.equal(x1, x2)
    near = ops.absolute(x1 - x2) <= atol + rtol * ops.absolute(x2)
    if infinities:
        finite = ops.logical_and(ops.isfinite(x1), ops.isfinite(x2))
        near = ops.logical_or(ops.logical_and(near, finite), ops.equal(x1, x2))
    if equal_nan:
        near = ops.logical_or(near, ops.logical_and(ops.isnan(x1), ops.isnan(x2)))
    return near


@lowers("Isclose")
def isclose(tracer, operation, x1, x2, rtol=1e-5, atol=1e-8):
    """With TensorFlow, an infinity is not near to itself, and all are near to it."""
    infinities = keras.backend.backend() != "tensorflow"
    return _near(tracer, x1, x2, rtol, atol, operation.equal_nan, infinities)


@lowers("AllClose")
def allclose(tracer, operation, x1, x2):
    settings = operation.rtol, operation.atol, operation.equal_nan
    return ops.all(_near(tracer, x1, x2, *settings, True))


@lowers("Select")
def select(tracer, operation, condlist, choicelist, default=0):
    """The choice of the first condition that holds."""
    dtype = keras.backend.result_type(
        *(c.dtype if hasattr(c, "dtype") else type(c) for c in (*choicelist, default))
    )
    result = cast(tracer, tracer.symbol(default, dtype), dtype)
    for condition, choice in zip(condlist[::-1], choicelist[::-1], strict=True):
        result = ops.where(condition, choice, result)
    return result
