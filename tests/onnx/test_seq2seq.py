"""Encoder-decoders: two graphs in one bundle, proven together."""

import json
import os

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_seqattn import models
from keras_seqattn.errors import BundleError, ExportError, InputError
from keras_seqattn.inspection import inspect
from keras_seqattn.onnx import build_graph, build_graphs, export, verify
from tests.helpers import randomise
from tests.onnx import tiny

ENCODER, DECODER = "encoder_model.onnx", "decoder_model_merged.onnx"
TARGETS = ["portable", "ort"]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """(bundle, model, report)"""
    folder, model = tmp_path_factory.mktemp("export") / "t5", tiny.seq2seq("t5")
    return folder, model, export(model, folder)


@pytest.fixture(scope="module")
def bart():
    return tiny.seq2seq("bart")


def test_bundle_files(t5):
    folder, _, _ = t5
    names = {ENCODER, DECODER, "config.json", "generation_config.json", "parity.json"}
    assert set(os.listdir(folder)) == names
    for name in (ENCODER, DECODER):
        onnx.checker.check_model(str(folder / name))
    assert json.loads((folder / "config.json").read_text())["is_encoder_decoder"] is True
    tokens = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    assert json.loads((folder / "generation_config.json").read_text()) == tokens
    parity = json.loads((folder / "parity.json").read_text())
    assert {ENCODER, DECODER} < set(parity["files"]) and parity["task"] == "seq2seq_lm"


def test_generation_config_has_the_tokens_that_the_family_sets(bart, tmp_path):
    export(bart, tmp_path / "b", verify=False)
    tokens = json.loads((tmp_path / "b" / "generation_config.json").read_text())
    assert tokens["forced_eos_token_id"] == 2 and tokens["decoder_start_token_id"] == 2


def test_decoder_contract(t5):
    session = onnxruntime.InferenceSession(t5[0] / DECODER)
    inputs = {i.name: i for i in session.get_inputs()}
    layer = ["decoder.key", "decoder.value", "encoder.key", "encoder.value"]
    caches = [f"{i}.{name}" for i in range(2) for name in layer]
    assert list(inputs) == [
        "encoder_attention_mask", "input_ids", "encoder_hidden_states",
        *(f"past_key_values.{name}" for name in caches),
    ]  # fmt: skip
    assert [o.name for o in session.get_outputs()] == [
        "logits", *(f"present.{name}" for name in caches)
    ]  # fmt: skip
    assert inputs["input_ids"].type == inputs["encoder_attention_mask"].type == "tensor(int64)"
    cross = inputs["past_key_values.1.encoder.key"].shape
    assert cross == ["batch_size", 4, "past_encoder_sequence_length", 12]


def test_what_was_compared(t5):
    names = " | ".join(case.name for case in t5[2].cases)
    for part in ("length 1,", "length 5, left", "length 29, right", "20 cached steps", "23 greedy"):
        assert part in names
    assert len(t5[2].cases) == 13 and 0 < t5[2].worst <= 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised(precision, target, bart, tmp_path):
    report = export(bart, tmp_path / "bart", target=target, precision=precision)
    assert 1e-3 < report.error < report.tolerance
    if target == "ort":
        encoder, decoder = (graph.operators for graph in inspect(tmp_path / "bart").graphs)
        kind = {"int8": "DynamicQuantizeMatMul", "int4": "MatMulNBits"}[precision]
        assert encoder[f"com.microsoft.{kind}"] == 4 * 3
        assert decoder["com.microsoft.MatMulNBits"] == 8 * 2 + 1
        assert "MatMul" not in encoder | decoder


def test_products_in_loops_are_quantised(tmp_path):
    report = export(tiny.seq2seq("bahdanau"), tmp_path / "b", precision="int8")
    assert 1e-4 < report.error < report.tolerance
    loops = inspect(tmp_path / "b").graphs[1].operators
    # Those that are left are of two activations: keys with queries, and scores with values.
    assert loops["Scan"] == 1 and loops["com.microsoft.MatMulNBits"] > 5 and loops["MatMul"] == 2


def test_int8_rounds_large_tables_of_both_graphs(tmp_path):
    settings = {"vocab_size": 70_001, "encoder_layers": 1, "decoder_layers": 1, "d_model": 16}
    model = models.build("transformer", **(tiny.BART | settings))
    for target in TARGETS:
        export(model, tmp_path / target, target=target, precision="int8", verify=False)
        table = 70_001 * 16
        assert (tmp_path / target / ENCODER).stat().st_size < 1.5 * table


@pytest.mark.parametrize("part", ["encoder_layers_1/feed_forward", "decoder_layers_1/cross"])
def test_verify_sees_one_wrong_weight(t5, part):
    folder, model, _ = t5
    variable = next(v for v in model.weights if v.path.startswith(part) and len(v.shape) == 2)
    right = keras.ops.convert_to_numpy(variable)
    wrong = right.copy()
    wrong[3, 5] += 1.0
    variable.assign(wrong)
    try:
        assert not verify(folder, model).ok
    finally:
        variable.assign(right)


def test_a_source_that_is_all_padding_gives_what_keras_gives(t5):
    """Attention to nothing is zero, in the encoder and from the decoder."""
    folder, model, _ = t5
    ids = np.random.default_rng(0).integers(2, 97, (3, 5))
    mask = np.array([[1] * 5, [0] * 5, [0, 1, 0, 1, 0]])
    targets = ids[:, :4]
    feeds = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": targets}
    expected = model({k: v.astype("int32") for k, v in feeds.items()})["logits"]
    encoder = onnxruntime.InferenceSession(folder / ENCODER)
    hidden = encoder.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    decoder = onnxruntime.InferenceSession(folder / DECODER)
    caches = {
        i.name: np.zeros((3, 4, 0, 12), "float32")
        for i in decoder.get_inputs()
        if i.name.startswith("past")
    }
    step = {"encoder_attention_mask": mask, "input_ids": targets, "encoder_hidden_states": hidden}
    actual = decoder.run(["logits"], step | caches)[0]
    expected = keras.ops.convert_to_numpy(expected)
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("target", TARGETS)
def test_the_context_is_projected_only_as_far_as_the_cache_lacks_it(target):
    decoder = build_graphs(tiny.seq2seq("transformer"), target)["decoder_model_merged"].graph
    cut = next(n for n in decoder if n.op_type == "Slice")
    readers = [use.node for use in cut.outputs[0].uses()]
    assert cut.inputs[0].name == "encoder_hidden_states"
    assert [n.op_type for n in readers] == ["MatMul"] * 4
    # Self-attention keeps its packed projection; no com.microsoft kernel is faster here.
    names = [n.op_type for n in decoder]
    assert names.count("Split") == 2 and names.count("Attention") == 4
    assert "GroupQueryAttention" not in names


def test_refused(t5, tmp_path):
    model = t5[1]
    with pytest.raises(ExportError, match="two files, encoder_model.onnx.*name a folder"):
        export(model, tmp_path / "t5.onnx")
    with pytest.raises(ExportError, match="tf2onnx.*one graph"):
        export(model, tmp_path / "t5", route="tf2onnx")
    with pytest.raises(ExportError, match="use build_graphs"):
        build_graph(model)
    assert os.listdir(tmp_path) == []


def test_a_bundle_of_another_model_is_refused(t5, tmp_path):
    larger = models.build("t5", **(tiny.T5 | {"vocab_size": 1009}))
    with pytest.raises(BundleError, match="cannot run the file: .*token_embedding"):
        verify(t5[0], larger)
    with pytest.raises(BundleError, match="is not a bundle: model.onnx is missing"):
        verify(tmp_path, t5[1])


def test_inspect_shows_both_graphs(t5):
    found = inspect(t5[0])
    assert [graph.file for graph in found.graphs] == [ENCODER, DECODER]
    assert found.operators["Attention"] == 3 + 2 * 2
    report = str(found)
    assert report.index(ENCODER) < report.index("last_hidden_state") < report.index(DECODER)
    assert inspect(t5[0] / DECODER).graphs[0].outputs[0].name == "logits"


def test_sources_may_be_longer_than_targets(tmp_path):
    """Lengths to verify are those of the sources; LED's encoder takes far more than its decoder."""
    config = tiny.LED | {"max_decoder_position_embeddings": 16}
    model = randomise(models.build("led", **config), seed=5)
    report = export(model, tmp_path / "led", lengths=[40])
    assert any("source length 40" in case.name for case in report.cases)
    with pytest.raises(InputError, match="from 1 to the model's 64"):
        verify(tmp_path / "led", model, lengths=[65])
