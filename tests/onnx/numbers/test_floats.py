"""Elementwise functions, activations and comparisons of floats, with infinities and NaN."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.onnx.numbers.together import differences

RANDOM = np.random.default_rng(3)
NAN, INF = np.nan, np.inf
SPECIAL = np.array([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0], "float32")


def inputs(rows, odd=False):
    """`x` and `y` (rows, 7): normal numbers; if odd, with every pair of special ones."""
    x, y = (RANDOM.normal(size=(rows, 7)).astype("float32") * 2 for _ in range(2))
    if odd:
        x = np.concatenate([x, np.repeat(SPECIAL[:, None], 7, 1)])
        y = np.concatenate([y, np.repeat(SPECIAL[None], 7, 0)])
    return {"x": x, "y": y}


def named(names):
    return {name: getattr(ops, name) for name in names.split()}


def of_one(functions):
    return {name: lambda x, y, f=f: f(x) for name, f in functions.items()}


def of_two(functions):
    return {name: lambda x, y, f=f: f(x, y) for name, f in functions.items()}


EVERYWHERE = of_one(
    named(
        """abs angle arcsinh arctan cbrt ceil conj cos deg2rad erf erfc exp exp2 expm1 fabs floor i0
        isfinite isinf isnan isneginf isposinf isreal negative nan_to_num rad2deg real
        reciprocal round signbit sin sinc square tan tanh trunc sigmoid relu relu6 silu softplus
        softsign elu leaky_relu selu hard_sigmoid hard_silu hard_tanh tanh_shrink sparse_plus
        sparse_sigmoid squareplus log_sigmoid gelu hard_shrink soft_shrink celu softmax
        log_softmax"""
    )
)
ON_A_DOMAIN = of_one(
    {
        "arccos": lambda x: ops.arccos(ops.clip(x / 4, -0.9, 0.9)),
        "arccosh": lambda x: ops.arccosh(1 + ops.abs(x)),
        "arcsin": lambda x: ops.arcsin(ops.clip(x / 4, -0.9, 0.9)),
        "arctanh": lambda x: ops.arctanh(ops.tanh(x / 2)),
        "cosh": ops.cosh,
        "erfinv": lambda x: ops.erfinv(ops.clip(x / 4, -0.9, 0.9)),
        "erfinv_far": lambda x: ops.erfinv(1 - 2.0 ** -ops.round(ops.abs(x) * 5)),
        "erfinv_ends": lambda x: ops.erfinv(ops.sign(x)),
        "log": lambda x: ops.log(ops.abs(x)),
        "log1p": lambda x: ops.log1p(ops.abs(x)),
        "log2": lambda x: ops.log2(ops.abs(x)),
        "log10": lambda x: ops.log10(ops.abs(x)),
        "rsqrt": lambda x: ops.rsqrt(ops.abs(x)),
        "sinh": ops.sinh,
        "sqrt": lambda x: ops.sqrt(ops.abs(x)),
        "erfc_far": lambda x: ops.log(ops.erfc(ops.abs(x))),
        "sign": ops.sign,
        "round_2": lambda x: ops.round(x, 2),
        "round_tens": lambda x: ops.round(x * 40, -1),
        "celu_2": lambda x: ops.celu(x, 2.0),
        "elu_2": lambda x: ops.elu(x, 2.0),
        "gelu": lambda x: ops.gelu(x, approximate=False),
        "glu": lambda x: ops.glu(x[:, :6]),
        "glu_first": lambda x: ops.glu(ops.transpose(x)[:6], axis=0),
        "hard_shrink_1": lambda x: ops.hard_shrink(x, 1.0),
        "soft_shrink_1": lambda x: ops.soft_shrink(x, 1.0),
        "threshold": lambda x: ops.threshold(x, 0.3, -7.0),
        "squareplus_3": lambda x: ops.squareplus(x, b=3),
        "sparsemax": ops.sparsemax,
        "sparsemax_first": lambda x: ops.sparsemax(x, axis=0),
        "relu_max": lambda x: keras.activations.relu(x, max_value=1.5),
        "relu_slope": lambda x: keras.activations.relu(x, negative_slope=0.1),
        "relu_threshold": lambda x: keras.activations.relu(x, threshold=0.5),
        "relu_all": lambda x: keras.activations.relu(x, 0.1, 1.5, 0.5),
        "relu_max_slope": lambda x: keras.activations.relu(x, 0.1, 1.5),
        "relu_6_slope": lambda x: keras.activations.relu(x, 0.1, 6),
        "clip_tensor": lambda x: ops.clip(x, x * 0 - 0.5, ops.abs(x[:1]) / 2),
        "saturate": lambda x: ops.saturate_cast(x * 200, "uint8"),
        "saturate_int16": lambda x: ops.saturate_cast(x * 3e4, "int16"),
        "saturate_half": lambda x: ops.saturate_cast(x * 1e5, "float16"),
        "nan_to_num_of": lambda x: ops.nan_to_num(ops.log(x), 3.0, 1e5, -2e5),
        "view": lambda x: ops.divide(x, 3),
        "normalize": ops.normalize,
        "normalize_3": lambda x: ops.normalize(x, axis=0, order=3),
        "mish": lambda x: keras.activations.mish(x),
    }
)
PAIRS = of_two(
    named(
        """add subtract multiply divide true_divide maximum minimum fmax fmin arctan2 heaviside
        hypot logaddexp logaddexp2 equal not_equal greater greater_equal less less_equal
        logical_and logical_or logical_xor divide_no_nan isclose"""
    )
    | {
        "isclose_nan": lambda x, y: ops.isclose(x, y, equal_nan=True),
        "where": lambda x, y: ops.where(x > y, x, 0),
        "select": lambda x, y: ops.select([x > 1, y > 0], [x, y], 5.0),
    }
)
FINITE_PAIRS = of_two(
    named("fmod mod floor_divide power nextafter")
    | {
        "power": lambda x, y: ops.power(ops.abs(x), y),
        "power_int": lambda x, y: ops.power(x, 3),
        "mod_tenth": lambda x, y: ops.mod(ops.round(x * 2), 0.3),
        "floor_divide_tenth": lambda x, y: ops.floor_divide(ops.round(x), 0.1),
        "floor_divide_zero": lambda x, y: ops.floor_divide(x, y * 0),
        "ldexp": lambda x, y: ops.ldexp(x, ops.cast(y * 3, "int32")),
        "allclose": lambda x, y: ops.all(ops.isclose(x, y, atol=9.0)),
        "allclose_op": lambda x, y: ops.allclose(x, y),
    }
)
TABLES = [
    (EVERYWHERE, [inputs(3, odd=True), inputs(1)]),
    (ON_A_DOMAIN, [inputs(3), inputs(8)]),
    (PAIRS, [inputs(3, odd=True), inputs(1)]),
    (FINITE_PAIRS, [inputs(3), inputs(1)]),
]
NAMES = ["everywhere", "on a domain", "pairs", "finite pairs"]


@pytest.mark.parametrize("case", range(len(TABLES)), ids=NAMES)
def test_floats(case):
    functions, runs = TABLES[case]
    assert not differences(functions, *runs)


WITHOUT_KERNELS = """arccos arcsin arctan arctanh celu cosh elu erf gelu hard_sigmoid leaky_relu
log_sigmoid selu silu sinh softplus softsign tan""".split()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="it has no float64")
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_kernels_that_onnxruntime_lacks(dtype):
    x = {"x": RANDOM.uniform(-0.9, 0.9, size=(3, 7)).astype(dtype)}
    functions = {name: getattr(ops, name) for name in WITHOUT_KERNELS}
    assert not differences(functions, x, dtype=dtype, target="ort")
