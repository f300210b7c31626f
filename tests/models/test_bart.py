"""BART, and the two families that are BART but for a few choices."""

import numpy as np
import pytest
import transformers

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
from tests.models.test_marian import SIZES as MARIAN_SIZES

SIZES = MARIAN_SIZES | {
    "activation_function": "gelu",
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
CLASSES = {"bart": "Bart", "mbart": "MBart", "pegasus": "Pegasus"}


def _saved(directory, family="bart", architecture="ForConditionalGeneration", **changes):
    name = CLASSES[family]
    config = getattr(transformers, f"{name}Config")(**(SIZES | changes))
    reference = make_reference(f"{name}{architecture}", config)
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("family", CLASSES)
def test_parity_and_round_trip(tmp_path, family, scaled):
    reference, directory = _saved(tmp_path / "a", family, scale_embedding=scaled)
    model = check_parity(reference, directory)
    assert (model.family, model.task) == (family, "seq2seq_lm")
    check_round_trip(model, reference, tmp_path / "b")


@pytest.mark.parametrize(("family", "static"), [("bart", False), ("pegasus", True)])
def test_steps_agree_with_transformers(tmp_path, family, static):
    """One has learned positions, the other sinusoids; both count the padding."""
    reference, directory = _saved(tmp_path, family)
    model = models.load(directory)
    targets = np.random.default_rng(1).integers(1, 41, (3, 7)).astype("int32")
    for length, padding in ((1, None), (5, "right"), (29, "left")):
        inputs = sample_inputs(model, length=length, padding=padding)
        inputs["decoder_input_ids"] = targets
        # The last row of five is all padding, where transformers attends to everything.
        rows = slice(0, 2 if length == 5 else 3)
        expected = run_reference(reference, inputs)["logits"][rows]
        found = stepped(model, inputs, static)[rows]
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE, (length, padding, error)


def test_a_checkpoint_without_the_head(tmp_path):
    """Its names lack the prefix, and its logits come from the shared table all the same."""
    reference, _ = _saved(tmp_path / "whole")
    reference.final_logits_bias.zero_()
    directory = save_reference(reference.model, tmp_path / "base")
    check_parity(reference, directory)


@pytest.mark.parametrize("family", CLASSES)
def test_other_sides_of_the_embeddings_do_not_pass(tmp_path, family):
    reference, directory = _saved(tmp_path, family)
    save_reference(reference, directory, scale_embedding=False)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_positions_start_at_the_third_row(tmp_path):
    reference, directory = _saved(tmp_path)
    model = models.load(directory)
    for side in ("encoder", "decoder"):
        layer = model.get_layer(f"{side}_positions")
        assert (layer.offset, tuple(layer.embeddings.shape)) == (2, (39, 30))


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("bart", {"tie_word_embeddings": False}),
        ("bart", {"normalize_before": True}),
        ("bart", {"normalize_embedding": False}),
        ("bart", {"extra_pos_embeddings": 3}),
        ("mbart", {"normalize_before": False}),
        ("mbart", {"add_final_layer_norm": False}),
        ("pegasus", {"normalize_embedding": True}),
        ("pegasus", {"static_position_embeddings": False}),
    ],
)
def test_values_that_are_not_implemented_are_named(tmp_path, family, change):
    reference, directory = _saved(tmp_path, family)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=next(iter(change))):
        models.load(directory)
