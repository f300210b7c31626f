"""Every lowering against Keras itself: the op in a one-layer model, in onnxruntime and eagerly."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply


def run_both(function, arrays, target="portable"):
    """Outputs of keras.ops and of onnxruntime; all axes but the last are dynamic."""
    inputs = [
        keras.Input(
            batch_shape=[None] * (a.ndim - 1) + [a.shape[-1]], dtype=str(a.dtype), name=f"x{i}"
        )
        for i, a in enumerate(arrays)
    ]
    model = keras.Model(inputs, Apply(function, name="apply")(*inputs))
    graph = build_graph(model, target)
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    feed = {f"x{i}": a for i, a in enumerate(arrays)}
    actual = session.run(None, feed)
    expected = keras.tree.flatten(function(*[ops.convert_to_tensor(a) for a in arrays]))
    return [ops.convert_to_numpy(e) for e in expected], actual, graph


def check(function, *arrays, target="portable"):
    expected, actual, graph = run_both(function, arrays, target)
    for e, a in zip(expected, actual, strict=True):
        assert e.shape == a.shape
        # One op: float32 rounding of transcendental functions, nothing more.
        np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-6)
    return graph


RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(3, 5, 7)).astype("float32")
Y = RANDOM.normal(size=(3, 5, 7)).astype("float32")
IDS = RANDOM.integers(-9, 9, size=(3, 5)).astype("int32")
POSITIVE = np.abs(X) + 0.1

UNARY = [
    ops.abs, ops.ceil, ops.cos, ops.erf, ops.exp, ops.floor, ops.negative, ops.relu, ops.round,
    ops.sigmoid, ops.sign, ops.sin, ops.tanh, ops.softplus, ops.softsign, ops.square, ops.silu,
    ops.relu6, ops.leaky_relu, ops.elu, ops.selu, ops.hard_sigmoid, ops.log_sigmoid, ops.isfinite,
    ops.isnan, ops.expm1, ops.softmax, ops.log_softmax, ops.ones_like, ops.zeros_like,
    ops.stop_gradient,
]  # fmt: skip


@pytest.mark.parametrize("function", UNARY, ids=lambda f: f.__name__)
def test_unary(function):
    check(function, X)


@pytest.mark.parametrize(
    "function",
    [ops.log, ops.log1p, ops.log2, ops.sqrt, ops.rsqrt, ops.reciprocal],
    ids=lambda f: f.__name__,
)
def test_unary_of_positive(function):
    check(function, POSITIVE)


@pytest.mark.parametrize(
    "function",
    [ops.add, ops.subtract, ops.multiply, ops.divide, ops.maximum, ops.minimum, ops.mod,
    ops.floor_divide,
     ops.equal, ops.not_equal, ops.greater, ops.greater_equal, ops.less, ops.less_equal],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_binary(function):
    check(function, X, Y)


@pytest.mark.parametrize(
    "function", [ops.floor_divide, ops.mod, ops.add, ops.less], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("divisor", [3, -4])
def test_integers_round_as_keras_rounds(function, divisor):
    check(lambda x: function(x, divisor), IDS)


def test_mixed_dtypes_promote_as_in_keras():
    check(lambda x, i: ops.add(x, i[:, 3:4, None]), X, IDS)
    check(lambda x, i: ops.where(i > 0, x[:, 0, :5], i), X, IDS)


CASES = {
    "power": lambda x: ops.power(ops.abs(x), 1.7),
    "clip": lambda x: ops.clip(x, -0.5, 0.7),
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "cast": lambda x: ops.cast(ops.cast(x * 3, "int32"), "float32"),
    "logical": lambda x: ops.logical_or(ops.logical_and(x > 0, x < 1), ops.logical_not(x < 2)),
    "sum": lambda x: ops.sum(x, axis=(0, -1)),
    "mean": lambda x: ops.mean(x, axis=1, keepdims=True),
    "max": lambda x: ops.max(x, axis=-1),
    "min_all": lambda x: ops.min(x),
    "prod": lambda x: ops.prod(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=1),
    "var": lambda x: ops.var(x, axis=1),
    "std": lambda x: ops.std(x, axis=(0, 1), keepdims=True),
    "any": lambda x: ops.any(x > 1, axis=1),
    "all": lambda x: ops.all(x > -1, axis=-1, keepdims=True),
    "argmax": lambda x: ops.argmax(x, axis=1),
    "argmin": lambda x: ops.argmin(x, axis=-1),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "reshape": lambda x: ops.reshape(x, (ops.shape(x)[0], -1)),
    "reshape_sizes": lambda x: ops.reshape(x, (ops.shape(x)[1], ops.shape(x)[0], 7)),
    "reshape_back": lambda x: ops.reshape(ops.reshape(x, (-1, 7)), ops.shape(x)),
    "transpose": lambda x: ops.transpose(x, (2, 0, 1)),
    "transpose_all": lambda x: ops.transpose(x),
    "swapaxes": lambda x: ops.swapaxes(x, 0, 2),
    "moveaxis": lambda x: ops.moveaxis(x, (0, 1), (2, 0)),
    "expand_dims": lambda x: ops.expand_dims(x, 1),
    "squeeze": lambda x: ops.squeeze(x[:, :, :1], -1),
    "concatenate": lambda x: ops.concatenate([x, x * 2, x], axis=1),
    "stack": lambda x: ops.stack([x, -x], axis=-1),
    "split": lambda x: ops.split(x, [2, 3], axis=-1),
    "unstack": lambda x: ops.unstack(x, axis=-1),
    "tile": lambda x: ops.tile(x, (1, 3, 2)),
    "repeat": lambda x: ops.repeat(x, 3, axis=1),
    "repeat_size": lambda x: ops.repeat(x[:1], ops.shape(x)[1], axis=0),
    "pad": lambda x: ops.pad(x, ((0, 0), (2, 1), (0, 3)), constant_values=-2.0),
    "pad_reflect": lambda x: ops.pad(x, ((0, 0), (0, 0), (2, 1)), mode="reflect"),
    "flip": lambda x: ops.flip(x, axis=1),
    "flip_all": lambda x: ops.flip(x),
    "tril": lambda x: ops.tril(x, k=1),
    "triu": lambda x: ops.triu(x, k=-1),
    "getitem": lambda x: x[:, 1:-1, ::2],
    "getitem_new": lambda x: x[..., None, 3],
    "getitem_negative": lambda x: x[:, -1],
    "broadcast_to": lambda x: ops.broadcast_to(x[:, :1], ops.shape(x)),
    "arange": lambda x: x[0, :, 0] * ops.arange(ops.shape(x)[1], dtype="float32"),
    "zeros": lambda x: x[:, :, 0] + ops.zeros(ops.shape(x)[:2]) + ops.ones(ops.shape(x)[:2]),
    "full": lambda x: x[:, :, 0] * ops.full(ops.shape(x)[:2], 2.5),
    "full_like": lambda x: ops.full_like(x, 1.5),
    "size_arithmetic": lambda x: ops.arange((ops.shape(x)[1] + 3) // 2 * ops.shape(x)[0]),
    "take": lambda x: ops.take(x, np.array([[2, 0], [1, 6]]), axis=-1),
    "einsum": lambda x: ops.einsum("bti,bsi->bts", x, x),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
    "slice": lambda x: ops.slice(x, (0, 1, 2), (ops.shape(x)[0], 2, 3)),
    "layer_norm": lambda x: ops.layer_normalization(
        x, np.arange(7.0, dtype="float32"), epsilon=0.1
    ),
    "rms_norm": lambda x: ops.rms_normalization(x, np.arange(7.0, dtype="float32"), epsilon=0.1),
}


@pytest.mark.parametrize("name", CASES)
def test_op(name):
    check(CASES[name], X)


ACTIVATIONS = """relu relu6 leaky_relu elu selu gelu silu hard_sigmoid sigmoid tanh softplus
softsign exponential linear softmax log_softmax""".split()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("target", ["portable", "ort"])
def test_activations_by_name(name, target):
    check(lambda x: keras.activations.get(name)(x * 3) + 0, X, target=target)


def test_take_along_axis():
    check(lambda x, i: ops.take_along_axis(x[:, 0], ops.abs(i) % 7, axis=1), X, IDS)


def test_one_hot():
    check(lambda i: ops.one_hot(ops.abs(i), 11), IDS)


def test_gather_of_ids():
    check(
        lambda i: ops.take(np.arange(44, dtype="float32").reshape(11, 4), ops.abs(i), axis=0), IDS
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("target", ["portable", "ort"])
def test_dot_product_attention(causal, target):
    q, k, v = (RANDOM.normal(size=(2, 5, 3 * 11)).astype("float32") for _ in range(3))

    def attend(q, k, v):
        heads = [ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1], 3, 11)) for x in (q, k, v)]
        return ops.dot_product_attention(*heads, is_causal=causal)

    graph = check(attend, q, k, v, target=target)
    assert [n.op_type for n in graph.graph if n.op_type == "Attention"] == ["Attention"]


def test_no_shape_chain_where_a_reshape_keeps_its_axes():
    def split_and_merge(x):
        b, t, _ = ops.shape(x)
        return ops.exp(ops.reshape(ops.exp(ops.reshape(x, (b, t, 1, 7))), (b, t, 7)))

    graph = check(split_and_merge, X)
    assert "Shape" not in [n.op_type for n in graph.graph]


def test_an_operation_without_lowering_says_where_and_what_to_do():
    class Unheard(keras.Operation):
        """An operation of a later Keras."""

        __module__ = "keras.src.ops.later"

        def call(self, x):
            return x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    with pytest.raises(ExportError, match="apply.*Unheard.*lowers"):
        run_both(lambda x: Unheard()(x), [X])


def _sized(function):
    """The graph of a function of whole numbers that gives a vector of any length."""
    ids = keras.Input((5,), dtype="int32", name="ids")
    sized = Apply(function, keras.KerasTensor((None,)), name="sized")
    return build_graph(keras.Model(ids, sized(ids)), "portable")


def test_a_size_may_depend_on_values():
    def ramp(i):
        most = ops.max(i)
        return ops.arange(most) * ops.ones((most,), "int32")

    graph = _sized(ramp)
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    (actual,) = session.run(None, {"ids": np.array([[1, 4, 0, 2, 3]], "int32")})
    np.testing.assert_array_equal(actual, np.arange(4))


def test_a_size_that_is_no_whole_number_is_refused():
    with pytest.raises(ExportError, match="sized: the size of a tensor is a float32"):
        _sized(lambda i: ops.ones((ops.cast(ops.max(i), "float32"),)))


MIXED = {
    "an array of the backend": lambda x: ops.arange(7, dtype="float32") - x,
    "a product": lambda x: ops.ones((3, 7)) @ ops.transpose(x, (0, 2, 1)),
}
if keras.backend.backend() != "torch":  # whose tensors take none
    MIXED["an array of NumPy"] = lambda x: np.arange(7, dtype="float32") * x


@pytest.mark.parametrize("name", MIXED)
def test_an_array_on_the_left_of_a_tensor(name):
    check(MIXED[name], X)


def _of_the_backend(x):
    backend = keras.backend.backend()
    if backend == "jax":
        import jax.numpy

        return jax.numpy.sin(x)
    if backend == "torch":
        import torch

        return torch.sin(x)
    import tensorflow

    return tensorflow.sin(x)


def test_what_a_backend_computes_is_refused_in_words():
    x = keras.Input((7,))
    model = keras.Model(x, Apply(_of_the_backend, keras.KerasTensor((None, 7)), name="own")(x))
    with pytest.raises(ExportError) as caught:
        build_graph(model)
    assert "it computes with its backend; write it with keras.ops" in str(caught.value)
    assert str(caught.value).endswith("while tracing own (Apply)")
