"""Cases of keras.ops: elementwise functions, reductions, statistics, products."""

import functools

import numpy as np
from keras import ops


class On:
    """A function and the names of its inputs, if they are not the names of its parameters.

    Args:
        function: of tensors.
        inputs: str, names between spaces.
    """

    def __init__(self, function, inputs):
        self.function, self.inputs = function, inputs.split()


def _of(*inputs):
    """A maker of tables: each function of keras.ops on each of some combinations of inputs."""

    def make(names):
        return {n: [On(getattr(ops, n), given) for given in inputs] for n in names.split()}

    return make


def _axes(*inputs, axes=(None, -1, 1, (0, 2)), **settings):
    """A maker of tables of reductions: over all axes, over some, with keepdims and without."""
    choices = [(inputs[0], axis, bool(n % 2)) for n, axis in enumerate(axes)]
    choices += [(given, axis, axis != axes[0]) for given in inputs[1:] for axis in axes[:2]]

    def make(names):
        return {
            n: [
                On(functools.partial(getattr(ops, n), axis=a, keepdims=k, **settings), given)
                for given, a, k in choices
            ]
            for n in names.split()
        }

    return make


def _listed(table):
    """A table in which single functions are not in a tuple."""
    return {n: list(f) if isinstance(f, tuple) else [f] for n, f in table.items()}


TABLES = [
    _of("x", "n", "i", "f", "b")(
        "abs absolute ceil floor round sign square isfinite isinf isnan isneginf isposinf"
        " logical_not nan_to_num ones_like zeros_like copy size trunc real imag conj"
        " conjugate angle isreal stop_gradient signbit fabs ravel"
    ),
    _of("x", "n", "i", "b")(
        "negative reciprocal exp exp2 expm1 cos sin tan tanh sinh cosh arctan"
        " arcsinh cbrt deg2rad rad2deg sinc i0 sigmoid"
    ),
    _of("p", "n", "k", "f")("log log10 log1p log2 sqrt rsqrt"),
    _of("u", "n")("arccos arcsin arctanh erf erfc erfinv"),
    _of("p", "n")("arccosh"),
    _of("x y", "i j", "x i", "f x", "n o", "b i", "x c", "f g", "k x")(
        "add subtract multiply maximum minimum equal not_equal greater greater_equal less"
        " less_equal"
        " fmax fmin"
    ),
    _of("x p", "i k", "x k", "n o", "b k", "f x", "i j")("divide true_divide divide_no_nan"),
    _of("x p", "i k", "x k", "n p", "b k")("floor_divide mod fmod"),
    _of("x y", "f g", "i j", "n o")("logical_and logical_or logical_xor"),
    _of("x y", "i j", "n o")("logaddexp logaddexp2 hypot arctan2 heaviside nextafter"),
    _of("i j", "b b", "f g")("bitwise_and bitwise_or bitwise_xor"),
    _of("i", "b", "f")("bitwise_not bitwise_invert"),
    _of("i k", "k k", "b b")("bitwise_left_shift bitwise_right_shift left_shift right_shift"),
    _of("i j", "k k")("gcd lcm"),
    _axes("x", "i", "f", "n", "b")(
        "sum mean max min amax amin nansum nanmean nanmax nanmin var std nanvar nanstd"
    ),
    _axes("u", "k", "f")("prod nanprod"),
    _axes("x", "f", "n")("any all"),
    _axes("x", "i", "n", axes=(None, -1, 1, (0, 1)))("logsumexp"),
    _axes("x", "i", "n")("median nanmedian ptp"),
    _axes("x", "i", "n", axes=(-1, None, 1), q=0.3)("quantile nanquantile"),
    _axes("x", "i", "n", axes=(-1, None, 1), q=np.array([25.0, 60.0]))("percentile nanpercentile"),
    _axes("x", "i", "f", axes=(-1, 1))("argmax argmin"),
    _axes("x", "n", axes=(-1, 2))("nanargmax nanargmin"),
    _listed(
        dict(
            allclose=(lambda x, y: ops.allclose(x, y), lambda x: ops.allclose(x, x + 1e-9)),
            isclose=(
                lambda x: ops.isclose(x, x + 1e-7),
                lambda n, o: ops.isclose(n, o, equal_nan=True),
            ),
            empty_like=lambda i: ops.zeros_like(ops.empty_like(i)),
            array=(lambda x: ops.array(x), lambda i: ops.array(i, dtype="float32")),
            average=(
                lambda x: ops.average(x),
                lambda x: ops.average(x, axis=1),
                lambda x: ops.average(x, axis=-1, weights=np.arange(1.0, 8, dtype="float32")),
                lambda v, vp: ops.average(v, axis=0, weights=vp),
            ),
            bartlett=(lambda x: x * ops.bartlett(7),),
            blackman=(lambda x: x * ops.blackman(7),),
            hamming=(lambda x: x * ops.hamming(7),),
            hanning=(lambda x: x * ops.hanning(7),),
            kaiser=(lambda x: x * ops.kaiser(7, 14.0),),
            clip=(
                lambda x: ops.clip(x, -0.5, 0.7),
                lambda i: ops.clip(i, -2, 3),
                lambda n: ops.clip(n, 0.0, 1.0),
                lambda i: ops.clip(i, 0.5, 3.5),
                lambda b: ops.clip(b, 3, 200),
            ),
            corrcoef=lambda v: ops.corrcoef(ops.stack([v, v * v, ops.sin(v)])),
            correlate=lambda v: ops.correlate(
                v, np.array([1.0, 2.0, -0.5], "float32"), mode="same"
            ),
            count_nonzero=(
                lambda i: ops.count_nonzero(i),
                lambda f: ops.count_nonzero(f, axis=(0, 2)),
                lambda x: ops.count_nonzero(ops.round(x), axis=-1),
            ),
            cross=(
                lambda image: ops.cross(image, ops.sin(image)),
                lambda image: ops.cross(image[..., :2], image[..., 1:]),
            ),
            cumprod=(
                lambda u: ops.cumprod(u, axis=1),
                lambda k: ops.cumprod(k[:, :, :3], axis=-1),
                lambda u: ops.cumprod(u),
            ),
            cumsum=(
                lambda x: ops.cumsum(x, axis=1),
                lambda i: ops.cumsum(i, axis=-1),
                lambda x: ops.cumsum(x),
                lambda f: ops.cumsum(f, axis=0),
                lambda b: ops.cumsum(b, 1),
            ),
            nancumprod=(lambda n: ops.nancumprod(n, axis=-1), lambda u: ops.nancumprod(u, axis=1)),
            nancumsum=(lambda n: ops.nancumsum(n, axis=-1), lambda n: ops.nancumsum(n, axis=1)),
            diff=(
                lambda x: ops.diff(x),
                lambda x: ops.diff(x, n=2, axis=-1),
                lambda i: ops.diff(i),
            ),
            dot=(
                lambda x, r: ops.dot(x[0, 0, :4], r[0]),
                lambda x: ops.dot(x, np.ones((7, 2), "float32")),
                lambda v: ops.dot(v, v),
                lambda x: ops.dot(x, 3.0),
            ),
            einsum=(
                lambda x, z: ops.einsum("bti,bsi->bts", x, z),
                lambda x: ops.einsum("bti->ib", x),
                lambda m: ops.einsum("bii->bi", m),
                lambda x, y: ops.einsum("...i,...i->...", x, y),
                lambda m, r: ops.einsum("bij,bjk", m, r),
                lambda x, r: ops.einsum("bti,bjk->tjb", x, r),
            ),
            inner=(lambda v: ops.inner(v, v), lambda x, z: ops.inner(x[0], z[0])),
            kron=lambda m, r: ops.kron(m[0], r[0]),
            ldexp=(lambda x, i: ops.ldexp(x, i),),
            matmul=(
                lambda x, z: ops.matmul(x, ops.transpose(z, (0, 2, 1))),
                lambda v: ops.matmul(v, v),
                lambda m, r: ops.matmul(m, r[0]),
                lambda i: ops.matmul(i, np.ones((7, 3), "int32")),
                lambda x: ops.matmul(x, np.arange(7, dtype="float32")),
                lambda v, x: ops.matmul(v, x),
            ),
            moments=(
                lambda x: ops.moments(x, (0, 1)),
                lambda x: ops.moments(x, [-1], keepdims=True),
            ),
            outer=(lambda v, vp: ops.outer(v, vp), lambda x, r: ops.outer(x, r)),
            power=(
                lambda p, x: ops.power(p, x),
                lambda x: ops.power(x, 2),
                lambda i: ops.power(i, 3),
                lambda i, k: ops.power(i, k),
                lambda x, k: ops.power(x, k),
                lambda n: ops.power(n, 0.5),
            ),
            saturate_cast=(
                lambda x: ops.saturate_cast(x * 300, "uint8"),
                lambda i: ops.saturate_cast(i, "uint8"),
            ),
            tensordot=(
                lambda x, z: ops.tensordot(x, z, axes=[[2], [2]]),
                lambda m, r: ops.tensordot(m[0], r[0], axes=1),
            ),
            trace=(lambda m: ops.trace(m, axis1=1, axis2=2), lambda x: ops.trace(x, 1)),
            trapezoid=(
                lambda x: ops.trapezoid(x),
                lambda x: ops.trapezoid(x, dx=0.5, axis=1),
                lambda x, p: ops.trapezoid(x, ops.cumsum(p, -1)),
            ),
            vander=(lambda v: ops.vander(v, 4), lambda vi: ops.vander(vi, 3, increasing=True)),
            vdot=(lambda v, vp: ops.vdot(v, vp),),
            geomspace=lambda x: x * ops.geomspace(1.0, 100.0, 7),
            linspace=(
                lambda x: x * ops.linspace(0, 1, 7),
                lambda x, y: ops.linspace(x, y, 5),
                lambda x, y: ops.linspace(x, y, 4, endpoint=False, axis=-1),
            ),
            logspace=(lambda x: x * ops.logspace(0.0, 1.0, 7), lambda x, y: ops.logspace(x, y, 3)),
            select=lambda x, y: ops.select([x > 1, y > 0], [x, y], default=-1.0),
            cdist=lambda x, z: ops.cdist(x, z),
        )
    ),
]
