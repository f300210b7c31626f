import json

import keras
import numpy as np
import pytest
import safetensors.numpy
from transformers import MarianConfig

from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, ConfigError
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    parity_error,
    run,
    sample_inputs,
    save_reference,
)

SIZES = {
    "vocab_size": 41,
    "d_model": 30,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 5,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 29,
    "decoder_ffn_dim": 31,
    "max_position_embeddings": 37,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 40,
    "eos_token_id": 0,
    "decoder_start_token_id": 40,
    "forced_eos_token_id": 0,
}
SEPARATE = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 43}


def _saved(directory, **changes):
    reference = make_reference("MarianMTModel", MarianConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


def _change_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    "changes",
    [{}, SEPARATE, SEPARATE | {"tie_word_embeddings": False}, {"scale_embedding": False}],
    ids=["shared", "two vocabularies", "untied", "unscaled"],
)
def test_parity_and_round_trip(tmp_path, changes):
    reference, directory = _saved(tmp_path / "a", **changes)
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("marian", "seq2seq_lm")
    check_round_trip(model, reference, tmp_path / "b")


def test_saved_configuration(tmp_path):
    _, directory = _saved(tmp_path / "a")
    models.save(models.load(directory), tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["architectures"] == ["MarianMTModel"]
    assert config["is_encoder_decoder"] is True
    assert SIZES.items() <= config.items()
    assert "add_final_logits_bias" not in config


COPIES = [f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
COPIES.append("lm_head.weight")


def test_copies_of_the_shared_table_are_accepted_if_they_agree(tmp_path):
    """Which of the names of one table a file has depends on who wrote it."""
    reference, directory = _saved(tmp_path)

    def copy(tensors):
        for name in COPIES:
            tensors[name] = tensors["model.shared.weight"].copy()

    _change_tensors(directory, copy)
    assert parity_error(reference, directory) < TOLERANCE
    _change_tensors(directory, lambda tensors: tensors.pop("model.shared.weight"))
    assert parity_error(reference, directory) < TOLERANCE
    _change_tensors(directory, lambda tensors: tensors["lm_head.weight"].__setitem__((3, 5), 9))
    with pytest.raises(CheckpointError, match="different, .*: .*lm_head.weight"):
        models.load(directory)


def test_checkpoints_without_a_bias_of_the_logits(tmp_path):
    reference, directory = _saved(tmp_path / "a")
    reference.final_logits_bias.zero_()
    _change_tensors(directory, lambda tensors: tensors.pop("final_logits_bias"))
    model = models.load(directory)
    assert "final_logits_bias" not in {layer.name for layer in model.layers}
    check_round_trip(model, reference, tmp_path / "b")


def test_stored_sinusoids_are_not_read(tmp_path):
    reference, directory = _saved(tmp_path)
    name = "model.encoder.embed_positions.weight"
    table = reference.state_dict()[name].numpy()
    _change_tensors(directory, lambda tensors: tensors.__setitem__(name, table + 1))
    assert parity_error(reference, directory) < TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"activation_function": "gelu"},
        {"scale_embedding": False},
        {"encoder_attention_heads": 3},
        {"decoder_attention_heads": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_one_wrong_weight_does_not_pass(tmp_path):
    reference, directory = _saved(tmp_path)
    name = "model.decoder.layers.1.encoder_attn.k_proj.weight"
    _change_tensors(directory, lambda tensors: tensors.update({name: -tensors[name]}))
    assert parity_error(reference, directory) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"activation_function": "mish"}, "activation_function='mish'"),
        ({"normalize_before": True}, "normalize_before"),
        ({"add_final_layer_norm": True}, "add_final_layer_norm"),
        ({"normalize_embedding": True}, "normalize_embedding"),
        ({"static_position_embeddings": False}, "static_position_embeddings"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder"),
        ({"is_decoder": True}, "is_decoder"),
        ({"decoder_attention_heads": 4}, "decoder_attention_heads=4"),
        ({"eos_token_id": -1}, "eos_token_id"),
        ({"encoder_layers": 0}, "encoder_layers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_are_not_implemented_are_named(tmp_path, change, name):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=name):
        models.load(directory)


@pytest.mark.parametrize(("side", "stored"), [("encoder", 2), ("decoder", 3)])
def test_numbers_of_layers_that_are_not_the_weights_are_refused(tmp_path, side, stored):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **{f"{side}_layers": 7})
    with pytest.raises(CheckpointError, match=f"{side}_layers=7, .* have {stored} layers"):
        models.load(directory)


def test_half_precision_policies_load_and_save_back(tmp_path):
    reference, directory = _saved(tmp_path / "a")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models.load(directory)
        inputs = sample_inputs(model, padding="left")
        half = keras.ops.cast(model(inputs)["logits"], "float32")
        models.save(model, tmp_path / "b")
    finally:
        keras.config.set_dtype_policy(policy)
    caches = model.encoder_model(static=True).output
    assert {tensor.dtype for tensor in caches.values()} == {"bfloat16"}
    assert model.step_model().input["encoder_hidden_states"].dtype == "bfloat16"
    assert parity_error(reference, tmp_path / "b") < TOLERANCE
    full = run(models.load(directory), inputs)["logits"]
    # bfloat16 has 8 bits; five layers amplify its rounding.
    error = np.abs(keras.ops.convert_to_numpy(half) - full).max() / np.abs(full).max()
    assert error < 0.15
