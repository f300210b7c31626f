import json

import keras
import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import T5Config

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
    "d_model": 21,
    "d_kv": 5,
    "num_heads": 3,
    "d_ff": 13,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def _saved(directory, **changes):
    reference = make_reference("T5ForConditionalGeneration", T5Config(**(SIZES | changes)))
    if not changes.get("tie_word_embeddings", True):
        # Transformers ties every new T5; a checkpoint's own matrix of logits unties it.
        generator = torch.Generator().manual_seed(7)
        matrix = 1.5 / 21**0.5 * torch.randn((41, 21), generator=generator)
        reference.lm_head.weight = torch.nn.Parameter(matrix)
    return reference, save_reference(reference, directory)


def _edit(directory, change):
    """Rewrite the saved tensors."""
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(change(tensors), path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        V1_1,
        {"feed_forward_proj": "gated-silu", "num_decoder_layers": None},
        {"feed_forward_proj": "gelu", "tie_word_embeddings": False},
    ],
    ids=["v1.0", "v1.1", "gated silu", "plain gelu"],
)
def test_parity_and_round_trip(tmp_path, changes):
    reference, directory = _saved(tmp_path / "a", **changes)
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("t5", "seq2seq_lm")
    check_round_trip(model, reference, tmp_path / "b")
    # What we write loads here too: the two say differently which logits are tied and scaled.
    assert parity_error(reference, tmp_path / "b") < TOLERANCE


@pytest.mark.parametrize("changes", [{}, V1_1], ids=["v1.0", "v1.1"])
def test_beyond_the_largest_distance(tmp_path, changes):
    reference, directory = _saved(tmp_path, **changes)
    model = models.load(directory)
    inputs = sample_inputs(model, length=37, padding="left")
    targets = np.random.default_rng(1).integers(1, 41, (3, 29))
    inputs["decoder_input_ids"] = targets.astype("int32")
    theirs = run_reference(reference, inputs)
    assert relative_error(run(model, inputs), theirs, inputs["attention_mask"]) < TOLERANCE


def test_v1_1_as_its_first_checkpoints_say_it(tmp_path):
    reference, directory = _saved(tmp_path, **V1_1)
    config = json.loads((directory / "config.json").read_text())
    assert config["tie_word_embeddings"] and not config["scale_decoder_outputs"]
    for key in ("scale_decoder_outputs", "dense_act_fn", "is_gated_act"):
        del config[key]
    (directory / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert parity_error(reference, directory) < TOLERANCE


def test_tensors_that_old_checkpoints_hold_besides(tmp_path):
    reference, directory = _saved(tmp_path)
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    _edit(
        directory,
        lambda tensors: (
            tensors
            | {name: tensors["shared.weight"].copy() for name in copies}
            | {unused: np.ones((8, 3), "float32")}
        ),
    )
    assert parity_error(reference, directory) < TOLERANCE


def test_a_tied_matrix_of_logits_that_differs_is_refused(tmp_path):
    _, directory = _saved(tmp_path)
    _edit(directory, lambda tensors: tensors | {"lm_head.weight": tensors["shared.weight"] + 1})
    with pytest.raises(CheckpointError, match="lm_head.weight"):
        models.load(directory)


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm_epsilon": 0.3},
        {"dense_act_fn": "silu"},
        {"relative_attention_max_distance": 7},
        {"scale_decoder_outputs": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_swapped_position_biases_do_not_pass(tmp_path):
    reference, directory = _saved(tmp_path)
    one, other = f"encoder.{BIAS}", f"decoder.{BIAS}"
    _edit(directory, lambda tensors: tensors | {one: tensors[other], other: tensors[one]})
    assert parity_error(reference, directory) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"feed_forward_proj": "mish", "dense_act_fn": None}, "feed_forward_proj='mish'"),
        ({"feed_forward_proj": "plain-relu"}, "feed_forward_proj='plain-relu'"),
        ({"feed_forward_proj": 3}, "feed_forward_proj"),
        ({"dense_act_fn": "mish"}, "dense_act_fn='mish'"),
        ({"is_gated_act": "yes"}, "is_gated_act"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False"),
        ({"relative_attention_num_buckets": 3}, "3 buckets up to distance 11"),
        ({"relative_attention_max_distance": 2}, "8 buckets up to distance 2"),
        ({"d_kv": 0}, "d_kv"),
        ({"scale_decoder_outputs": 0.5}, "scale_decoder_outputs"),
    ],
)
def test_values_that_are_not_implemented_are_named(tmp_path, change, name):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=name):
        models.load(directory)


@pytest.mark.parametrize("key, count", [("num_layers", 3), ("num_decoder_layers", 2)])
def test_a_number_of_layers_that_is_not_the_weights_is_refused(tmp_path, key, count):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **{key: count})
    with pytest.raises(CheckpointError, match=f"{key}={count}, .* have {5 - count} layers"):
        models.load(directory)


def test_a_feed_forward_of_the_other_kind_is_refused(tmp_path):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, is_gated_act=True)
    with pytest.raises(CheckpointError, match="wi_0.weight"):
        models.load(directory)


def test_building_by_keras_names():
    model = models.build(
        "t5",
        hidden_dim=21,
        num_heads=3,
        head_dim=5,
        num_layers=2,
        intermediate_dim=13,
        vocabulary_size=41,
        activation="gated-gelu",
    )
    paths = {v.path for v in model.variables}
    assert "decoder_layers_1/feed_forward/gate/kernel" in paths
    assert not any(path.endswith("/bias") for path in paths)
    assert np.isfinite(run(model, sample_inputs(model))["logits"]).all()


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_training_drops_out_what_leaves_a_stack(side):
    model = models.build("t5", **SIZES, dropout_rate=0.5)
    hidden = keras.Model(model.input, model.get_layer(f"{side}_final_dropout").output)
    trained = keras.ops.convert_to_numpy(hidden(sample_inputs(model), training=True))
    # Half of 3 * 11 * 21 values, give or take six standard deviations.
    assert 0.38 < (trained == 0).mean() < 0.62
