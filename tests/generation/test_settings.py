"""Settings: where they come from, what is refused and what the message names."""

import dataclasses

import pytest
from transformers import GenerationConfig as Reference

from keras_seqattn.errors import InputError
from keras_seqattn.generation import GenerationConfig
from keras_seqattn.generation.checkpoint import checkpoint_defaults

pytestmark = pytest.mark.backend_free


def test_overrides_win_over_the_file():
    file = {"temperature": 0.6, "do_sample": True, "eos_token_id": [2, 9], "top_p": None}
    config = GenerationConfig.from_settings(file, temperature=0.3, top_k=None)
    assert (config.temperature, config.do_sample, config.top_k) == (0.3, True, 50)
    assert (config.eos_token_id, config.top_p) == ((2, 9), 1.0)


def test_defaults_are_those_of_transformers():
    defaults = Reference._get_default_generation_params()
    for field in dataclasses.fields(GenerationConfig):
        if field.name in defaults and field.name != "max_length":
            assert field.default == defaults[field.name], field.name


def test_a_file_that_transformers_writes_is_accepted(tmp_path):
    Reference(eos_token_id=2, max_length=64, do_sample=True, top_k=7).save_pretrained(tmp_path)
    import json

    file = json.loads((tmp_path / "generation_config.json").read_text())
    config = GenerationConfig.from_settings(file)
    assert (config.max_length, config.top_k, config.eos_token_id) == (64, 7, (2,))


def test_a_file_with_every_name_that_transformers_knows_is_accepted():
    """Written whole, it holds null for all that is not set; version 4 wrote the defaults."""
    import json

    whole = json.loads(Reference(eos_token_id=2, top_k=7).to_json_string(use_diff=False))
    older = Reference._get_default_generation_params()
    empty = {"suppress_tokens": [], "generation_kwargs": {}, "made_up": None}
    for file in (whole, older, older | empty | {"is_assistant": False, "disable_compile": False}):
        assert GenerationConfig.from_settings(file | {"top_k": 7}).top_k == 7


def test_a_file_that_asks_for_more_is_refused():
    file = {"typical_p": 0.9, "suppress_tokens": [1], "epsilon_cutoff": 0.0, "made_up": 3}
    with pytest.raises(InputError, match=r"made_up=3, suppress_tokens=\[1\], typical_p=0.9"):
        GenerationConfig.from_settings(file)


def test_settings_of_the_file_that_are_unused_are_fine():
    GenerationConfig.from_settings({"temperature": 0.6, "length_penalty": 2.0}, do_sample=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tempreature": 1, "topk": 2}, "unknown generation settings: tempreature, topk; known"),
        ({"temperature": 0.7}, "temperature would have no effect without do_sample=True"),
        ({"top_p": 0.7, "min_p": 0.1}, "min_p, top_p would have no effect without do_sample"),
        ({"length_penalty": 2.0}, "length_penalty would have no effect without num_beams"),
        ({"early_stopping": True, "num_beams": 1}, "early_stopping would have no effect"),
        ({"max_new_tokens": 3, "max_length": 9}, "contradict"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens=4 is more than"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 is not valid: it must be an integer of at least"),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5"),
        ({"max_new_tokens": True}, "max_new_tokens=True"),
        ({"do_sample": 1}, "do_sample=1"),
        ({"do_sample": True, "temperature": 0.0}, r"above 0 \(greedy is do_sample=False\)"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature=nan"),
        ({"do_sample": True, "top_p": 1.1}, "top_p=1.1 is not valid: it must be between 0 and 1"),
        ({"do_sample": True, "min_p": -0.1}, "min_p=-0.1"),
        ({"do_sample": True, "top_k": -1}, "top_k=-1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"num_beams": 0}, "num_beams=0"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping='always'"),
        ({"num_beams": 2, "length_penalty": float("inf")}, "length_penalty=inf"),
        ({"seed": -1}, "seed=-1"),
        ({"min_length": 3, "min_new_tokens": 4}, "min_new_tokens and min_length contradict"),
        ({"min_length": 9, "max_length": 8}, "min_length=9 is more than max_length=8"),
        ({"min_length": -1}, "min_length=-1"),
        ({"bad_words_ids": [[]]}, "bad_words_ids"),
        ({"bad_words_ids": [["a"]]}, "sequences of token ids, none empty"),
        ({"bad_words_ids": 1.5}, "bad_words_ids"),
        ({"encoder_no_repeat_ngram_size": -1}, "encoder_no_repeat_ngram_size=-1"),
        ({"renormalize_logits": 1}, "renormalize_logits=1"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id=-1"),
        ({"forced_bos_token_id": [3]}, "forced_bos_token_id="),
        ({"forced_eos_token_id": [3, "x"]}, "forced_eos_token_id="),
        ({"stop_strings": ["a", ""]}, "stop_strings"),
        ({"stop_strings": [3]}, "stop_strings"),
        ({"eos_token_id": -2}, "eos_token_id"),
        ({"pad_token_id": "x"}, "pad_token_id='x'"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        GenerationConfig.from_settings({}, **settings)


def test_neutral_sampling_settings_are_no_contradiction():
    GenerationConfig.from_settings({}, temperature=1.0, top_p=1.0, length_penalty=1.0)


def test_one_stop_string_and_one_eos_need_no_list():
    config = GenerationConfig(stop_strings="ab", eos_token_id=4)
    assert (config.stop_strings, config.eos_token_id) == (("ab",), (4,))


def test_new_tokens_win_over_whole_lengths():
    file = {"min_length": 56, "max_length": 142, "min_new_tokens": 3}
    config = GenerationConfig.from_settings(file, max_new_tokens=20)
    assert (config.min_length, config.max_length, config.max_new_tokens) == (0, None, 20)
    # What the call says wins over the file, whichever of the two it names.
    config = GenerationConfig.from_settings(file, min_length=7, max_length=9)
    assert (config.min_length, config.min_new_tokens, config.max_length) == (7, 0, 9)
    assert GenerationConfig.from_settings({"min_length": 56}, min_new_tokens=0).min_length == 0


def test_a_file_of_marian_is_accepted():
    file = {
        "bad_words_ids": [[58100]],
        "decoder_start_token_id": 58100,
        "forced_eos_token_id": 0,
        "renormalize_logits": True,
    }
    config = GenerationConfig.from_settings(file)
    assert (config.bad_words_ids, config.forced_eos_token_id) == (((58100,),), (0,))


def test_padding_is_the_first_eos_unless_set():
    assert GenerationConfig(eos_token_id=[4, 6]).padding == 4
    assert GenerationConfig(eos_token_id=[4, 6], pad_token_id=0).padding == 0
    assert GenerationConfig().padding == 0


def test_checkpoint_defaults():
    config = {"eos_token_id": 2, "pad_token_id": 7, "hidden_size": 64, "decoder_start_token_id": 5}
    config |= {"num_beams": 4, "forced_bos_token_id": None}
    file = {"eos_token_id": [2, 3], "top_k": 4}
    tokens = {"pad_token_id": 7, "decoder_start_token_id": 5}
    assert checkpoint_defaults(config, file) == {**file, **tokens}
    # Older checkpoints keep their settings in config.json.
    assert checkpoint_defaults(config, {}) == {"eos_token_id": 2, "num_beams": 4, **tokens}


def test_a_token_id_of_minus_one_is_none():
    """The files of the first LLaMA have it, and no such token can pad a row."""
    config = {"eos_token_id": 2, "pad_token_id": -1}
    assert checkpoint_defaults(config, {}) == {"eos_token_id": 2}
    assert checkpoint_defaults(config, {"pad_token_id": -1, "top_k": 5}) == {
        "eos_token_id": 2,
        "top_k": 5,
    }
    assert checkpoint_defaults({"pad_token_id": 3}, {"pad_token_id": -1}) == {"pad_token_id": 3}
