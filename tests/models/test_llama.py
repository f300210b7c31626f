import json

import keras
import numpy as np
import pytest
from transformers import LlamaConfig

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
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROPE = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 4.0},
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 500.0,
        "factor": 4.0,
        "beta_fast": 4.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 16,
    },
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 500.0,
        "short_factor": [1.0, 1.1, 1.3, 1.7, 2.1],
        "long_factor": [1.0, 2.0, 3.0, 5.0, 7.0],
        "original_max_position_embeddings": 16,
    },
}


def _saved(directory, architecture="LlamaForCausalLM", **changes):
    reference = make_reference(architecture, LlamaConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize("groups", [6, 3, 1], ids=["mha", "gqa", "mqa"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
def test_parity_and_round_trip(tmp_path, groups, tied, biases):
    reference, directory = _saved(
        tmp_path / "a",
        num_key_value_heads=groups,
        tie_word_embeddings=tied,
        attention_bias=biases,
        mlp_bias=biases,
    )
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("llama", "causal_lm")
    check_round_trip(model, reference, tmp_path / "b")


@pytest.mark.parametrize("architecture", ["LlamaModel", "LlamaForSequenceClassification"])
def test_other_tasks(tmp_path, architecture):
    reference, directory = _saved(tmp_path / "a", architecture, num_labels=5)
    model = check_parity(reference, directory)
    check_round_trip(model, reference, tmp_path / "b")


def test_the_head_size_may_follow_from_the_width(tmp_path):
    reference, directory = _saved(tmp_path, head_dim=None, hidden_size=36)
    save_reference(reference, directory, head_dim=None)
    check_parity(reference, directory)


@pytest.mark.parametrize("kind", ROPE)
def test_rope_types(tmp_path, kind):
    reference, directory = _saved(tmp_path / "a", rope_parameters=ROPE[kind])
    model = check_parity(reference, directory)
    check_round_trip(model, reference, tmp_path / "b")


@pytest.mark.parametrize(
    ("kind", "length"), [("dynamic", 83), ("yarn", 53), ("llama3", 53), ("longrope", 53)]
)
def test_rope_types_beyond_the_original_length(tmp_path, kind, length):
    """The dynamic type changes beyond max_position_embeddings, which is 64."""
    reference, directory = _saved(tmp_path, rope_parameters=ROPE[kind])
    assert parity_error(reference, directory, length) < TOLERANCE


def test_the_older_spelling_of_rope_settings(tmp_path):
    reference, directory = _saved(tmp_path, rope_parameters=ROPE["llama3"])
    scaling = {key: value for key, value in ROPE["llama3"].items() if key != "rope_theta"}
    scaling["type"] = scaling.pop("rope_type")
    save_reference(
        reference, directory, rope_parameters=None, rope_theta=500.0, rope_scaling=scaling
    )
    check_parity(reference, directory)


@pytest.mark.parametrize(
    "change",
    [
        {"rms_norm_eps": 0.3},
        {"hidden_act": "gelu"},
        {"rope_parameters": ROPE["default"] | {"rope_theta": 400.0}},
        {"rope_parameters": ROPE["linear"]},
    ],
    ids=["epsilon", "activation", "rope base", "rope scaling"],
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path, rope_parameters=ROPE["default"])
    save_reference(reference, directory, **change)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_the_future_does_not_reach_the_past(tmp_path):
    _, directory = _saved(tmp_path)
    model = models.load(directory)
    inputs = sample_inputs(model)
    before = run(model, inputs)["logits"]
    inputs["input_ids"][:, 7:] = (inputs["input_ids"][:, 7:] + 1) % 41
    after = run(model, inputs)["logits"]
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert np.abs(before[:, 7:] - after[:, 7:]).max() > 1e-2


def test_tokens_behind_padding_change_nothing(tmp_path):
    _, directory = _saved(tmp_path)
    model = models.load(directory)
    inputs = sample_inputs(model, padding="left")
    mask = inputs["attention_mask"].astype(bool)
    before = run(model, inputs)["logits"]
    inputs["input_ids"] = np.where(mask, inputs["input_ids"], 17).astype("int32")
    np.testing.assert_array_equal(before[mask], run(model, inputs)["logits"][mask])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"hidden_act": "mish"}, "hidden_act='mish'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"sliding_window": 7}, "sliding_window=7"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"num_key_value_heads": 4}, "num_key_value_heads=4"),
        ({"head_dim": 7}, "head_dim=7"),
        ({"head_dim": "ten"}, "head_dim"),
        ({"attention_bias": "yes"}, "attention_bias"),
        ({"rope_theta": "big"}, "rope_theta"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_theta"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "rope_type='spiral'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "needs the number factor"),
        ({"rope_parameters": ROPE["longrope"] | {"long_factor": [1.0]}}, "needs long_factor"),
        ({"rope_parameters": ROPE["linear"] | {"twist": 2}}, "with twist"),
        ({"rope_parameters": ROPE["default"] | {"partial_rotary_factor": 0.5}}, "partial_rotary"),
    ],
)
def test_values_that_are_not_implemented_are_named(tmp_path, change, name):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=name):
        models.load(directory)


@pytest.mark.parametrize("count", [1, 3, 10**9])
def test_a_number_of_layers_that_is_not_the_weights_is_refused(tmp_path, count):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, num_hidden_layers=count)
    with pytest.raises(CheckpointError, match=f"num_hidden_layers={count}, .* have 2 layers"):
        models.load(directory)


def test_half_precision_policies_load_and_save_back(tmp_path):
    reference, directory = _saved(tmp_path / "a")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models.load(directory)
        inputs = sample_inputs(model, padding="left")
        assert model.get_layer("layers_0").compute_dtype == "bfloat16"
        logits = model(inputs)["logits"]
        ours = {"logits": keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32"))}
        models.save(model, tmp_path / "b")
    finally:
        keras.config.set_dtype_policy(policy)
    theirs = run_reference(reference, inputs)
    # bfloat16 has 8 bits; two layers amplify its rounding.
    assert relative_error(ours, theirs, inputs["attention_mask"]) < 0.1
    check_parity(reference, tmp_path / "b")


def test_saving_writes_rope_parameters_of_transformers_5(tmp_path):
    model = models.build("llama", **SIZES, rope_theta=700.0)
    models.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 700.0}
    assert not {"rope_theta", "rope_scaling"} & set(config)
    reference, _ = _saved(tmp_path / "reference")
    reference = type(reference).from_pretrained(tmp_path)
    inputs = sample_inputs(model)
    theirs = run_reference(reference, inputs)
    assert relative_error(run(model, inputs), theirs, inputs["attention_mask"]) < TOLERANCE
