"""float16 files: their size, what they compute, what in them stays float32, and the runtime."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers, ops

import keras_seqattn.models as models
from keras_seqattn import runtime
from keras_seqattn.errors import ExportError
from keras_seqattn.inspection import inspect
from keras_seqattn.onnx import build_graphs, export, verify
from keras_seqattn.onnx.half import to_float16
from tests.helpers import randomise
from tests.onnx import tiny

pytestmark = pytest.mark.backend_free

TARGETS = ["ort", "portable"]
# Large enough for the weights to be nearly all of a file.
WIDE = {"hidden_size": 192, "intermediate_size": 416, "vocab_size": 1009}
T5 = {"d_model": 192, "d_ff": 416, "d_kv": 48, "vocab_size": 1009}
LARGE = {
    "bert": ("bert", "embedding", tiny.BERT | WIDE),
    "llama": ("llama", "causal_lm", tiny.LLAMA | WIDE | {"head_dim": 48}),
    "lfm2": ("lfm2", "causal_lm", tiny.LFM2 | WIDE | {"head_dim": 48}),
    "t5": ("t5", None, tiny.T5 | T5),
}


def large(name):
    family, task, config = LARGE[name]
    model = randomise(models.build(family, **({"task": task} if task else {}), **config), seed=3)
    for variable in model.weights if name == "t5" else ():
        # T5's weights hold the factor of the scores, without which attention is all or nothing.
        if variable.path.endswith("query/kernel"):
            variable.assign(variable * config["d_kv"] ** -0.5)
    return model


def graph_bytes(folder):
    return sum(p.stat().st_size for p in folder.iterdir() if "model" in p.name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LARGE)
def test_half_the_size_and_the_same_results(name, target, tmp_path):
    model = large(name)
    export(model, tmp_path / "full", target=target, verify=False)
    report = export(model, tmp_path / "half", target=target, precision="float16")
    # Ten bits of mantissa are 5e-4 of a value; the tolerance of 0.02 is for deeper models.
    assert 1e-5 < report.error < 5e-3
    assert graph_bytes(tmp_path / "half") <= 0.52 * graph_bytes(tmp_path / "full")
    loaded = [runtime.load(tmp_path / n) for n in ("full", "half")]
    if name == "bert":
        return
    prompt = np.random.default_rng(2).integers(3, 1009, (2, 7))
    first, second = (
        m.generate(prompt, max_new_tokens=12, min_new_tokens=12, do_sample=False) for m in loaded
    )
    # Random weights leave few ties: nearly all tokens are the same.
    assert first.shape == second.shape and (first == second).mean() > 0.8


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "lfm2"])
def test_it_agrees_with_the_model_under_the_policy(name, tmp_path):
    table = {"bert": tiny.encoder, "t5": tiny.seq2seq}
    make = table.get(name, tiny.decoder)
    export(make(name), tmp_path / "half", precision="float16", verify=False)
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = make(name)
    finally:
        keras.config.set_dtype_policy(before)
    report = verify(tmp_path / "half", model)
    assert report.ok and 1e-5 < report.error < 5e-3


@pytest.mark.parametrize(("make", "name"), [
    (tiny.decoder, "transfo_xl"), (tiny.decoder, "qwen3_next"), (tiny.seq2seq, "bahdanau"),
])  # fmt: skip
def test_other_mixers(make, name, tmp_path):
    assert 1e-5 < export(make(name), tmp_path / "half", precision="float16").error < 6e-3


@pytest.mark.parametrize("target", TARGETS)
def test_caches_are_half_and_other_ports_are_not(target, tmp_path):
    export(tiny.decoder("lfm2"), tmp_path / "half", target=target, precision="float16")
    graph = inspect(tmp_path / "half").graphs[0]
    kinds = {tensor.name: tensor.dtype for tensor in (*graph.inputs, *graph.outputs)}
    for name, kind in kinds.items():
        if name.startswith(("past_key_values.", "present.")):
            assert kind == "float16"
        elif name == "logits" or name.startswith(("past_states.0", "present_states.0")):
            assert kind == "float"


def types_of(graph, op_type):
    """The float types that the nodes of one type give."""
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    nodes = [node for node in graph if node.op_type == op_type]
    return {v.dtype.name for n in nodes for v in n.outputs if v.dtype in floats}


def test_what_computes_in_which_type():
    graphs = build_graphs(tiny.decoder("llama"), "portable")
    to_float16(graphs["model"])
    graph = graphs["model"].graph
    for op_type in ("MatMul", "Attention", "Gather", "RotaryEmbedding", "Sigmoid"):
        assert types_of(graph, op_type) == {"FLOAT16"}, op_type
    # The residual stream and what normalises it.
    assert types_of(graph, "RMSNormalization") == types_of(graph, "Add") == {"FLOAT"}
    assert all(v.uses() for v in graph.initializers.values())


def _model(function, shape=(None, 8)):
    x = keras.Input(shape, name="x")
    return randomise(keras.Model(x, function(x), name="model"), seed=4)


def test_a_constant_that_leaves_the_range_keeps_its_node_in_float32(tmp_path):
    def function(x):
        y = layers.Dense(32, name="up")(x)
        # In half precision the first factor would be infinite, and the second one 0.
        return layers.Dense(9, name="down")(ops.multiply(ops.multiply(y, 1e6), 1e-8) * 100.0)

    assert export(_model(function), tmp_path / "model.onnx", precision="float16").error < 5e-3


def test_a_weight_beyond_the_range_is_named(tmp_path):
    model = _model(lambda x: layers.Dense(600, name="wide")(x))
    kernel = model.get_layer("wide").kernel
    kernel.assign(np.where(np.arange(600) == 7, 7e4, keras.ops.convert_to_numpy(kernel)))
    with pytest.raises(ExportError, match="wide/kernel holds .*float16 ends at 65504"):
        export(model, tmp_path / "model.onnx", precision="float16")
    assert not list(tmp_path.iterdir())


def test_softmax_and_sums_stay_float32():
    def function(x):
        y = layers.Dense(40)(x)
        return ops.softmax(ops.sum(y, axis=1, keepdims=True) + y)

    graph = build_graphs(_model(function), "ort")["model"]
    to_float16(graph)
    assert types_of(graph.graph, "Softmax") == types_of(graph.graph, "ReduceSum") == {"FLOAT"}
    assert graph.graph.outputs[0].dtype == ir.DataType.FLOAT


def test_rows_that_see_nothing_are_no_nan():
    """onnxruntime's half kernel of GroupQueryAttention makes NaN of them with minus infinity."""
    graph = build_graphs(tiny.decoder("lfm2"), "ort")["model"]
    to_float16(graph)
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    ids, mask = np.arange(14).reshape(2, 7), np.ones((2, 7), np.int64)
    mask[1, :4] = 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    kinds = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int64)": np.int64}
    for value in session.get_inputs():
        if value.name not in feeds:
            shape = [n if isinstance(n, int) else 2 if i == 0 else 0
                     for i, n in enumerate(value.shape)]  # fmt: skip
            feeds[value.name] = np.zeros(shape, kinds[value.type])
    assert all(np.isfinite(x).all() for x in session.run(None, feeds))


def test_it_is_told_how_far_it_is(tmp_path):
    told = []
    export(
        tiny.encoder("bert"), tmp_path / "out", precision="float16",
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )  # fmt: skip
    steps = [(done, total) for stage, done, total in told if stage == "quantize"]
    assert steps and steps[-1][0] == steps[-1][1] == len(steps)
