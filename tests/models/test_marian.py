import pytest
from transformers import MarianConfig

from tests.models.reference import (
    check_parity,
    check_round_trip,
    make_reference,
    save_reference,
)

SIZES = {
    "vocab_size": 41,
    "d_model": 30,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 5,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 29,
    "decoder_ffn_dim": 31,
    "max_position_embeddings": 37,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 40,
    "eos_token_id": 0,
    "decoder_start_token_id": 40,
    "forced_eos_token_id": 0,
}
SEPARATE = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 43}


def _saved(directory, **changes):
    reference = make_reference("MarianMTModel", MarianConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize(
    "changes",
    [{}, SEPARATE, SEPARATE | {"tie_word_embeddings": False}, {"scale_embedding": False}],
    ids=["shared", "two vocabularies", "untied", "unscaled"],
)
def test_parity_and_round_trip(tmp_path, changes):
    reference, directory = _saved(tmp_path / "a", **changes)
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("marian", "seq2seq_lm")
    check_round_trip(model, reference, tmp_path / "b")
