"""BART, and the two families that are BART but for a few choices."""

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
    run,
    run_reference,
    relative_error,
    sample_inputs,
    save_reference,
)
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


def _saved(directory, family="bart", **changes):
    name = CLASSES[family]
    config = getattr(transformers, f"{name}Config")(**(SIZES | changes))
    reference = make_reference(f"{name}ForConditionalGeneration", config)
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("family", CLASSES)
def test_parity_and_round_trip(tmp_path, family, scaled):
    reference, directory = _saved(tmp_path / "a", family, scale_embedding=scaled)
    model = check_parity(reference, directory)
    assert (model.family, model.task) == (family, "seq2seq_lm")
    check_round_trip(model, reference, tmp_path / "b")
