"""The loop and the beams over an encoder-decoder give the tokens of transformers' generate."""

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from keras_seqattn.errors import InputError
from keras_seqattn.generation import Generator

from .transformers_decoders import (
    EOS,
    PAD,
    START,
    TransformersEncoderDecoder,
    padded,
    randomised,
)

pytestmark = pytest.mark.backend_free

VOCABULARY = 53
DEFAULTS = {"eos_token_id": EOS, "pad_token_id": PAD, "decoder_start_token_id": START}


@pytest.fixture(scope="module")
def reference():
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=18,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=2,
        encoder_ffn_dim=23,
        decoder_ffn_dim=29,
        max_position_embeddings=61,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
        decoder_start_token_id=START,
        forced_eos_token_id=None,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield randomised(BartForConditionalGeneration(config))
    torch.set_num_threads(threads)


@pytest.fixture
def generator(reference):
    decoder = TransformersEncoderDecoder(reference)
    return Generator(decoder, defaults=DEFAULTS, context_length=61)


@pytest.fixture(scope="module")
def sources():
    rng = np.random.default_rng(7)
    return [rng.integers(6, VOCABULARY, size=n).tolist() for n in (11, 1, 6)]


# Without it these models repeat one token.
DIVERSE = {"no_repeat_ngram_size": 2}
SETTINGS = [
    {},
    {"max_length": 9},
    {"forced_bos_token_id": 9},
    {"forced_eos_token_id": 8},
    {"forced_eos_token_id": [8, 12], "max_new_tokens": 4},
    {"min_length": 15},
    {"min_new_tokens": 15},
    {"no_repeat_ngram_size": 1},
    {"bad_words_ids": [[29], [52, 13], [EOS]]},
    {"repetition_penalty": 1.4, "renormalize_logits": True},
    {"num_beams": 4},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "min_length": 6},
    {"num_beams": 3, "length_penalty": -1.0, "early_stopping": "never"},
    {"num_beams": 4, "forced_bos_token_id": 9, "forced_eos_token_id": EOS, "max_length": 8},
    {"num_beams": 4, "bad_words_ids": [[PAD], [52, 13]], "renormalize_logits": True},
    {"num_beams": 3, "repetition_penalty": 1.3, "renormalize_logits": True, "min_length": 5},
]


def expected(reference, ids, mask, **settings):
    """The new tokens of transformers' generate, (b, n)."""
    out = reference.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), **settings)
    return out[:, 1:].numpy()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_tokens_equal_transformers(reference, generator, sources, settings):
    ids, mask = padded(sources)
    plain = {"max_new_tokens": 21, **DIVERSE}
    settings = {**plain, **settings}
    if "max_length" in settings:
        del settings["max_new_tokens"]
    wanted = expected(reference, ids, mask, **settings)
    got = generator.generate(ids, mask, **settings)
    np.testing.assert_array_equal(got, wanted)
    assert generator.decoder.encoded == [ids.shape]
    if settings != plain:
        assert got.tolist() != generator.generate(ids, mask, **plain).tolist()


@pytest.mark.parametrize("beams", [1, 3])
def test_ngrams_of_the_source(reference, generator, sources, beams):
    for source in sources:
        ids = np.array([source + [52, 16]])
        settings = {"encoder_no_repeat_ngram_size": 1, "num_beams": beams, "max_new_tokens": 9}
        wanted = expected(reference, ids, np.ones_like(ids), **settings)
        np.testing.assert_array_equal(generator.generate(ids, **settings), wanted)
    rows = [[*source, 52, 16] for source in sources]
    assert generator.generate(rows, **settings) == [
        generator.generate(row, **settings) for row in rows
    ]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=str)
def test_padding_of_sources_changes_nothing(generator, sources, settings):
    settings = {"max_new_tokens": 13, **DIVERSE, **settings}
    wanted = [generator.generate(row, **settings) for row in sources]
    assert generator.generate(sources, **settings) == wanted
    for side in ("left", "right"):
        ids, mask = padded([*sources, [7] * 17], side=side)
        array = generator.generate(ids[:3], mask[:3], **settings)
        for row, answer in zip(array, wanted, strict=True):
            assert row[: len(answer)].tolist() == answer
            assert (row[len(answer) :] == PAD).all()


def test_streams(generator, sources):
    row, batch = sources[0], padded(sources)
    settings = {"max_new_tokens": 11, **DIVERSE}
    assert list(generator.stream(row, **settings)) == generator.generate(row, **settings)
    steps = np.stack(list(generator.stream(*batch, **settings)), axis=1)
    np.testing.assert_array_equal(steps, generator.generate(*batch, **settings))
    with pytest.raises(InputError, match="num_beams above 1 cannot stream"):
        generator.stream(row, num_beams=2)


def test_min_length_counts_the_start_token(generator, sources):
    always = {"bad_words_ids": [[i] for i in range(VOCABULARY) if i not in (EOS, 20)]}
    lengths = [
        len(generator.generate(sources[0], max_new_tokens=9, **always, **least))
        for least in ({"min_length": 5}, {"min_new_tokens": 5})
    ]
    assert lengths[1] == lengths[0] + 1


def test_sampling_is_repeatable(generator, sources):
    settings = {"do_sample": True, "max_new_tokens": 9, **DIVERSE}
    first, again, other = (generator.generate(sources, seed=n, **settings) for n in (1, 1, 2))
    assert first == again != other


class Words:
    """A tokenizer of numbers; 4 and 5 are special, and texts end with 5."""

    def encode(self, text, special_tokens=True):
        return [int(word) for word in text.split()] + [EOS] * special_tokens

    def decode(self, ids):
        return " ".join(str(i) for i in ids if i not in (EOS, START))


def test_texts(reference, sources):
    generator = Generator(
        TransformersEncoderDecoder(reference), tokenizer=Words(), defaults=DEFAULTS
    )
    texts = [" ".join(map(str, row)) for row in sources]
    rows = [[*row, EOS] for row in sources]
    settings = {"max_new_tokens": 9, **DIVERSE}
    for beams in (1, 2):
        settings["num_beams"] = beams
        wanted = [Words().decode(row) for row in generator.generate(rows, **settings)]
        assert generator.generate(texts, **settings) == wanted
        assert generator.generate(rows, as_text=True, **settings) == wanted
    wanted = generator.generate(texts[0], max_new_tokens=9, **DIVERSE)
    assert "".join(generator.stream(texts[0], max_new_tokens=9, **DIVERSE)) == wanted
    stop = wanted.split()[2]
    cut = generator.generate(texts[0], stop_strings=[stop], max_new_tokens=9, **DIVERSE)
    assert wanted.startswith(cut + stop) and stop not in cut


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 0, 1]], "padded on one side"),
        ([[0, 0, 0]], "padded on one side"),
        ([[0, 2, 1]], "0 and 1 only"),
    ],
)
def test_bad_masks(generator, mask, message):
    with pytest.raises(InputError, match=message):
        generator.generate(np.array([[7, 8, 9]]), np.array(mask))


def test_bad_settings(reference, generator):
    with pytest.raises(InputError, match="needs decoder_start_token_id, and neither"):
        Generator(generator.decoder, defaults={"eos_token_id": EOS}).generate([7])
    for name in ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"):
        with pytest.raises(InputError, match=f"{name} holds the token id {VOCABULARY}, and"):
            generator.generate([7], **{name: VOCABULARY})
    with pytest.raises(InputError, match="bad_words_ids holds the token id 99"):
        generator.generate([7], bad_words_ids=[[7, 99]])
    with pytest.raises(InputError, match="exceeds the model's context of 61"):
        generator.generate([7], max_new_tokens=61)


def test_decoders_refuse_settings_of_an_encoder(decoder):
    for setting in ({"decoder_start_token_id": 4}, {"encoder_no_repeat_ngram_size": 2}):
        with pytest.raises(InputError, match="would have no effect without an encoder"):
            Generator(decoder).generate([7], **setting)
    Generator(decoder, defaults={"decoder_start_token_id": 4}).generate([7], max_new_tokens=1)
