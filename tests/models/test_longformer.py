"""Longformer against transformers, which pads to whole windows where ours does not."""

import json

import numpy as np
import pytest
import safetensors.numpy
from transformers import LongformerConfig

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from tests.helpers import randomise
from tests.models.reference import (
    TOLERANCE,
    check_round_trip,
    make_reference,
    parity_error,
    relative_error,
    run,
    run_reference,
    sample_inputs,
    save_reference,
)

ARCHITECTURES = {
    "embedding": "LongformerModel",
    "sequence_classification": "LongformerForSequenceClassification",
    "token_classification": "LongformerForTokenClassification",
    "question_answering": "LongformerForQuestionAnswering",
    "masked_lm": "LongformerForMaskedLM",
}
# Padding is token 0, as in the sample inputs: transformers tells positions by the tokens.
SIZES = {
    "vocab_size": 37,
    "hidden_size": 21,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "max_position_embeddings": 59,
    "type_vocab_size": 1,
    "attention_window": [4, 8],
    "pad_token_id": 0,
}
# Below, at and over the windows.
CASES = [(1, None), (8, None), (8, "right"), (53, None), (53, "right"), (53, "left")]


def _saved(directory, architecture="LongformerModel", **changes):
    reference = make_reference(architecture, LongformerConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


def _check_parity(reference, directory, cases):
    model = models.load(directory)
    for length, padding in cases:
        inputs = sample_inputs(model, length=length, padding=padding)
        ours, theirs = run(model, inputs), run_reference(reference, inputs)
        if padding == "left":
            # Made of the first position, which is padding in some rows.
            for outputs in (ours, theirs):
                outputs.pop("pooler_output", None)
        error = relative_error(ours, theirs, inputs["attention_mask"])
        assert error < TOLERANCE, (length, padding, error)
    return model


@pytest.mark.parametrize("task", ARCHITECTURES)
def test_every_head_agrees_with_transformers_and_saves_back(tmp_path, task):
    labels = {} if task == "question_answering" else {"num_labels": 4}
    reference, directory = _saved(tmp_path / "a", ARCHITECTURES[task], **labels)
    few = CASES[-2:-1] if task == "sequence_classification" else CASES[-2:]
    model = _check_parity(reference, directory, CASES if task == "embedding" else few)
    assert (model.family, model.task) == ("longformer", task)
    check_round_trip(model, reference, tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["architectures"] == [ARCHITECTURES[task]]


def test_one_window_for_all_layers_and_another_activation(tmp_path):
    """That of the masked language model's head stays as it is."""
    changes = {"attention_window": 6, "hidden_act": "relu", "tie_word_embeddings": False}
    reference, directory = _saved(tmp_path / "a", "LongformerForMaskedLM", **changes)
    models.save(_check_parity(reference, directory, [(13, "right")]), tmp_path / "b")
    _check_parity(reference, tmp_path / "b", [(13, "left")])


def test_positions_start_behind_that_of_padding(tmp_path):
    reference, directory = _saved(tmp_path, pad_token_id=3)
    model = models.load(directory)
    layer = model.get_layer("position_embedding")
    assert (layer.offset, layer.max_sequence_length) == (4, 55)
    for padding in ("left", "right"):
        inputs = sample_inputs(model, padding=padding)
        inputs["input_ids"] = np.where(
            inputs["attention_mask"] == 1, inputs["input_ids"] % 31 + 4, 3
        ).astype("int32")
        ours, theirs = (
            {"last_hidden_state": outputs["last_hidden_state"]}
            for outputs in (run(model, inputs), run_reference(reference, inputs))
        )
        assert relative_error(ours, theirs, inputs["attention_mask"]) < TOLERANCE


def test_padding_on_either_side_changes_nothing():
    model = randomise(models.build("longformer", "masked_lm", **SIZES), seed=3)
    inputs = sample_inputs(model, batch=1, length=9)
    expected = run(model, inputs)["logits"]
    for before, after in ((6, 0), (0, 6)):
        padded = {
            name: np.pad(x, [(0, 0), (before, after)], constant_values=0 if "mask" in name else 5)
            for name, x in inputs.items()
        }
        padded["token_type_ids"][:] = 0
        found = run(model, padded)["logits"][:, before : before + 9]
        # float32 rounding, in sums over other blocks.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "change",
    [{"attention_window": [4, 4]}, {"attention_window": [10, 8]}, {"layer_norm_eps": 0.3}],
    ids=["second window", "first window", "epsilon"],
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    assert parity_error(reference, directory) > 10 * TOLERANCE


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_one_wrong_global_projection_does_not_pass(tmp_path, name):
    reference, directory = _saved(tmp_path)
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    key = f"encoder.layer.1.attention.self.{name}_global.weight"
    tensors[key] = -tensors[key]
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    assert parity_error(reference, directory) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_window": 5}, "attention_window must be an even number"),
        ({"attention_window": [4]}, "one for each of 2 layers"),
        ({"attention_window": [4, "8"]}, "attention_window"),
        ({"attention_window": "4"}, "attention_window"),
        ({"max_global_tokens": 0}, "max_global_tokens"),
        ({"pad_token_id": None}, "pad_token_id"),
        ({"num_attention_heads": 4}, "num_attention_heads=4"),
    ],
    ids=str,
)
def test_values_that_are_not_implemented_are_named(tmp_path, change, message):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=message):
        models.load(directory)
