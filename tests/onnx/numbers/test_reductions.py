"""Reductions, statistics, products and series, over every kind of axis."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.numbers.together import differences

ON_TORCH = keras.backend.backend() == "torch"
RANDOM = np.random.default_rng(11)


def inputs(rows, times, nan=False):
    """`x` (rows, times, 7), `m` (5, 7), `v` (7,) and integers `i` (rows, 7) below 5."""
    x = RANDOM.normal(size=(rows, times, 7)).astype("float32")
    if nan:
        x[RANDOM.random(x.shape) < 0.3] = np.nan
        x[0, :, 2] = np.nan
    m, v = (RANDOM.normal(size=s).astype("float32") for s in ((5, 7), (7,)))
    return {"x": x, "m": m, "v": v, "i": RANDOM.integers(0, 5, (rows, 7)).astype("int32")}


def of_x(functions):
    return {name: lambda x, m, v, i, f=f: f(x) for name, f in functions.items()}


def over_axes(function, axes, **settings):
    """The function over each axis, with and without keepdims."""
    cases = {}
    for axis in axes:
        # PyTorch's functions without an axis forget keepdims.
        for keep in (False, True)[: 1 if axis is None and ON_TORCH else 2]:
            cases[f"{function.__name__}_{axis}_{keep}"] = lambda x, a=axis, k=keep: function(
                x, axis=a, keepdims=k, **settings
            )
    return cases


AXES = (None, 1, -1, (0, 2))
REDUCTIONS = {}
for _function in (ops.sum, ops.mean, ops.max, ops.min, ops.prod, ops.var, ops.std, ops.logsumexp):
    REDUCTIONS |= over_axes(_function, AXES)
for _function in (ops.ptp, ops.median, ops.any, ops.all):
    REDUCTIONS |= over_axes(_function, (None, 1))
for _function in (ops.argmax, ops.argmin):
    REDUCTIONS |= over_axes(_function, (None, 1, -1))
REDUCTIONS = of_x(
    REDUCTIONS
    | {
        "max_initial": lambda x: ops.max(x, axis=1, initial=0.5),
        "min_initial": lambda x: ops.min(x, initial=-0.5),
        "sum_no_axes": lambda x: ops.sum(x, axis=()),
        "mean_no_axes": lambda x: ops.mean(x, axis=()),
        "count": lambda x: ops.count_nonzero(ops.round(x[:, 0]), axis=1),
        "count_all": lambda x: ops.count_nonzero(ops.round(x)),
        "cumsum_all": lambda x: ops.cumsum(x),
        "cumsum_negative": lambda x: ops.cumsum(x, axis=-2),
        "cumprod": lambda x: ops.cumprod(x, axis=1),
        "cumprod_all": lambda x: ops.cumprod(x),
        "moments": lambda x: ops.stack(ops.moments(x, axes=[1], keepdims=True)),
        "softmax_two": lambda x: ops.softmax(x, axis=(0, 2)),
        "softmax_last_two": lambda x: ops.softmax(x, axis=(1, 2)),
        "softmax_all": lambda x: ops.softmax(x, axis=None),
        "layer_softmax": lambda x: keras.layers.Softmax(axis=(1, 2))(x),
        "average": lambda x: ops.average(x),
        "average_axis": lambda x: ops.average(x, axis=1),
        "trace": lambda x: ops.trace(x[:, :2], 1),
        "diff": lambda x: ops.diff(x, axis=1),
        "diff_2": lambda x: ops.diff(x, n=2),
        "diff_bool": lambda x: ops.diff(x > 0, axis=1),
        "trapezoid": lambda x: ops.trapezoid(x, dx=0.3, axis=1),
        "trapezoid_points": lambda x: ops.trapezoid(x, x=np.arange(7.0, dtype="float32") ** 2),
        "rot90": lambda x: ops.rot90(x),
        "rot90_2": lambda x: ops.rot90(x[:, :4, :4], 2, axes=(1, 2)),
        "rot90_3": lambda x: ops.rot90(x, -1, axes=(2, 1)),
        "size": lambda x: ops.cast(ops.size(x), "float32") + x[0, 0, :1] * 0,
        "ndim": lambda x: ops.ndim(x) + x[0, 0, :1] * 0,
        "bool_sum": lambda x: ops.sum(x > 0, axis=1),
        "bool_mean": lambda x: ops.mean(x > 0, axis=1),
        "bool_max": lambda x: ops.max(x > 0, axis=1),
        "bool_prod": lambda x: ops.prod(x > 0, axis=1),
        "logspace": lambda x: ops.logspace(x[0, 0], x[0, 0] + 1, num=5),
        "linspace": lambda x: ops.linspace(x[0, 0], x[0, 1], num=5),
        "linspace_open": lambda x: ops.linspace(x[0, 0, 0], x[0, 1, 0], num=4, endpoint=False),
        "geomspace": lambda x: ops.geomspace(ops.abs(x[0, 0]), ops.abs(x[0, 1]), num=5),
        "vander": lambda x: ops.vander(x[0, 0], 4),
        "vander_all": lambda x: ops.vander(x[:, 0, 0], increasing=True),
        "corrcoef": lambda x: ops.corrcoef(x[:, 0]),
        "cdist": lambda x: ops.cdist(x, x[:, :2]),
    }
)
WITHOUT_NAN = {}
for _function in (ops.nansum, ops.nanprod, ops.nanmax, ops.nanmin, ops.nanmean, ops.nanvar):
    WITHOUT_NAN |= over_axes(_function, (None, 1))
WITHOUT_NAN |= over_axes(ops.nanstd, (-1,)) | over_axes(ops.nanmedian, (None, 1, (1, 2)))
WITHOUT_NAN = of_x(
    WITHOUT_NAN
    | {
        "nanargmax": lambda x: ops.nanargmax(x, axis=1),
        "nanargmin": lambda x: ops.nanargmin(x, axis=1),
        "nanargmax_all": lambda x: ops.nanargmax(x),
        "nancumsum": lambda x: ops.nancumsum(x, axis=1),
        "nancumprod": lambda x: ops.nancumprod(x, axis=1),
        "median": lambda x: ops.median(x, axis=1),
        "quantile": lambda x: ops.quantile(x, 0.3, axis=1),
        "nanquantile": lambda x: ops.nanquantile(x, 0.3, axis=1),
        "nanquantiles": lambda x: ops.nanquantile(x, [0.2, 0.8], axis=-1),
        "nanpercentile": lambda x: ops.nanpercentile(x, 60.0, axis=1, keepdims=True),
    }
)
METHODS = ("linear", "lower", "higher", "midpoint", "nearest")
QUANTILES = of_x(
    {f"{m}": lambda x, m=m: ops.quantile(x, 0.37, axis=1, method=m) for m in METHODS}
    | {
        "several": lambda x: ops.quantile(x, [0.1, 0.5, 1.0], axis=-1),
        "several_kept": lambda x: ops.quantile(x, [0.1, 0.5], axis=(0, 2), keepdims=True),
        "all": lambda x: ops.quantile(x, 0.25),
        "all_kept": lambda x: ops.quantile(x, 0.25, keepdims=True),
        "percentile": lambda x: ops.percentile(x, 75.0, axis=1),
        "of_tensor": lambda x: ops.quantile(x, ops.sigmoid(x[0, 0, :2]), axis=1),
        "of_ints": lambda x: ops.quantile(ops.cast(x * 9, "int32"), 0.5, axis=1),
    }
)
PRODUCTS = {
    "matmul_vectors": lambda x, m, v, i: ops.matmul(v, v),
    "matmul_vector_left": lambda x, m, v, i: ops.matmul(v, ops.transpose(x, (0, 2, 1))),
    "matmul_vector_right": lambda x, m, v, i: ops.matmul(x, v),
    "matmul_ints": lambda x, m, v, i: ops.matmul(i, ops.transpose(i)),
    "dot": lambda x, m, v, i: ops.dot(x, ops.transpose(m)),
    "dot_vectors": lambda x, m, v, i: ops.dot(v, v),
    "dot_scalar": lambda x, m, v, i: ops.dot(x, v[0]),
    "inner": lambda x, m, v, i: ops.inner(v, v),
    "inner_rows": lambda x, m, v, i: ops.inner(x, m),
    "vdot": lambda x, m, v, i: ops.vdot(v, v * 2),
    "outer": lambda x, m, v, i: ops.outer(x, v),
    "tensordot_1": lambda x, m, v, i: ops.tensordot(x, ops.transpose(m), axes=1),
    "tensordot_axes": lambda x, m, v, i: ops.tensordot(x, x, axes=[[0, 2], [0, 2]]),
    "tensordot_ints": lambda x, m, v, i: ops.tensordot(x, m, axes=(-1, 1)),
    "tensordot_0": lambda x, m, v, i: ops.tensordot(v, m, axes=0),
    "kron": lambda x, m, v, i: ops.kron(x[0], m),
    "cross": lambda x, m, v, i: ops.cross(x[..., :3], x[..., 3:6], axis=-1),
    "average_weights": lambda x, m, v, i: ops.average(x, axis=-1, weights=v),
    "average_weights_same": lambda x, m, v, i: (
        ops.average(x, axis=1, weights=ops.abs(x))
        if not ON_TORCH  # which sums the weights over the last axis
        else ops.average(x, axis=-1, weights=ops.abs(x))
    ),
    "correlate": lambda x, m, v, i: ops.correlate(v, v[:3]),
    "correlate_same": lambda x, m, v, i: ops.correlate(v, v[:3], mode="same"),
    "correlate_dynamic": lambda x, m, v, i: ops.correlate(x[0, :, 0], v[:3], mode="same"),
    "correlate_full": lambda x, m, v, i: ops.correlate(v, v[:4], mode="full"),
    "einsum_dots": lambda x, m, v, i: ops.einsum("...ij,kj->...ik", x, m),
    "einsum_implicit": lambda x, m, v, i: ops.einsum("bij,kj", x, m),
    "einsum_diagonal": lambda x, m, v, i: ops.einsum("ii->i", m[:, :5]),
    "einsum_trace": lambda x, m, v, i: ops.einsum("ii->", m[:, :5]),
    "einsum_three": lambda x, m, v, i: ops.einsum("bij,kj,j->ikb", x, m, v),
    "einsum_sum": lambda x, m, v, i: ops.einsum("bij->j", x),
    "einsum_spaces": lambda x, m, v, i: ops.einsum("b i j, k j -> b k i", x, m),
    "einsum_ints": lambda x, m, v, i: ops.einsum("bi,ci->bc", i, i),
    "in_top_k": lambda x, m, v, i: ops.in_top_k(i[:, 0], x[:, 0], 3),
    "multi_hot": lambda x, m, v, i: ops.multi_hot(i, 6),
    "psnr": lambda x, m, v, i: ops.psnr(x, x * 0.9, 2.0),
    "binary_crossentropy": lambda x, m, v, i: ops.binary_crossentropy(
        ops.cast(x > 0, "float32"), ops.sigmoid(x * 2)
    ),
    "binary_crossentropy_logits": lambda x, m, v, i: ops.binary_crossentropy(
        ops.cast(x > 0, "float32"), x * 9, from_logits=True
    ),
    "categorical_crossentropy": lambda x, m, v, i: ops.categorical_crossentropy(
        ops.softmax(x), ops.softmax(x * 2)
    ),
    "categorical_crossentropy_logits": lambda x, m, v, i: ops.categorical_crossentropy(
        ops.softmax(x), x, from_logits=True
    ),
    "sparse_crossentropy": lambda x, m, v, i: ops.sparse_categorical_crossentropy(
        i[:, 0], ops.softmax(x[:, 0])
    ),
    "sparse_crossentropy_logits": lambda x, m, v, i: ops.sparse_categorical_crossentropy(
        i[:, 0], x[:, 0], from_logits=True
    ),
}
TABLES = [
    (REDUCTIONS, [inputs(3, 11), inputs(2, 4)]),
    (WITHOUT_NAN, [inputs(3, 11, nan=True), inputs(2, 4, nan=True)]),
    (QUANTILES, [inputs(3, 11), inputs(2, 4)]),
    (PRODUCTS, [inputs(3, 11), inputs(2, 4)]),
]
NAMES = ["reductions", "without NaN", "quantiles", "products"]


@pytest.mark.parametrize("case", range(len(TABLES)), ids=NAMES)
def test_reductions(case):
    functions, runs = TABLES[case]
    assert not differences(functions, *runs)


# PyTorch and TensorFlow have no functions for all of these.
ELSEWHERE = {
    "trace": lambda x: ops.trace(x, 1, 1, 2),
    "trace_below": lambda x: ops.trace(x, -1, 2, 0),
}


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it fails for these axes")
def test_traces_of_other_axes():
    assert not differences(of_x(ELSEWHERE), *TABLES[0][1])


def test_an_unknown_method_of_quantiles_is_refused():
    x = keras.Input((7,), name="x")
    spec = keras.KerasTensor((None,))
    model = keras.Model(x, Apply(lambda x: ops.quantile(x, 0.5, axis=1, method="odd"), spec)(x))
    with pytest.raises(ExportError, match="method 'odd' cannot be exported; choose one of linear"):
        build_graph(model)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="it fails for an int as axis")
def test_quantile_as_an_operation_of_a_functional_model_is_linear_as_in_keras():
    x = keras.Input((7,), name="x")
    model = keras.Model(x, ops.quantile(x, 0.37, axis=1, method="lower"))
    graph = build_graph(model)
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    values = RANDOM.normal(size=(3, 7)).astype("float32")
    expected = ops.convert_to_numpy(model(values))
    np.testing.assert_allclose(session.run(None, {"x": values})[0], expected, rtol=1e-5)
