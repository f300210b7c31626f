"""LED against transformers: an encoder with windows and global tokens, BART's decoder."""

import numpy as np
import pytest
import safetensors.numpy
from transformers import LEDConfig

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    parity_error,
    run_reference,
    sample_inputs,
    save_reference,
)
from tests.models.test_encoder_decoders import stepped

SIZES = {
    "vocab_size": 41,
    "d_model": 30,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 5,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 29,
    "decoder_ffn_dim": 31,
    "max_encoder_position_embeddings": 53,
    "max_decoder_position_embeddings": 19,
    "attention_window": [4, 8],
}


def _saved(directory, **changes):
    reference = make_reference("LEDForConditionalGeneration", LEDConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


def test_parity_and_round_trip(tmp_path):
    reference, directory = _saved(tmp_path / "a")
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("led", "seq2seq_lm")
    check_round_trip(model, reference, tmp_path / "b")


def test_steps_agree_with_transformers(tmp_path):
    reference, directory = _saved(tmp_path)
    model = models.load(directory)
    targets = np.random.default_rng(1).integers(1, 41, (3, 7)).astype("int32")
    inputs = sample_inputs(model, length=29, padding="left")
    inputs["decoder_input_ids"] = targets
    expected = run_reference(reference, inputs)["logits"]
    error = np.abs(stepped(model, inputs, static=False) - expected).max()
    assert error / np.abs(expected).max() < TOLERANCE


def test_each_side_has_its_own_positions(tmp_path):
    model = models.load(_saved(tmp_path)[1])
    for side, length in (("encoder", 53), ("decoder", 19)):
        layer = model.get_layer(f"{side}_positions")
        assert (layer.offset, tuple(layer.embeddings.shape)) == (0, (length, 30))
    assert "max_position_embeddings" not in model.config


@pytest.mark.parametrize(
    "change",
    [{"attention_window": [4, 4]}, {"attention_window": [10, 8]}],
    ids=["second window", "first window"],
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_one_wrong_global_projection_does_not_pass(tmp_path):
    reference, directory = _saved(tmp_path)
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    key = "led.encoder.layers.0.self_attn.longformer_self_attn.value_global.weight"
    tensors[key] = -tensors[key]
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    assert parity_error(reference, directory) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_window": [4, 5]}, "attention_window must be an even number"),
        ({"max_encoder_position_embeddings": 0}, "max_encoder_position_embeddings"),
        ({"normalize_before": True}, "normalize_before"),
    ],
    ids=str,
)
def test_values_that_are_not_implemented_are_named(tmp_path, change, message):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=message):
        models.load(directory)
