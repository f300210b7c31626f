"""BigBird-Pegasus against transformers, its encoder sparse or not."""

import numpy as np
import pytest
from transformers import BigBirdPegasusConfig

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from keras_seqattn.models.decoding import KerasEncoderDecoder
from tests.helpers import to_numpy
from tests.models.reference import (
    TOLERANCE,
    check_round_trip,
    make_reference,
    relative_error,
    run,
    run_reference,
    sample_inputs,
    save_reference,
)
from tests.models.test_encoder_decoders import stepped

# Up to 21 tokens transformers attends to everything.
SIZES = {
    "vocab_size": 41,
    "d_model": 30,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 23,
    "decoder_ffn_dim": 19,
    "max_position_embeddings": 59,
    "block_size": 3,
    "num_random_blocks": 1,
}


def _saved(directory, **changes):
    config = BigBirdPegasusConfig(**(SIZES | changes))
    reference = make_reference("BigBirdPegasusForConditionalGeneration", config)
    return reference, save_reference(reference, directory)


def _expected(reference, inputs):
    # One short input changes it for good.
    reference.model.encoder.set_attention_type(reference.config.attention_type)
    return run_reference(reference, inputs)


def _errors(reference, directory, cases):
    model = models.load(directory)
    for length, padding in cases:
        inputs = sample_inputs(model, length=length, padding=padding)
        ours, theirs = run(model, inputs), _expected(reference, inputs)
        yield relative_error(ours, theirs, inputs["attention_mask"])


def test_parity_and_round_trip(tmp_path):
    reference, directory = _saved(tmp_path / "a")
    cases = [(1, None), (21, "right"), (53, "left")]
    assert max(_errors(reference, directory, cases)) < TOLERANCE
    model = models.load(directory)
    assert (model.family, model.task) == ("bigbird_pegasus", "seq2seq_lm")
    check_round_trip(model, reference, tmp_path / "b")


def test_settings(tmp_path):
    changes = {"attention_type": "original_full", "use_bias": True, "scale_embedding": False}
    reference, directory = _saved(tmp_path, **changes)
    assert max(_errors(reference, directory, [(29, "right")])) < TOLERANCE


@pytest.mark.parametrize(
    "change",
    [{"attention_type": "original_full"}, {"num_random_blocks": 2}, {"scale_embedding": False}],
    ids=lambda change: next(iter(change)),
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    assert next(_errors(reference, directory, [(53, None)])) > 10 * TOLERANCE


def test_steps_agree_with_transformers(tmp_path):
    reference, directory = _saved(tmp_path)
    model = models.load(directory)
    inputs = sample_inputs(model, length=29, padding="right")
    expected = _expected(reference, inputs)["logits"]
    error = np.abs(stepped(model, inputs, True) - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE


@pytest.mark.parametrize(
    "change",
    [{"attention_type": "sparse"}, {"tie_word_embeddings": False}, {"is_decoder": True}],
    ids=lambda change: next(iter(change)),
)
def test_values_that_are_not_implemented_are_named(tmp_path, change):
    _, directory = _saved(tmp_path)
    save_reference(*_saved(tmp_path), **change)
    with pytest.raises(ConfigError, match=next(iter(change))):
        models.load(directory)


def test_generation_reads_the_source_in_blocks(tmp_path):
    """Not padded to a power of two: blocks of padding would change what the others attend to."""
    _, directory = _saved(tmp_path)
    model = models.load(directory)
    inputs = sample_inputs(model, length=29, padding="right")
    decoder = KerasEncoderDecoder(model)
    decoder.encode(inputs["input_ids"], inputs["attention_mask"])
    tokens = inputs["decoder_input_ids"]
    decoder.start(*tokens.shape)
    actual = to_numpy(decoder(tokens, np.ones_like(tokens)))
    expected = to_numpy(model(inputs, training=False)["logits"])[:, -1]
    assert np.abs(actual - expected).max() < TOLERANCE * np.abs(expected).max()
