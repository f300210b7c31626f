"""The trained tokenizer: exact round trips, the same file each time, known to both runtimes."""

import json

import pytest
import transformers

from keras_seqattn.errors import InputError
from keras_seqattn.runtime.tokenizer import Tokenizer
from keras_seqattn.training import SPECIAL_TOKENS, train_bpe

pytestmark = pytest.mark.backend_free

TEXTS = ["the libraries of the game", "le librerie del gioco", "the game library"] * 7


@pytest.fixture(scope="module")
def assets():
    return train_bpe(TEXTS, vocabulary_size=300)


@pytest.mark.parametrize(
    "text", ["the game", " two  blanks ", "città, perché\n\tnò", "日本語 🙂", "", "<b>&amp;"]
)
def test_round_trip_is_exact(assets, text):
    tokenizer = Tokenizer(assets)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids[-1] == 2 and not {0, 1, 2, 3} & set(ids[:-1])


def test_special_tokens_and_size(assets):
    tokenizer = Tokenizer(assets)
    assert tokenizer.pad_id == 0 and tokenizer.vocabulary_size <= 300
    vocabulary = json.loads(assets["tokenizer.json"])["model"]["vocab"]
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert len(tokenizer.encode("the library")) < 6


def test_the_same_texts_make_the_same_file(assets):
    assert train_bpe(iter(TEXTS), vocabulary_size=300) == assets


def test_transformers_reads_it(assets, tmp_path):
    for file, content in assets.items():
        (tmp_path / file).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "the città del gioco"
    assert theirs(text)["input_ids"] == Tokenizer(assets).encode(text)
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)


def test_refuses_a_vocabulary_without_room_for_bytes():
    with pytest.raises(InputError, match="at least 260"):
        train_bpe(TEXTS, vocabulary_size=259)
