"""BigBird against transformers, in both its modes, at the lengths where that changes its mind."""

import json

import keras
import numpy as np
import onnxruntime
import pytest
from transformers import BigBirdConfig

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from keras_seqattn.onnx import export
from tests.helpers import randomise, to_numpy
from tests.models.reference import (
    TOLERANCE,
    check_round_trip,
    make_reference,
    relative_error,
    run,
    run_reference,
    sample_inputs,
    save_reference,
)

ARCHITECTURES = {
    "embedding": "BigBirdModel",
    "sequence_classification": "BigBirdForSequenceClassification",
    "token_classification": "BigBirdForTokenClassification",
    "question_answering": "BigBirdForQuestionAnswering",
    "masked_lm": "BigBirdForMaskedLM",
}
# Up to 21 tokens transformers attends to everything. No token is a separator.
SIZES = {
    "vocab_size": 37,
    "hidden_size": 21,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "max_position_embeddings": 59,
    "type_vocab_size": 5,
    "block_size": 3,
    "num_random_blocks": 1,
    "sep_token_id": 99,
}
CASES = [(1, None), (21, "right"), (22, "right"), (53, "left")]


def saved(directory, architecture="BigBirdModel", **changes):
    reference = make_reference(architecture, BigBirdConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


def errors(reference, directory, cases):
    """The relative errors of the model in the directory at some lengths and paddings."""
    model = models.load(directory)
    found = []
    for length, padding in cases:
        inputs = sample_inputs(model, length=length, padding=padding)
        # One short input changes it for good.
        reference.base_model.set_attention_type(reference.config.attention_type)
        ours, theirs = run(model, inputs), run_reference(reference, inputs)
        if padding == "left":
            # Made of the first position, which is padding in some rows.
            for outputs in (ours, theirs):
                outputs.pop("pooler_output", None)
        found.append(relative_error(ours, theirs, inputs["attention_mask"]))
    return found


@pytest.mark.parametrize("task", ARCHITECTURES)
def test_every_head_agrees_with_transformers_and_saves_back(tmp_path, task):
    labels = {} if task == "question_answering" else {"num_labels": 4}
    reference, directory = saved(tmp_path / "a", ARCHITECTURES[task], **labels)
    cases = CASES if task == "embedding" else [(22, "right")]
    assert max(errors(reference, directory, cases)) < TOLERANCE
    model = models.load(directory)
    assert (model.family, model.task) == ("big_bird", task)
    check_round_trip(model, reference, tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["architectures"] == [ARCHITECTURES[task]]
    assert config["attention_type"] == "block_sparse"


@pytest.mark.parametrize(
    "change",
    [
        {"attention_type": "original_full"},
        {"use_bias": False, "rescale_embeddings": True, "num_random_blocks": 2, "block_size": 2},
        {"tie_word_embeddings": False, "hidden_act": "relu"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings(tmp_path, change):
    reference, directory = saved(tmp_path, "BigBirdForMaskedLM", **change)
    assert max(errors(reference, directory, [(29, "right")])) < TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"attention_type": "original_full"},
        {"block_size": 4},
        {"num_random_blocks": 2},
        {"rescale_embeddings": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = saved(tmp_path)
    save_reference(reference, directory, **change)
    assert errors(reference, directory, [(53, None)])[0] > 10 * TOLERANCE


def test_a_short_input_leaves_the_next_long_one_sparse(tmp_path):
    reference, directory = saved(tmp_path)
    found = errors(reference, directory, [(22, None), (5, None), (22, None)])
    assert found[0] == found[2] < TOLERANCE


def test_answers_are_not_in_the_question(tmp_path):
    """The logits of the question are lowered, by so much that they say nothing any more."""
    reference, directory = saved(tmp_path, "BigBirdForQuestionAnswering", sep_token_id=36)
    model = models.load(directory)
    inputs = sample_inputs(model, length=11)
    inputs["input_ids"] %= 36
    inputs["input_ids"][0, [4, 7]] = inputs["input_ids"][1, 0] = 36
    question = np.zeros((3, 11), bool)
    question[0, 1:5] = True
    ours = run(model, inputs)
    theirs = run_reference(reference, inputs)
    for name, logits in theirs.items():
        np.testing.assert_array_equal(ours[name] < -9e5, question)
        np.testing.assert_array_equal(logits < -9e5, question)
        outside = np.where(question, 0.0, ours[name] - logits)
        assert np.abs(outside).max() < TOLERANCE * np.abs(logits[~question]).max()


# One file from every backend.
@pytest.mark.backend_free
@pytest.mark.parametrize("target", ["portable", "ort"])
def test_export_of_long_inputs(target, tmp_path):
    sizes = {"block_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 4099}
    model = randomise(models.build("big_bird", **(SIZES | sizes)), seed=3)
    report = export(model, tmp_path / "model.onnx", target=target, lengths=(1, 17, 333, 4099))
    assert 0 < report.worst <= 1e-4


@pytest.mark.backend_free
def test_export_of_question_answering(tmp_path):
    sizes = {"num_hidden_layers": 1, "sep_token_id": 36}
    model = randomise(models.build("big_bird", "question_answering", **(SIZES | sizes)), seed=3)
    export(model, tmp_path / "model.onnx", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = sample_inputs(model, batch=2, length=22)
    inputs["input_ids"][0, 4] = 36
    inputs["input_ids"][1] %= 36
    expected = to_numpy(model(inputs))
    found = session.run(list(expected), {name: x.astype("int64") for name, x in inputs.items()})
    for name, actual in zip(expected, found, strict=True):
        np.testing.assert_allclose(actual, expected[name], atol=1e-4, rtol=1e-6)  # float32


def test_a_checkpoint_without_the_pooler(tmp_path):
    reference, directory = saved(tmp_path / "a", "BigBirdForMaskedLM")
    reference.bert.pooler = None
    reference.save_pretrained(directory)
    model = models.load(directory)
    assert not any("pooler" in variable.path for variable in model.variables)
    assert set(models.load(directory, "embedding").output) == {"last_hidden_state"}


def test_keras_file_round_trip(tmp_path):
    for task in ("masked_lm", "question_answering"):
        model = models.build("big_bird", task, **SIZES)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        for ours, theirs in zip(model.weights, again.weights, strict=True):
            assert ours.path == theirs.path
            np.testing.assert_array_equal(to_numpy(ours.value), to_numpy(theirs.value))


@pytest.mark.parametrize(
    "change",
    [
        {"attention_type": "sparse"},
        {"block_size": 0},
        {"num_random_blocks": "three"},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"hidden_size": 22},
    ],
    ids=lambda change: next(iter(change)),
)
def test_values_that_are_not_implemented_are_named(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        models.build("big_bird", **(SIZES | change))
