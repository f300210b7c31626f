import keras
import numpy as np
import pytest
import torch
from transformers import Qwen3NextConfig

import keras_seqattn
from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
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
    "head_dim": 16,
    "intermediate_size": 29,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 11,
    "linear_value_head_dim": 7,
    "linear_conv_kernel_dim": 3,
    "num_experts": 0,
    "max_position_embeddings": 64,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 500.0,
        "partial_rotary_factor": 0.375,
    },
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _saved(directory, architecture="Qwen3NextForCausalLM", **changes):
    reference = make_reference(architecture, Qwen3NextConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("Qwen3NextForCausalLM", {}),
        ("Qwen3NextForCausalLM", {"tie_word_embeddings": True, "rope_parameters": None}),
        ("Qwen3NextModel", {"num_hidden_layers": 2, "layer_types": ["linear_attention"] * 2}),
        ("Qwen3NextForSequenceClassification", {"layer_types": None, "num_labels": 5}),
    ],
    ids=["hybrid", "tied", "streaming", "classifier"],
)
def test_parity_and_round_trip(tmp_path, architecture, changes):
    reference, directory = _saved(tmp_path / "a", architecture, **changes)
    model = check_parity(reference, directory)
    assert model.family == "qwen3_next"
    check_round_trip(model, reference, tmp_path / "b")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    reference, directory = _saved(tmp_path_factory.mktemp("model"))
    return reference, models.load(directory)


@pytest.mark.parametrize("part", ["mixer/conv/kernel", "attention/query/kernel", "norm/scale"])
def test_a_weight_that_is_turned_round_does_not_pass(saved, part):
    reference, model = saved
    inputs = sample_inputs(model)
    theirs = run_reference(reference, inputs)
    variable = next(v for v in model.weights if v.path.endswith(part))
    value = keras.ops.copy(variable.value)
    variable.assign(keras.ops.flip(value, -1))
    error = relative_error(run(model, inputs), theirs, inputs["attention_mask"])
    variable.assign(value)
    assert error > 10 * TOLERANCE


def test_the_past_does_not_see_the_future(saved):
    _, model = saved
    inputs = sample_inputs(model, length=11)
    before = run(model, inputs)["logits"]
    inputs["input_ids"][:, 6:] = 1 + inputs["input_ids"][:, 6:] % 40
    after = run(model, inputs)["logits"]
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-2


def test_padding_changes_nothing(saved):
    _, model = saved
    padded = sample_inputs(model, length=11, padding="left")
    logits = run(model, padded)["logits"]
    wanted = run(model, {name: value[2:, 6:] for name, value in padded.items()})["logits"]
    # Other lengths are added up in another order.
    np.testing.assert_allclose(logits[2:, 6:], wanted, atol=1e-4)


def test_greedy_tokens_equal_those_of_transformers(saved):
    reference, model = saved
    for length in (1, 13):
        inputs = sample_inputs(model, length=length, padding="left" if length > 6 else None)
        ids, mask = (inputs[name].astype("int64") for name in ("input_ids", "attention_mask"))
        settings = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False}
        theirs = reference.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), **settings
        )
        ours = keras_seqattn.generate(model, ids, mask, **settings)
        np.testing.assert_array_equal(ours, theirs[:, length:].numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 4, "mlp_only_layers": [0, 2]}, "layers 1 have experts"),
        ({"layer_types": ["linear_attention"]}, "layer_types must name 3 layers"),
        ({"partial_rotary_factor": 0.3}, "must rotate an even number of the head_dim=16"),
    ],
)
def test_what_is_not_implemented(changes, message):
    config = {name: value for name, value in SIZES.items() if name != "rope_parameters"}
    with pytest.raises(ConfigError, match=message):
        models.build("qwen3_next", **(config | changes))
