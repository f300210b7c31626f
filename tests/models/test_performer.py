"""Performer against its equations in NumPy float64, with O(n^2) attention; decoding by states."""

import json

import numpy as np
import pytest

import keras_seqattn
from keras_seqattn import models, runtime
from keras_seqattn.errors import ConfigError
from keras_seqattn.onnx import export
from tests.helpers import randomise
from tests.mechanisms import EXPORT_LENGTHS
from tests.models.formulas import Checkpoint, places, rotate
from tests.models.reference import relative_error, run, sample_inputs

# float32 rounding over two layers; a wrong formula shows as 1e-2 or more.
TOLERANCE = 2e-4
SIZES = {
    "vocab_size": 41,
    "hidden_size": 24,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "max_position_embeddings": 4099,
    "num_random_features": 11,
    "eos_token_id": 40,
    "pad_token_id": 0,
}
# The files are the same from every backend; each is compared with them, but once at all lengths.
FILES = [("ort", (17,))]
FILES += [
    pytest.param(target, EXPORT_LENGTHS, marks=pytest.mark.backend_free)
    for target in ("portable", "ort")
]
TASKS = {
    "embedding": "PerformerModel",
    "sequence_classification": "PerformerForSequenceClassification",
    "token_classification": "PerformerForTokenClassification",
    "question_answering": "PerformerForQuestionAnswering",
    "masked_lm": "PerformerForMaskedLM",
    "causal_lm": "PerformerForCausalLM",
}


def _model(task=None, **changes):
    return randomise(models.build("performer", task, **(SIZES | changes)), seed=3)


def _hidden(directory, inputs, causal, prefix=""):
    weights = Checkpoint(directory, 1e-6)
    mask = inputs["attention_mask"]
    x = weights[f"{prefix}embeddings.word_embeddings.weight"][inputs["input_ids"]]
    for index in range(2):
        layer = f"{prefix}encoder.layer.{index}"
        y = weights.norm(f"{layer}.attention.output.LayerNorm", x)
        x = x + weights.output(layer, _attention(weights, layer, y, mask, causal))
        x = x + weights.feed_forward(layer, weights.norm(f"{layer}.output.LayerNorm", x))
    return weights.norm(f"{prefix}encoder.LayerNorm", x), weights


def _attention(weights, layer, x, mask, causal):
    heads = {"query": 6, "key": 3, "value": 3}
    q, k, v = (weights.heads(layer, x, count, name) for name, count in heads.items())
    q, k = (rotate(y, places(mask)) / q.shape[-1] ** 0.25 for y in (q, k))
    random = weights[f"{layer}.attention.self.random_features"]
    q, k = (np.exp(y @ random.T - (y**2).sum(-1, keepdims=True) / 2) for y in (q, k))
    products = np.einsum("bthm,bshm->bhts", q, k.repeat(2, 2)) * mask[:, None, None]
    if causal:
        products = np.tril(products)
    total = products.sum(-1, keepdims=True)
    return np.einsum("bhts,bshe->bthe", products / np.where(total == 0, 1, total), v.repeat(2, 2))


@pytest.mark.parametrize("task", ["embedding", "causal_lm"])
def test_equations(task, tmp_path):
    model = _model(task)
    models.save(model, tmp_path)
    cases = [(11, "left"), (11, "right")] + [(1, None)] * (task == "embedding")
    for length, padding in cases:
        inputs = sample_inputs(model, length=length, padding=padding)
        prefix = "performer." if task == "causal_lm" else ""
        hidden, weights = _hidden(tmp_path, inputs, task == "causal_lm", prefix)
        ours = run(model, inputs)
        if task == "embedding":
            pooled = np.tanh(weights.dense("pooler.dense", hidden[:, 0]))
            expected = {"last_hidden_state": hidden, "pooler_output": pooled}
            if padding == "left":
                # Made of the first position, which is padding in some rows.
                del expected["pooler_output"], ours["pooler_output"]
        else:
            table = weights["performer.embeddings.word_embeddings.weight"]
            expected = {"logits": hidden @ table.T}
        error = relative_error(ours, expected, inputs["attention_mask"])
        assert error < TOLERANCE, (length, padding)


@pytest.mark.backend_free
@pytest.mark.parametrize("task", TASKS)
def test_saving_and_loading(task, tmp_path):
    tied = task != "causal_lm"
    model = _model(task, tie_word_embeddings=tied, num_key_value_heads=None)
    models.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [TASKS[task]]
    again = models.load(tmp_path)
    assert again.task == task
    inputs = sample_inputs(model, padding="right")
    for name, value in run(model, inputs).items():
        np.testing.assert_array_equal(run(again, inputs)[name], value)


@pytest.mark.parametrize(
    "change",
    [{"rope_theta": 100.0}, {"layer_norm_eps": 0.3}, {"hidden_act": "relu"}],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.backend_free
def test_a_broken_model_does_not_pass(change, tmp_path):
    models.save(_model(**change), tmp_path)
    inputs = sample_inputs(_model(**change))
    hidden, _ = _hidden(tmp_path, inputs, False)
    ours = {"last_hidden_state": run(_model(**change), inputs)["last_hidden_state"]}
    error = relative_error(ours, {"last_hidden_state": hidden}, inputs["attention_mask"])
    assert error > 10 * TOLERANCE


def test_layers_have_random_features_of_their_own():
    first, second = (
        models.build("performer", **SIZES, random_features_seed=seed).get_layer(f"layers_{index}")
        for seed, index in ((7, 1), (8, 0))
    )
    other = models.build("performer", **SIZES, random_features_seed=7).get_layer("layers_0")
    first, second, other = (
        np.asarray(layer.attention.mechanism.get_weights()[0]) for layer in (first, second, other)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_streams_go_on_behind_the_last_position():
    model = _model("causal_lm", max_position_embeddings=7, eos_token_id=None)
    tokens = keras_seqattn.generate(model, [5, 9, 13], max_new_tokens=11)
    ids = np.array([[5, 9, 13, *tokens]], "int32")
    logits = run(model, {"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
    assert logits[0, 2:-1].argmax(-1).tolist() == tokens


def test_the_future_does_not_leak():
    model = _model("causal_lm")
    inputs = sample_inputs(model, length=13)
    before = run(model, inputs)["logits"]
    inputs["input_ids"][:, 6:] = inputs["input_ids"][:, 6:] % 39 + 1
    after = run(model, inputs)["logits"]
    assert np.array_equal(before[:, :6], after[:, :6])
    assert not np.array_equal(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize(("target", "lengths"), FILES)
def test_streaming_bundle(target, lengths, tmp_path):
    model = _model("causal_lm")
    report = export(model, tmp_path / "bundle", target=target, lengths=lengths)
    assert 0 < report.worst <= 1e-4
    bundle = runtime.load(tmp_path / "bundle", threads=1)
    inputs = {value.name: value.shape for value in bundle.session.get_inputs()}
    assert inputs["past_states.1.sums"] == ["batch_size", 3, 11, 5]
    assert inputs["past_states.1.log_scale"] == ["batch_size", 3]
    rows = [[7, 11, 30, 9, 23], [22]]
    wanted = keras_seqattn.generate(model, rows, max_new_tokens=9)
    assert bundle.generate(rows, max_new_tokens=9) == wanted


@pytest.mark.parametrize(("target", "lengths"), FILES)
def test_encoder_file(target, lengths, tmp_path):
    path = tmp_path / "model.onnx"
    report = export(_model("masked_lm"), path, target=target, lengths=lengths)
    assert 0 < report.worst <= 1e-4


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="head_dim=5 must be even"):
        _model(head_dim=5)


def test_any_whole_number_is_a_seed():
    assert _model(random_features_seed=0).config["random_features_seed"] == 0
