"""Greedy search, sampling and beams give the tokens that transformers' generate gives."""

import numpy as np
import pytest
import torch

from keras_seqattn.errors import InputError
from keras_seqattn.generation import Generator

from .conftest import EOS, PAD, VOCABULARY

pytestmark = pytest.mark.backend_free

DEFAULTS = {"eos_token_id": EOS, "pad_token_id": PAD}


def expected(reference, ids, mask, **settings):
    """The new tokens of transformers' generate, (b, n)."""
    out = reference.generate(
        torch.tensor(ids), attention_mask=torch.tensor(mask), max_new_tokens=24, **settings
    )
    return out[:, ids.shape[1] :].numpy()


SETTINGS = [
    {},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 9},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 5},
    {"num_beams": 2},
    {"num_beams": 3, "length_penalty": 2.5},
    {"num_beams": 4, "length_penalty": -1.5},
    {"num_beams": 3, "length_penalty": 0.0, "early_stopping": True},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.7},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": -2.0},
    {"num_beams": 2, "repetition_penalty": 1.3, "min_new_tokens": 4},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "early_stopping": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("eos", [EOS, [EOS, 11, 42, 77, 60]], ids=["one eos", "five eos"])
def test_tokens_equal_transformers(reference, decoder, prompts, settings, eos):
    _, ids, mask = prompts
    wanted = expected(reference, ids, mask, **settings, eos_token_id=eos)
    generator = Generator(decoder, defaults={"eos_token_id": eos, "pad_token_id": PAD})
    got = generator.generate(ids, mask, max_new_tokens=24, **settings)
    np.testing.assert_array_equal(got, wanted)


def test_batch_equals_single_rows(decoder, prompts):
    rows, ids, mask = prompts
    generator = Generator(decoder, defaults=DEFAULTS)
    together = generator.generate(rows, max_new_tokens=17)
    assert together == [generator.generate(row, max_new_tokens=17) for row in rows]
    array = generator.generate(ids, mask, max_new_tokens=17)
    for row, answer in zip(array, together, strict=True):
        assert row[: len(answer)].tolist() == answer
        assert (row[len(answer) :] == PAD).all()


def test_stream_yields_the_tokens_of_generate(decoder, prompts):
    rows, ids, mask = prompts
    generator = Generator(decoder, defaults=DEFAULTS)
    assert list(generator.stream(rows[0], max_new_tokens=13)) == generator.generate(
        rows[0], max_new_tokens=13
    )
    steps = np.stack(list(generator.stream(ids, mask, max_new_tokens=13)), axis=1)
    np.testing.assert_array_equal(steps, generator.generate(ids, mask, max_new_tokens=13))


def test_stream_does_not_run_ahead(reference, decoder, prompts):
    calls = []

    class Counting(type(decoder)):
        def __call__(self, input_ids, attention_mask):
            calls.append(input_ids.shape[1])
            return super().__call__(input_ids, attention_mask)

    stream = Generator(Counting(reference), defaults=DEFAULTS).stream(
        prompts[0][0], max_new_tokens=9
    )
    next(stream)
    assert calls == [7]
    next(stream)
    assert calls == [7, 1]


def test_sampling_is_repeatable_and_seeds_differ(decoder, prompts):
    rows, _, _ = prompts
    generator = Generator(decoder, defaults={})
    draw = [
        generator.generate(rows, do_sample=True, seed=seed, max_new_tokens=11) for seed in (1, 1, 2)
    ]
    assert draw[0] == draw[1]
    assert draw[0] != draw[2]


def test_sampling_with_one_candidate_is_greedy(decoder, prompts):
    rows, _, _ = prompts
    generator = Generator(decoder, defaults=DEFAULTS)
    greedy = generator.generate(rows, max_new_tokens=11)
    for settings in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"temperature": 1e-4}):
        assert greedy == generator.generate(rows, do_sample=True, max_new_tokens=11, **settings)


def test_draws_follow_the_distribution(reference, decoder, prompts):
    row = np.asarray(prompts[0][0])
    count = 4000
    settings = {"do_sample": True, "top_k": 0, "temperature": 2.0, "seed": 3, "max_new_tokens": 1}
    drawn = Generator(decoder).generate(np.tile(row, (count, 1)), **settings)[:, 0]
    with torch.no_grad():
        logits = reference(torch.tensor(row[None])).logits[0, -1]
    wanted = torch.softmax(logits / 2.0, -1).numpy()
    got = np.bincount(drawn, minlength=VOCABULARY) / count
    # A share of n draws has standard deviation sqrt(p (1 - p) / n); five of them never happen.
    assert (np.abs(got - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / count) + 1e-12).all()


def test_beam_sampling_runs_and_is_repeatable(decoder, prompts):
    generator = Generator(decoder, defaults=DEFAULTS)
    settings = {"do_sample": True, "num_beams": 3, "top_k": 7, "max_new_tokens": 9}
    first, again, other = (generator.generate(prompts[0], seed=s, **settings) for s in (1, 1, 5))
    assert first == again != other


def test_length_limits(decoder, prompts):
    row = prompts[0][0]
    generator = Generator(decoder, defaults={}, context_length=19)
    assert len(generator.generate(row)) == 12
    assert len(generator.generate(row, max_length=10)) == 3
    assert len(generator.generate(row, max_new_tokens=12)) == 12
    assert decoder.started == (1, 19)
    with pytest.raises(InputError, match="7 tokens.*max_new_tokens=13.*context of 19"):
        generator.generate(row, max_new_tokens=13)
    with pytest.raises(InputError, match="19 tokens.*context is 19: shorten"):
        generator.generate(row * 2 + row[:5])
    with pytest.raises(InputError, match="max_length=7 leaves none"):
        generator.generate(row, max_length=7)


@pytest.mark.parametrize(
    ("inputs", "mask", "message"),
    [
        ([], None, "at least one token"),
        ([[]], None, "a prompt is empty"),
        ([[7], []], None, "a prompt is empty"),
        (np.zeros((2, 0), np.int64), None, "at least one token"),
        ([7, VOCABULARY], None, f"token id {VOCABULARY}, and the vocabulary has ids 0 to 96"),
        ([-1], None, "token id -1"),
        ([1.5], None, "must hold integers, not float64"),
        ([True], None, "must hold integers, not bool"),
        (np.zeros((1, 2, 3), np.int64), None, r"not \(1, 2, 3\)"),
        ("text", None, "no tokenizer"),
        ([[7, 8]], [[1]], r"attention_mask is \(1, 1\), but input_ids is \(1, 2\)"),
        ([[7, 8]], [[1, 0]], "padded on the left"),
        ([[7, 8, 9]], [[1, 0, 1]], "padded on the left"),
        ([[7, 8]], [[2, 1]], "0 and 1 only"),
        ("text", [[1]], "goes with token ids"),
    ],
)
def test_bad_prompts(decoder, inputs, mask, message):
    with pytest.raises(InputError, match=message):
        Generator(decoder).generate(inputs, mask)


def test_beams_do_not_stream(decoder):
    with pytest.raises(InputError, match="num_beams above 1 cannot stream"):
        Generator(decoder).stream([7], num_beams=2)
    with pytest.raises(InputError, match="stop_strings needs a tokenizer"):
        Generator(decoder).generate([7], stop_strings=["x"])
