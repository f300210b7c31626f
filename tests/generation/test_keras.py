"""`keras_seqattn.generate` with a Keras model, on the backend of the run."""

import numpy as np
import pytest
from keras import ops

import keras_seqattn
from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, InputError

from ..helpers import randomise

VOCABULARY, EOS, PAD = 61, 5, 3


@pytest.fixture(scope="module")
def model():
    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": 22,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "max_position_embeddings": 53,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    return randomise(models.build("llama", task="causal_lm", **config), seed=4)


def greedy_by_full_passes(model, row, steps):
    """Greedy tokens without any cache: the whole sequence anew for each token."""
    ids = list(row)
    while len(ids) < len(row) + steps:
        # One length for all passes, padded behind, where a causal model does not look.
        padded = np.array([ids + [PAD] * (17 - len(ids))], "int32")
        inputs = {"input_ids": padded, "attention_mask": np.ones_like(padded)}
        logits = ops.convert_to_numpy(model(inputs, training=False)["logits"])
        ids.append(int(logits[0, len(ids) - 1].argmax()))
        if ids[-1] == EOS:
            break
    return ids[len(row) :]


def test_greedy_equals_full_passes(model):
    rows = [[7, 11, 60, 9, 23], [42], [8, 8, 30]]
    wanted = [greedy_by_full_passes(model, row, 9) for row in rows]
    assert keras_seqattn.generate(model, rows, max_new_tokens=9) == wanted
    assert keras_seqattn.generate(model, rows[0], max_new_tokens=9) == wanted[0]


def test_beams_of_a_batch_equal_those_of_single_rows(model):
    rows = [[7, 11, 60, 9, 23], [8, 8, 30]]
    settings = {"max_new_tokens": 7, "num_beams": 3, "length_penalty": 0.5}
    together = keras_seqattn.generate(model, rows, **settings)
    assert together == [keras_seqattn.generate(model, row, **settings) for row in rows]


def test_the_step_is_made_once(model):
    keras_seqattn.generate(model, [7], max_new_tokens=2)
    decoders = model._decoders
    keras_seqattn.generate(model, [7, 9], max_new_tokens=2)
    assert model._decoders is decoders


def test_the_context_is_the_model_s(model):
    with pytest.raises(InputError, match="context of 53 tokens"):
        keras_seqattn.generate(model, [7, 9], max_new_tokens=52)


def test_special_tokens_are_those_of_the_family():
    sizes = {"embedding_size": 11, "hidden_size": 13, "num_hidden_layers": 1}
    model = models.build("rnn_seq2seq", vocab_size=VOCABULARY, **sizes)
    started = keras_seqattn.generate(model, [7, 9], max_new_tokens=3, decoder_start_token_id=0)
    assert keras_seqattn.generate(model, [7, 9], max_new_tokens=3) == started


def test_other_tasks_are_refused():
    encoder = models.build(
        "bert",
        task="embedding",
        vocab_size=VOCABULARY,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=37,
        max_position_embeddings=29,
    )
    with pytest.raises(
        InputError, match="task causal_lm or seq2seq_lm, and the task of this model is emb"
    ):
        keras_seqattn.generate(encoder, [7])


@pytest.mark.parametrize("model", [None, 3, "smollm2", object()])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(InputError, match="generate needs a model of task"):
        keras_seqattn.generate(model, [7])


def test_hostile_arguments_are_refused_in_one_line():
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = models.build(
        "llama", vocab_size=VOCABULARY, intermediate_size=37, max_position_embeddings=29, **sizes
    )
    for inputs in (None, 3, [], [[]], [2**63], {"a": 1}, ["text"], np.array([1.5])):
        with pytest.raises(InputError):
            keras_seqattn.generate(model, inputs, max_new_tokens=2)
    for settings in ({"num_beams": 10**9}, {"max_new_tokens": 10**12}, {"tokenizer": 3}, {"x": 1}):
        with pytest.raises(InputError) as refused:
            keras_seqattn.generate(model, [7], **{"max_new_tokens": 2} | settings)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 700
    model.assets = {"generation_config.json": b"[1]"}
    with pytest.raises(CheckpointError, match="must hold a JSON object"):
        keras_seqattn.generate(model, [7])
