import json

import keras
import numpy as np
import pytest
import torch
from transformers import XLNetConfig

import keras_seqattn
from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from keras_seqattn.models.compiled import compiled
from tests.helpers import randomise
from tests.models.reference import (
    TOLERANCE,
    make_reference,
    relative_error,
    run,
    sample_inputs,
    save_reference,
)

SIZES = {
    "vocab_size": 41,
    "d_model": 42,
    "n_layer": 2,
    "n_head": 6,
    "d_inner": 29,
    "mem_len": 7,
    "dropout": 0.0,
}
UNI = SIZES | {
    "attn_type": "uni",
    "ff_activation": "relu",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
UNUSED = ("mask_emb", "r_s_bias", "seg_embed")


def _saved(directory, architecture="XLNetLMHeadModel", **changes):
    reference = make_reference(architecture, XLNetConfig(**(UNI | changes)))
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            # Of orders of prediction and token types, which nothing here has.
            if name.endswith(UNUSED):
                parameter.zero_()
    return reference, save_reference(reference, directory)


def _run_reference(reference, inputs, **more):
    """Row by row: with a mask, transformers takes no batch of XLNets that read to the right."""
    outputs = []
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        call = {"input_ids": torch.tensor(ids[None]).long()}
        call["attention_mask"] = torch.tensor(mask[None]).float()
        with torch.no_grad():
            outputs.append(reference(**call, use_mems=False, **more)[0].numpy())
    return np.concatenate(outputs)


def _error(model, reference, inputs):
    ours = run(model, inputs)
    theirs = dict.fromkeys(ours, _run_reference(reference, inputs))
    return relative_error(ours, theirs, inputs["attention_mask"])


@pytest.mark.parametrize("changes", [{}, {"clamp_len": 4, "tie_word_embeddings": False}])
def test_parity_and_round_trip(tmp_path, changes):
    reference, directory = _saved(tmp_path / "a", **changes)
    model = models.load(directory)
    assert (model.family, model.task) == ("xlnet", "causal_lm")
    for length, padding in ((1, None), (11, None), (11, "left"), (11, "right")):
        inputs = sample_inputs(model, length=length, padding=padding)
        assert _error(model, reference, inputs) < TOLERANCE, (length, padding)
    _check_round_trip(model, reference, tmp_path / "b")


def _check_round_trip(model, reference, directory):
    models.save(model, directory)
    again, info = type(reference).from_pretrained(directory, output_loading_info=True)
    assert not any(info.values())
    for name, value in reference.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), value.numpy(), err_msg=name)
    assert again.config.attn_type == "uni"


def test_hidden_states(tmp_path):
    reference, directory = _saved(tmp_path / "a", "XLNetModel", ff_activation="gelu")
    model = models.load(directory)
    assert model.task == "embedding"
    assert _error(model, reference, sample_inputs(model, padding="left")) < TOLERANCE
    _check_round_trip(model, reference, tmp_path / "b")


def _segments(model, lengths, batch=2):
    """The ids of each segment, and our logits with the memory of those before it."""
    step = model.step_model()
    take_step = compiled(step)
    past = {
        name: keras.ops.zeros((batch, *x.shape[1:]), x.dtype)
        for name, x in step.input.items()
        if name.startswith("past_states.")
    }
    assert past["past_states.1.memory"].shape == (batch, model.config["mem_len"], 42)
    ids = np.random.default_rng(0).integers(1, 41, (batch, sum(lengths))).astype("int32")
    for part in np.split(ids, np.cumsum(lengths)[:-1], axis=1):
        fed = {"input_ids": part, "attention_mask": np.ones_like(part)}
        fed = {name: keras.ops.convert_to_tensor(value) for name, value in fed.items()}
        outputs = take_step({}, fed | past)
        past = {name: outputs[name.replace("past", "present")] for name in past}
        yield part, keras.ops.convert_to_numpy(outputs["logits"])


def test_segments_and_their_memory(tmp_path):
    """Shorter and longer than the memory, and of one token."""
    reference, directory = _saved(tmp_path)
    memory = None
    for ids, ours in _segments(models.load(directory), (5, 9, 1, 1, 5)):
        with torch.no_grad():
            theirs = reference(torch.tensor(ids).long(), mems=memory, use_mems=True)
        memory, expected = theirs.mems, theirs.logits.numpy()
        assert memory[0].shape[0] <= 7
        assert np.abs(ours - expected).max() / np.abs(expected).max() < TOLERANCE


def _transfo_xl(**changes):
    """A model with the reference's weights, whose token vectors are those times sqrt(42)."""
    return models.build("transfo_xl", **(SIZES | {"layer_norm_epsilon": 1e-12} | changes))


def test_transfo_xl_through_xlnet(tmp_path):
    reference, directory = _saved(tmp_path, clamp_len=5)
    weights = models.load(directory)
    model = _transfo_xl(clamp_len=5, same_length=False, d_head=7)
    assert [v.path for v in model.weights] == [v.path for v in weights.weights]
    model.set_weights(weights.get_weights())
    inputs = sample_inputs(model, padding="left")
    for row in range(3):
        ids, mask = (inputs[name][row : row + 1] for name in ("input_ids", "attention_mask"))
        with torch.no_grad():
            vectors = reference.transformer.word_embedding(torch.tensor(ids).long()) * 42**0.5
            call = {"inputs_embeds": vectors, "attention_mask": torch.tensor(mask).float()}
            theirs = {"logits": reference(**call, use_mems=False)[0].numpy()}
        ours = run(model, {"input_ids": ids, "attention_mask": mask})
        assert relative_error(ours, theirs, mask) < TOLERANCE


@pytest.mark.parametrize("settings", [{"same_length": True}, {"mem_len": 23}])
def test_segments_equal_one_pass(settings):
    model = randomise(_transfo_xl(**{"same_length": False} | settings, d_head=5), seed=3)
    parts = list(_segments(model, (5, 9, 1, 5, 3)))
    ids = np.concatenate([ids for ids, _ in parts], axis=1)
    stepped = np.concatenate([logits for _, logits in parts], axis=1)
    full = run(model, {"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
    # Float32 rounding, of logits up to about ten.
    np.testing.assert_allclose(stepped, full, rtol=0, atol=1e-4)


def test_generation_has_no_end_and_equals_full_passes():
    model = randomise(_transfo_xl(d_head=5, pre_lnorm=True), seed=3)
    prompt = [7, 11, 30, 9, 23, 2, 14, 31, 8, 19, 5]
    tokens = keras_seqattn.generate(model, prompt, max_new_tokens=9, eos_token_id=None)
    ids = np.array([prompt + tokens], "int32")
    logits = run(model, {"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
    assert tokens == logits[0, len(prompt) - 1 : -1].argmax(-1).tolist()


def test_saving_and_loading_transfo_xl(tmp_path):
    model = randomise(_transfo_xl(d_head=5, tie_word_embeddings=False), seed=3)
    models.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["mem_len"]) == ("transfo_xl", 7)
    again, inputs = models.load(tmp_path), sample_inputs(model)
    np.testing.assert_array_equal(run(again, inputs)["logits"], run(model, inputs)["logits"])


def test_the_future_does_not_reach_the_past():
    model = randomise(_transfo_xl(d_head=5), seed=3)
    inputs = sample_inputs(model, padding="left")
    before = run(model, inputs)["logits"]
    inputs["input_ids"][:, 9:] = inputs["input_ids"][:, 9:] % 40 + 1
    after = run(model, inputs)["logits"]
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    assert np.abs(before[:, 9:] - after[:, 9:]).max() > 1e-2


@pytest.mark.parametrize(
    "change",
    [{"clamp_len": 3}, {"ff_activation": "gelu"}, {"layer_norm_eps": 0.3}],
    ids=lambda change: next(iter(change)),
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    model = models.load(directory)
    assert _error(model, reference, sample_inputs(model)) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"attn_type": "bi"}, "attn_type='bi'"),
        ({"same_length": True}, "same_length=True"),
        ({"bi_data": True}, "bi_data=True"),
        ({"reuse_len": 3}, "reuse_len=3"),
        ({"mem_len": None}, "mem_len must be a whole number, 1 or more"),
        ({"d_model": 41}, "d_model=41 must be even"),
    ],
)
def test_values_that_are_not_implemented_are_named(tmp_path, change, name):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=name):
        models.load(directory)


def test_what_transformers_leaves_out_of_the_file_is_both_directions(tmp_path):
    _, directory = _saved(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    del config["attn_type"]
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="attn_type='bi'"):
        models.load(directory)


@pytest.mark.parametrize("change", [{"cutoffs": [20, 30]}, {"div_val": 4}, {"untie_r": False}])
def test_variants_of_transfo_xl_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        _transfo_xl(**change)
