"""Models that compute in half precision: their files, and how these are judged."""

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers

from keras_seqattn.onnx import build_graph, export, verify
from tests.helpers import randomise
from tests.onnx import tiny


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def stock():
    x = keras.Input((None, 12), name="x")
    y = layers.Dense(32, activation="gelu")(x)
    y = layers.LayerNormalization()(layers.MultiHeadAttention(4, 8)(y, y))
    return randomise(keras.Model(x, layers.Dense(17)(y), name="stock"), seed=2)


def recurrent():
    """Its states are declared float32. Keras casts them to the compute dtype of each layer."""
    x = keras.Input((None, 12), name="x")
    h, c = (keras.Input((9,), name=name, dtype="float32") for name in "hc")
    y, h2, c2 = layers.LSTM(9, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    y, s = layers.GRU(9, return_sequences=True, return_state=True)(y, initial_state=h)
    outputs = [layers.Softmax(dtype="float32")(y), h2, c2, s]
    return randomise(keras.Model([x, h, c], outputs, name="recurrent"), seed=2)


MAKERS = {
    "stock": stock,
    "recurrent": recurrent,
    "bert": lambda: tiny.encoder("bert"),
    "lfm2": lambda: tiny.decoder("lfm2"),
}
POLICIES = ["mixed_float16", "mixed_bfloat16"]
# Half a step of the mantissa is 5e-4 and 4e-3; some ten roundings add up.
LIMITS = {"mixed_float16": 0.006, "float16": 0.006, "mixed_bfloat16": 0.05}


@pytest.mark.parametrize("policy", POLICIES, indirect=True)
@pytest.mark.parametrize(
    "name",
    # JAX compiles families slowly.
    [
        "stock",
        *(pytest.param(n, marks=pytest.mark.backend_free) for n in ("recurrent", "bert", "lfm2")),
    ],
)
def test_it_is_exported_and_judged_as_it_computes(name, policy, tmp_path):
    report = export(MAKERS[name](), tmp_path / "out")
    assert report.precision == "fp32" and report.tolerance == (
        0.02 if policy == "mixed_float16" else 0.16
    )
    assert 1e-5 < report.error < LIMITS[policy]


@pytest.mark.backend_free
@pytest.mark.parametrize("policy", ["float16"], indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4", "float16"])
def test_other_precisions_of_such_a_model(precision, policy, tmp_path):
    model = tiny.decoder("lfm2")
    for target in ("ort", "portable"):
        report = export(model, tmp_path / target, precision=precision, target=target)
        assert report.ok and report.tolerance >= 0.02


@pytest.mark.backend_free
@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_float16_products_in_a_loop(policy, tmp_path):
    """onnxruntime's half kernel of MatMulNBits gives 27 % there, float32 1 %."""
    report = export(tiny.seq2seq("bahdanau"), tmp_path / "out", precision="int8")
    assert report.error < 0.03


@pytest.mark.backend_free
@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_a_norm_whose_scale_is_float32(policy, tmp_path):
    assert export(tiny.decoder("qwen3_next"), tmp_path / "out").error < 0.006


@pytest.mark.backend_free
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_the_types_in_the_file(policy):
    """float16 stays; no kernel for CPUs computes in bfloat16, which float32 holds exactly."""
    graph = build_graph(stock(), "portable").graph
    values = [*graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    kinds = {v.dtype for v in values}
    assert ir.DataType.BFLOAT16 not in kinds
    assert (ir.DataType.FLOAT16 in kinds) == (policy == "mixed_float16")
    if policy == "mixed_bfloat16":
        kernel = next(v for n, v in graph.initializers.items() if n.endswith("/kernel"))
        bits = np.ascontiguousarray(kernel.const_value.numpy()).view(np.uint32)
        assert not (bits & 0xFFFF).any()


@pytest.mark.backend_free
@pytest.mark.parametrize("policy", POLICIES, indirect=True)
def test_a_wrong_weight_is_noticed(policy, tmp_path):
    model = tiny.encoder("bert")
    export(model, tmp_path / "out", verify=False)
    kernel = next(v for v in model.weights if v.path.endswith("up/kernel"))
    kernel.assign(kernel * -1)
    assert not verify(tmp_path / "out", model).ok


@pytest.mark.backend_free
@pytest.mark.parametrize("policy", ["float64"], indirect=True)
@pytest.mark.parametrize("name", ["stock", "recurrent"])
def test_double_precision(name, policy, tmp_path):
    report = export(MAKERS[name](), tmp_path / "model.onnx")
    assert report.tolerance == 1e-4 and report.ok
