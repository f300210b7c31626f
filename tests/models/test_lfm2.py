import json

import keras
import numpy as np
import pytest
import torch
from transformers import Lfm2Config

import keras_seqattn
from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, ConfigError
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    parity_error,
    relative_error,
    run,
    run_reference,
    sample_inputs,
    save_reference,
)

SIZES = {
    "vocab_size": 41,
    "hidden_size": 42,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "intermediate_size": 47,
    "block_multiple_of": 13,
    "block_ffn_dim_multiplier": 1.3,
    "num_hidden_layers": 3,
    "layer_types": ["conv", "full_attention", "conv"],
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KINDS = {
    "hybrid": {},
    "streaming": {"layer_types": ["conv"] * 2, "num_hidden_layers": 2, "conv_L_cache": 5},
    "attention": {"layer_types": None, "num_hidden_layers": 2},
    "by number": {"layer_types": None, "full_attn_idxs": [0, 2], "tie_word_embeddings": False},
    "given width": {"block_auto_adjust_ff_dim": False},
}


def _saved(directory, architecture="Lfm2ForCausalLM", **changes):
    reference = make_reference(architecture, Lfm2Config(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize("kind", KINDS)
def test_parity_and_round_trip(tmp_path, kind):
    reference, directory = _saved(tmp_path / "a", **KINDS[kind])
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("lfm2", "causal_lm")
    check_round_trip(model, reference, tmp_path / "b")


def test_hidden_states(tmp_path):
    reference, directory = _saved(tmp_path / "a", "Lfm2Model")
    check_round_trip(check_parity(reference, directory), reference, tmp_path / "b")


def test_biases(tmp_path):
    """With biases the convolutions of transformers see the padding, so rows are not padded."""
    reference, directory = _saved(tmp_path / "a", conv_bias=True)
    assert parity_error(reference, directory) < TOLERANCE
    model = models.load(directory)
    models.save(model, tmp_path / "b")
    again = type(reference).from_pretrained(tmp_path / "b").state_dict()
    for name, value in reference.state_dict().items():
        np.testing.assert_array_equal(again[name].numpy(), value.numpy(), err_msg=name)


def test_old_names_of_settings(tmp_path):
    reference, directory = _saved(tmp_path, tie_word_embeddings=False)
    config = json.loads((directory / "config.json").read_text())
    config |= {"tie_embedding": False, "tie_word_embeddings": True}
    config |= {"block_ff_dim": config["intermediate_size"], "intermediate_size": 7}
    (directory / "config.json").write_text(json.dumps(config))
    model = check_parity(reference, directory)
    assert "block_ff_dim" not in model.config


@pytest.mark.parametrize(
    "change",
    [
        {"conv_L_cache": 5},
        {"layer_types": ["conv", "conv", "full_attention"]},
        {"block_multiple_of": 14},
    ],
    ids=str,
)
def test_other_shapes_are_refused(tmp_path, change):
    _, directory = _saved(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError):
        models.load(directory)


def test_a_convolution_read_backwards_does_not_pass(tmp_path):
    reference, directory = _saved(tmp_path)
    model = models.load(directory)
    inputs = sample_inputs(model)
    theirs = run_reference(reference, inputs)
    kernel = next(v for v in model.weights if v.path.endswith("layers_2/mixer/conv/kernel"))
    kernel.assign(keras.ops.flip(kernel, 0))
    assert relative_error(run(model, inputs), theirs, inputs["attention_mask"]) > 10 * TOLERANCE


def test_the_past_does_not_see_the_future(tmp_path):
    model = models.load(_saved(tmp_path)[1])
    inputs = sample_inputs(model, length=11)
    before = run(model, inputs)["logits"]
    inputs["input_ids"][:, 6:] = 1 + inputs["input_ids"][:, 6:] % 40
    after = run(model, inputs)["logits"]
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-2


@pytest.mark.parametrize("biases", [False, True])
def test_padding_changes_nothing(tmp_path, biases):
    model = models.load(_saved(tmp_path, conv_bias=biases)[1])
    padded = sample_inputs(model, length=11, padding="left")
    logits = run(model, padded)["logits"]
    alone = {name: value[2:, 6:] for name, value in padded.items()}
    wanted = run(model, alone)["logits"]
    # Other lengths are added up in another order.
    np.testing.assert_allclose(logits[2:, 6:], wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["hybrid", "streaming"])
def test_greedy_tokens_equal_those_of_transformers(tmp_path, kind):
    reference, directory = _saved(tmp_path, **KINDS[kind])
    model = models.load(directory)
    for length in (1, 13):
        inputs = sample_inputs(model, length=length, padding="left" if length > 6 else None)
        ids, mask = (inputs[name].astype("int64") for name in ("input_ids", "attention_mask"))
        settings = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False}
        # The cache of transformers wants a layer with attention.
        theirs = reference.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            use_cache=kind == "hybrid",
            **settings,
        )
        ours = keras_seqattn.generate(model, ids, mask, **settings)
        np.testing.assert_array_equal(ours, theirs[:, length:].numpy())


@pytest.mark.parametrize("kinds", [["conv", "attention"], ["conv"]], ids=str)
def test_kinds_that_are_not_implemented(kinds):
    with pytest.raises(ConfigError, match="layer_types must name 2 layers"):
        models.build("lfm2", **(SIZES | {"num_hidden_layers": 2, "layer_types": kinds}))
