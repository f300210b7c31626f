"""Sequence-to-sequence models of keras-hub as bundles: the tokens of their own `generate`."""

import json

import keras
import numpy as np
import pytest

from keras_seqattn import runtime
from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graphs, export, verify
from keras_seqattn.onnx.arguments import adopted_model
from tests.helpers import randomise

# CI installs it, see .ci/run.
keras_hub = pytest.importorskip("keras_hub", reason="needs pip install --no-deps keras-hub")

SMALL = {"vocabulary_size": 97, "num_layers": 2, "hidden_dim": 64, "intermediate_dim": 40}
MODELS = {
    "Bart": {"num_heads": 4, "max_sequence_length": 32},
    "T5": {"num_heads": 4, "key_value_dim": 12},
}
SOURCES = [[5, 17, 61, 8, 90], [33, 2, 14, 70, 41, 9, 26, 88], [3, 66, 12]]
LENGTH, START = 16, 7


def task(name, seed=3):
    backbone = getattr(keras_hub.models, f"{name}Backbone")(**SMALL | MODELS[name])
    made = getattr(keras_hub.models, f"{name}Seq2SeqLM")(backbone, preprocessor=None)
    made.compile(sampler="greedy")
    randomise(made, seed=seed)
    for variable in made.weights:
        # With large scores attention is all or nothing, and rounding errors become large.
        if "query" in variable.path and variable.path.endswith("kernel"):
            variable.assign(variable * 0.25)
    return made


def own_tokens(model):
    ids = np.zeros((len(SOURCES), max(map(len, SOURCES))), "int32")
    mask = np.zeros_like(ids)
    for row, source in enumerate(SOURCES):
        ids[row, : len(source)], mask[row, : len(source)] = source, 1
    targets = np.zeros((len(SOURCES), LENGTH), "int32")
    targets[:, 0] = START
    given = {
        "encoder_token_ids": ids,
        "encoder_padding_mask": mask,
        "decoder_token_ids": targets,
        "decoder_padding_mask": (targets > 0).astype("int32"),
    }
    made = model.generate(given, stop_token_ids=None)
    return keras.ops.convert_to_numpy(made["decoder_token_ids"])[:, 1:].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens(name, tmp_path):
    model = task(name)
    # Verification pads sources on both sides, and decodes with and without cached steps. JAX and
    # TensorFlow need long for it.
    verifies = keras.backend.backend() == "torch"
    report = export(model, tmp_path / "b", verify=verifies, lengths=[5])
    assert not verifies or 0 < report.worst <= 1e-4
    expected, loaded = own_tokens(model), runtime.load(tmp_path / "b")
    settings = {"max_new_tokens": LENGTH - 1, "decoder_start_token_id": START, "do_sample": False}
    for source, tokens in zip(SOURCES, expected, strict=True):
        assert list(loaded.generate(source, **settings))[-len(tokens) :] == tokens
    made = loaded.generate(SOURCES, **settings)
    assert [list(row)[1 - LENGTH :] for row in made] == expected
    if verifies:
        assert not verify(tmp_path / "b", task(name, seed=4), lengths=[5]).ok


@pytest.mark.backend_free
def test_contract(tmp_path):
    """The names and their order are those that optimum and transformers.js expect."""
    model = adopted_model(task("Bart"))
    encoder, decoder = build_graphs(model).values()
    assert [i.name for i in encoder.graph.inputs] == ["input_ids", "attention_mask"]
    assert [o.name for o in encoder.graph.outputs] == ["last_hidden_state"]
    first = ["encoder_attention_mask", "input_ids", "encoder_hidden_states"]
    names = [
        f"past_key_values.{index}.{side}.{part}"
        for index in range(2)
        for side in ("decoder", "encoder")
        for part in ("key", "value")
    ]
    assert [i.name for i in decoder.graph.inputs] == first + names
    nodes = [node.op_type for node in decoder.graph]
    assert nodes.count("Attention") == 4 and "Softmax" not in nodes
    assert model.config["decoder_layers"] == 2 and model.config["decoder_start_token_id"] == 2


@pytest.mark.backend_free
def test_int4(tmp_path):
    export(task("T5"), tmp_path / "b", precision="int4", verify=False)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["model_type"] == "t5" and config["d_kv"] == 12
    loaded = runtime.load(tmp_path / "b")
    assert len(loaded.generate(SOURCES[0], max_new_tokens=5, do_sample=False)) > 1


@pytest.mark.backend_free
def test_a_task_without_buffers_of_both_sides_is_refused(tmp_path):
    backbone = keras_hub.models.MoonshineBackbone(
        vocabulary_size=97, filter_dim=16, encoder_num_layers=1, decoder_num_layers=1,
        hidden_dim=16, intermediate_dim=24, encoder_num_heads=2, decoder_num_heads=2,
    )  # fmt: skip
    model = keras_hub.models.MoonshineAudioToText(backbone, preprocessor=None)
    with pytest.raises(ExportError, match="export it to one"):
        export(model, tmp_path / "b")
