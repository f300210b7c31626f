"""Each family by Keras, by the runtime's bundle, and by transformers: the same tokens."""

import functools

import numpy as np
import pytest
import torch
import transformers
from keras import ops

import keras_seqattn
from keras_seqattn import models, onnx, runtime
from keras_seqattn.errors import InputError
from keras_seqattn.models.compiled import compiled

from ..helpers import randomise
from .transformers_decoders import EOS, PAD, START, padded, randomised

VOCABULARY = 53
TOKENS = {"eos_token_id": EOS, "pad_token_id": PAD, "decoder_start_token_id": START}
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 18,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 23,
    "decoder_ffn_dim": 29,
    "max_position_embeddings": 41,
    "bos_token_id": None,
    "forced_eos_token_id": None,
    **TOKENS,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 18,
    "d_kv": 5,
    "d_ff": 29,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    **TOKENS,
}
LED = {name: value for name, value in BART.items() if name != "max_position_embeddings"} | {
    "max_encoder_position_embeddings": 41,
    "max_decoder_position_embeddings": 29,
    "attention_window": 4,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAMILIES = {
    "marian": ("MarianMTModel", "MarianConfig", BART),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
    "led": ("LEDForConditionalGeneration", "LEDConfig", LED),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5 v1.1": ("T5ForConditionalGeneration", "T5Config", {**T5, **GATED}),
}
# Without it such models repeat one token.
DIVERSE = {"no_repeat_ngram_size": 2, "max_new_tokens": 12}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """transformers' model, ours with the same weights, and its bundle."""
    name, config, settings = FAMILIES[request.param]
    reference = getattr(transformers, name)(getattr(transformers, config)(**settings))
    path = tmp_path_factory.mktemp("seq2seq")
    randomised(reference).save_pretrained(path)
    model = models.load(path)
    onnx.export(model, path / "bundle", verify=False)
    return reference, model, runtime.load(path / "bundle", threads=1)


@pytest.fixture(scope="module")
def sources():
    rng = np.random.default_rng(7)
    return [rng.integers(6, VOCABULARY, size=n).tolist() for n in (11, 1, 6)]


BEAMS = {"num_beams": 4, "length_penalty": 1.3, "min_length": 4}


@pytest.mark.parametrize("settings", [{}, BEAMS], ids=["greedy", "beam 4"])
def test_tokens_equal_transformers(family, sources, settings):
    reference, model, bundle = family
    ids, mask = padded(sources)
    settings = {**DIVERSE, **settings}
    masks = {"attention_mask": mask}
    if "global_attention_mask" in model.input:
        masks["global_attention_mask"] = np.eye(mask.shape[1], dtype="int64")[mask.argmax(1)]
    masks = {name: torch.tensor(x) for name, x in masks.items()}
    wanted = reference.generate(torch.tensor(ids), **masks, **settings).numpy()[:, 1:]
    assert len({tuple(row) for row in wanted.tolist()}) == len(sources)
    np.testing.assert_array_equal(keras_seqattn.generate(model, ids, mask, **settings), wanted)
    np.testing.assert_array_equal(bundle.generate(ids, mask, **settings), wanted)
    # Nothing of an earlier call is left.
    np.testing.assert_array_equal(bundle.generate(ids, mask, **settings), wanted)


RECURRENT = {"embedding_size": 11, "hidden_size": 13}
OURS = {
    "transformer": {name: value for name, value in BART.items() if not name.startswith("forced")},
    "rnn_seq2seq": {**RECURRENT, "num_hidden_layers": 2},
    "bahdanau": {**RECURRENT, "attention_size": 7, "maxout_size": 17},
}


@pytest.fixture(scope="module", params=OURS)
def own(request, tmp_path_factory):
    """A model of one of our own families, and its bundle."""
    settings = {"vocab_size": VOCABULARY, **TOKENS, **OURS[request.param]}
    model = randomise(models.build(request.param, **settings), seed=4)
    path = tmp_path_factory.mktemp("own") / "bundle"
    onnx.export(model, path, verify=False)
    return model, runtime.load(path, threads=1)


def greedy_by_full_passes(model, ids, mask, steps):
    """Greedy tokens without any cache or state: the whole target anew for each token."""
    run = compiled(model)
    target = np.full((len(ids), steps + 1), START, "int32")
    for step in range(steps):
        # One length for all passes, with anything behind, where a decoder does not look.
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": target}
        tensors = {name: ops.convert_to_tensor(x.astype("int32")) for name, x in inputs.items()}
        logits = ops.convert_to_numpy(run({}, tensors)["logits"])
        target[:, step + 1] = logits[:, step].argmax(axis=-1)
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in target[:, 1:].tolist()]


def test_own_families(own, sources):
    model, bundle = own
    wanted = greedy_by_full_passes(model, *padded(sources), 6)
    assert keras_seqattn.generate(model, sources, max_new_tokens=6) == wanted
    assert bundle.generate(sources, max_new_tokens=6) == wanted
    settings = {**DIVERSE, **BEAMS}
    beams = keras_seqattn.generate(model, sources, **settings)
    assert len(set(map(tuple, beams))) == len(sources)
    assert bundle.generate(sources, **settings) == beams
    assert [bundle.generate(source, **settings) for source in sources] == beams


def test_inputs_are_checked(own, sources):
    model, _ = own
    if "max_position_embeddings" not in model.config:
        return
    for generate in (own[1].generate, functools.partial(keras_seqattn.generate, model)):
        with pytest.raises(InputError, match="42 tokens"):
            generate([7] * 42)
        with pytest.raises(InputError, match="context of 41 tokens"):
            generate([7], max_new_tokens=41)
        with pytest.raises(InputError, match=f"token id {VOCABULARY}"):
            generate([VOCABULARY])
