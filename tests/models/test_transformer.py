"""Against Marian and Pegasus of transformers, once they have the sinusoids of the paper."""

import keras
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    make_reference,
    parity_error,
    run,
    sample_inputs,
    save_reference,
)
from tests.models.test_marian import SIZES as MARIAN_SIZES

SIZES = MARIAN_SIZES | {"activation_function": "relu"}
REFERENCES = {
    "post-norm": ("MarianMTModel", transformers.MarianConfig),
    "pre-norm": ("PegasusForConditionalGeneration", transformers.PegasusConfig),
}
SMALL = {
    "vocabulary_size": 41,
    "hidden_dim": 24,
    "num_heads": 4,
    "num_layers": 2,
    "intermediate_dim": 29,
    "max_sequence_length": 37,
}


def _saved(directory, kind="post-norm", **changes):
    """A reference as a checkpoint of ours: with interleaved sinusoids, no bias of the logits."""
    architecture, config = REFERENCES[kind]
    reference = make_reference(architecture, config(**SIZES))
    reference.final_logits_bias.zero_()
    with torch.no_grad():
        for stack in (reference.model.encoder, reference.model.decoder):
            table = stack.embed_positions.weight
            for p, j in np.ndindex(*table.shape):
                angle = p / 10000 ** (2 * (j // 2) / table.shape[1])
                table[p, j] = np.cos(angle) if j % 2 else np.sin(angle)
    ours = {
        "model_type": "transformer",
        "architectures": None,
        # That of torch, which the references leave as it is.
        "layer_norm_eps": 1e-5,
        "normalize_before": kind == "pre-norm",
    }
    save_reference(reference, directory, **(ours | changes))
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    del tensors["final_logits_bias"]
    safetensors.numpy.save_file(tensors, path)
    return reference, directory


@pytest.mark.parametrize("kind", REFERENCES)
def test_parity_and_round_trip(tmp_path, kind):
    reference, directory = _saved(tmp_path / "a", kind)
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("transformer", "seq2seq_lm")
    models.save(model, tmp_path / "b")
    assert parity_error(reference, tmp_path / "b") < TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm_eps": 0.3},
        {"activation_function": "gelu"},
        {"scale_embedding": False},
        {"encoder_attention_heads": 3},
        {"decoder_attention_heads": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path, **change)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_an_untied_matrix_of_logits(tmp_path):
    model = models.build("transformer", **SMALL, tie_word_embeddings=False)
    paths = [v.path for v in model.variables]
    assert "token_embedding/reverse_embeddings" in paths
    models.save(model, tmp_path)
    inputs = sample_inputs(model)
    again = run(models.load(tmp_path), inputs)["logits"]
    np.testing.assert_array_equal(again, run(model, inputs)["logits"])


def test_the_base_model_of_the_paper():
    """63 million parameters with six layers and 37000 tokens in one table; the paper says 65."""
    model = models.build("transformer", num_layers=1, vocabulary_size=41)
    attention, feed_forward = 4 * (512 + 1) * 512, 2 * 512 * 2048 + 2048 + 512
    encoder = attention + feed_forward + 2 * 2 * 512
    decoder = 2 * attention + feed_forward + 3 * 2 * 512
    assert model.count_params() == 41 * 512 + encoder + decoder
    assert round((37000 * 512 + 6 * (encoder + decoder)) / 1e6) == 63


def test_initial_logits_are_small():
    """The embedding's deviation keeps tied logits near one, so that training starts near log(v)."""
    model = models.build("transformer", **(SMALL | {"vocabulary_size": 997}))
    logits = run(model, sample_inputs(model))["logits"]
    assert 0.3 < logits.std() < 3.0


def test_training_learns_to_copy():
    model = models.build("transformer", **(SMALL | {"num_layers": 1}), dropout=0.0)
    rng = np.random.default_rng(0)
    source = rng.integers(2, 41, (64, 5)).astype("int32")
    inputs = {
        "input_ids": source,
        "attention_mask": np.ones_like(source),
        "decoder_input_ids": np.pad(source[:, :-1], ((0, 0), (1, 0))),
    }
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), {"logits": loss})
    history = model.fit(inputs, {"logits": source}, epochs=4, batch_size=16, verbose=0)
    assert history.history["loss"][-1] < 0.9 * history.history["loss"][0]


def test_names_of_settings():
    model = models.build("transformer", **SMALL, normalize_first=True, activation="silu")
    expected = {
        "d_model": 24,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 29,
        "decoder_ffn_dim": 29,
        "max_position_embeddings": 37,
        "normalize_before": True,
        "activation_function": "silu",
    }
    assert expected.items() <= model.config.items()
    assert "encoder_norm" in {layer.name for layer in model.layers}
    with pytest.raises(ConfigError, match="'decoder_layers' is given twice"):
        models.build("transformer", num_layers=2, decoder_layers=3)
    with pytest.raises(ConfigError, match="hidden_dims"):
        models.build("transformer", hidden_dims=24)


@pytest.mark.parametrize("static", [False, True], ids=["growing", "static"])
def test_steps_share_their_weights_with_the_model(static):
    model = models.build("transformer", **SMALL)
    encoder, step = model.encoder_model(static), model.step_model(static)
    whole = {id(v) for v in model.weights}
    parts = [{id(v) for v in part.weights} for part in (encoder, step)]
    assert parts[0] | parts[1] == whole
    sides = ("decoder", "encoder")
    caches = [
        f"past_key_values.{index}.{side}.{part}"
        for index in range(2)
        for side in sides
        for part in ("key", "value")
    ]
    presents = [name.replace("past_key_values", "present") for name in caches]
    first = ["encoder_attention_mask", "input_ids"]
    if static:
        assert list(encoder.output) == [name for name in presents if "encoder" in name]
        assert list(step.input) == [*first, "cache_position", *caches]
        assert list(step.output) == ["logits"] + [name for name in presents if "decoder" in name]
    else:
        assert list(encoder.output) == ["last_hidden_state"]
        assert list(step.input) == [*first, "encoder_hidden_states", *caches]
        assert list(step.output) == ["logits", *presents]


def test_other_models_have_no_encoder():
    model = models.build(
        "llama", hidden_dim=8, num_heads=2, num_layers=1, intermediate_dim=3, vocabulary_size=11
    )
    with pytest.raises(ConfigError, match="llama is not an encoder-decoder"):
        model.encoder_model()
