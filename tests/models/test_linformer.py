"""Linformer against its equations in NumPy float64."""

import json

import numpy as np
import pytest

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from keras_seqattn.onnx import export
from tests.helpers import randomise
from tests.mechanisms import EXPORT_LENGTHS, softmax_attention
from tests.models.formulas import Checkpoint, places
from tests.models.reference import relative_error, run, sample_inputs

# float32 rounding over two layers; a wrong formula shows as 1e-2 or more.
TOLERANCE = 2e-4
SIZES = {
    "vocab_size": 41,
    "hidden_size": 21,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "max_position_embeddings": 61,
    "type_vocab_size": 2,
    "num_projections": 11,
}
# The files are the same from every backend; each is compared with them, but once at all lengths.
FILES = [("ort", (17,))]
FILES += [
    pytest.param(target, EXPORT_LENGTHS, marks=pytest.mark.backend_free)
    for target in ("portable", "ort")
]
TASKS = {
    "embedding": "LinformerModel",
    "sequence_classification": "LinformerForSequenceClassification",
    "token_classification": "LinformerForTokenClassification",
    "question_answering": "LinformerForQuestionAnswering",
    "masked_lm": "LinformerForMaskedLM",
}


def _model(task=None, **changes):
    return randomise(models.build("linformer", task, **(SIZES | changes)), seed=3)


def _hidden(directory, inputs):
    weights = Checkpoint(directory, 1e-12)
    mask = inputs["attention_mask"]
    x = weights["embeddings.word_embeddings.weight"][inputs["input_ids"]]
    x = x + weights["embeddings.position_embeddings.weight"][places(mask)]
    x = x + weights["embeddings.token_type_embeddings.weight"][inputs["token_type_ids"]]
    x = weights.norm("embeddings.LayerNorm", x)
    for index in range(2):
        layer = f"encoder.layer.{index}"
        out = weights.output(layer, _attention(weights, layer, x, mask))
        x = weights.norm(f"{layer}.attention.output.LayerNorm", x + out)
        x = weights.norm(f"{layer}.output.LayerNorm", x + weights.feed_forward(layer, x))
    return x, weights


def _attention(weights, layer, x, mask):
    q, k, v = (weights.heads(layer, x, 3, name) for name in ("query", "key", "value"))
    keys = weights[f"{layer}.attention.self.key_projection"]
    values = weights.tensors.get(f"{layer}.attention.self.value_projection", keys)
    k, v = (
        np.einsum("bsk,bshd->bkhd", table[places(mask)] * mask[..., None], y)
        for table, y in ((keys, k), (values, v))
    )
    return softmax_attention(q, k, v, True)


@pytest.mark.parametrize(
    "sharing", ["heads", pytest.param("key_value", marks=pytest.mark.backend_free)]
)
def test_equations(sharing, tmp_path):
    model = _model(projection_sharing=sharing)
    models.save(model, tmp_path)
    cases = [(11, "left"), (11, "right")]
    if sharing == "key_value":
        cases += [(1, None), (61, None)]
    for length, padding in cases:
        inputs = sample_inputs(model, length=length, padding=padding)
        hidden, weights = _hidden(tmp_path, inputs)
        pooled = np.tanh(weights.dense("pooler.dense", hidden[:, 0]))
        expected = {"last_hidden_state": hidden, "pooler_output": pooled}
        ours = run(model, inputs)
        if padding == "left":
            # Made of the first position, which is padding in some rows.
            del expected["pooler_output"], ours["pooler_output"]
        error = relative_error(ours, expected, inputs["attention_mask"])
        assert error < TOLERANCE, (length, padding)


@pytest.mark.backend_free
@pytest.mark.parametrize("task", TASKS)
def test_saving_and_loading(task, tmp_path):
    sharing = "key_value" if task == "masked_lm" else "heads"
    model = _model(task, tie_word_embeddings=False, projection_sharing=sharing)
    models.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [TASKS[task]]
    again = models.load(tmp_path)
    assert again.task == task
    inputs = sample_inputs(model, padding="right")
    for name, value in run(model, inputs).items():
        np.testing.assert_array_equal(run(again, inputs)[name], value)


@pytest.mark.parametrize("change", [{"layer_norm_eps": 0.3}, {"hidden_act": "relu"}], ids=str)
@pytest.mark.backend_free
def test_a_broken_model_does_not_pass(change, tmp_path):
    model = _model(**change)
    models.save(model, tmp_path)
    inputs = sample_inputs(model)
    ours = {"last_hidden_state": run(model, inputs)["last_hidden_state"]}
    expected = {"last_hidden_state": _hidden(tmp_path, inputs)[0]}
    assert relative_error(ours, expected, inputs["attention_mask"]) > 10 * TOLERANCE


@pytest.mark.parametrize(("target", "lengths"), FILES)
def test_file(target, lengths, tmp_path):
    model = _model("masked_lm", max_position_embeddings=max(EXPORT_LENGTHS))
    report = export(model, tmp_path / "model.onnx", target=target, lengths=lengths)
    # Sums over 4,099 positions come near the tolerance: `ok` knows what is rounding.
    assert report.ok and report.worst > 0


def test_what_is_refused():
    with pytest.raises(ConfigError, match="projection_sharing='layers'"):
        _model(projection_sharing="layers")
