"""What is rehearsed of a bundle, and that each of its files is found at fault by name."""

import pytest

from keras_seqattn.runtime.rehearsal import rehearse

pytestmark = pytest.mark.backend_free


@pytest.fixture(scope="module")
def folder(decoder_bundle, tmp_path_factory):
    return decoder_bundle


def test_decoder(decoder):
    assert rehearse(decoder) == [
        "tokenizer",
        "generation settings",
        "chat template",
        "two tokens from ids",
        "two tokens from text",
        "two tokens of a chat",
    ]


def test_encoder_decoder(seq2seq):
    assert rehearse(seq2seq) == [
        "tokenizer",
        "generation settings",
        "two tokens from ids",
        "two tokens from text",
        "translation_en_to_de",
        "translation_en_to_fr",
        "summarization",
    ]


def test_embedder(embedder):
    assert rehearse(embedder[0]) == ["tokenizer", "pooling", "embed of a text"]
