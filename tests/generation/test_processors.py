"""Each processor alone against transformers' own, ties and extremes included."""

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as reference

from keras_seqattn.generation import GenerationConfig, processors
from keras_seqattn.generation.loop import _draw

pytestmark = pytest.mark.backend_free

BATCH, LENGTH, VOCABULARY = 3, 11, 53
EOS = [2, 47]


def make_scores(kind):
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(BATCH, VOCABULARY)).astype(np.float32) * 3
    if kind == "ties":
        scores = np.round(scores)
    if kind == "forbidden":
        scores[:, ::3] = -np.inf
    if kind == "peaked":
        scores[:, 17] += 40
    if kind == "one left":
        scores[:, 1:] = -np.inf
    return scores


IDS = np.random.default_rng(6).integers(0, 9, size=(BATCH, LENGTH))
PADDING = np.array([0, 4, 9])
# The ends of the rows, so that their words are completed, and sources that repeat n-grams.
SOURCE = np.random.default_rng(8).integers(0, 9, size=(BATCH, 13))
BAD_WORDS = [[7], [2], [2, 47], [*IDS[0, -2:].tolist(), 11], [*IDS[2, -1:].tolist(), 23], [8] * 12]

PAIRS = {
    "temperature 0.3": (processors.Temperature(0.3), reference.TemperatureLogitsWarper(0.3)),
    "temperature 7": (processors.Temperature(7.0), reference.TemperatureLogitsWarper(7.0)),
    "top_k 1": (processors.TopK(1), reference.TopKLogitsWarper(1)),
    "top_k 7": (processors.TopK(7), reference.TopKLogitsWarper(7)),
    "top_k 999": (processors.TopK(999), reference.TopKLogitsWarper(999)),
    "top_k 1 of 3": (processors.TopK(1, 3), reference.TopKLogitsWarper(1, min_tokens_to_keep=3)),
    "top_p 0": (processors.TopP(0.0), reference.TopPLogitsWarper(0.0)),
    "top_p 0.31": (processors.TopP(0.31), reference.TopPLogitsWarper(0.31)),
    "top_p 0.9": (processors.TopP(0.9), reference.TopPLogitsWarper(0.9)),
    "top_p 0.1 of 4": (
        processors.TopP(0.1, 4),
        reference.TopPLogitsWarper(0.1, min_tokens_to_keep=4),
    ),
    "min_p 0": (processors.MinP(0.0), reference.MinPLogitsWarper(0.0)),
    "min_p 0.05": (processors.MinP(0.05), reference.MinPLogitsWarper(0.05)),
    "min_p 1": (processors.MinP(1.0), reference.MinPLogitsWarper(1.0)),
    "min_p 0.9 of 3": (
        processors.MinP(0.9, 3),
        reference.MinPLogitsWarper(0.9, min_tokens_to_keep=3),
    ),
    "repetition 1.3": (
        processors.RepetitionPenalty(1.3, PADDING),
        reference.RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=torch.tensor(PADDING)),
    ),
    "repetition 0.6": (
        processors.RepetitionPenalty(0.6, PADDING),
        reference.RepetitionPenaltyLogitsProcessor(0.6, prompt_ignore_length=torch.tensor(PADDING)),
    ),
    "no 1-gram twice": (processors.NoRepeatNGram(1), reference.NoRepeatNGramLogitsProcessor(1)),
    "no 2-gram twice": (processors.NoRepeatNGram(2), reference.NoRepeatNGramLogitsProcessor(2)),
    "no 3-gram twice": (processors.NoRepeatNGram(3), reference.NoRepeatNGramLogitsProcessor(3)),
    "no 99-gram twice": (processors.NoRepeatNGram(99), reference.NoRepeatNGramLogitsProcessor(99)),
    "no 1-gram of the source": (
        processors.NoRepeatSourceNGram(1, SOURCE, np.ones_like(SOURCE)),
        reference.EncoderNoRepeatNGramLogitsProcessor(1, torch.tensor(SOURCE)),
    ),
    "no 2-gram of the source": (
        processors.NoRepeatSourceNGram(2, SOURCE, np.ones_like(SOURCE)),
        reference.EncoderNoRepeatNGramLogitsProcessor(2, torch.tensor(SOURCE)),
    ),
    "no 13-gram of the source": (
        processors.NoRepeatSourceNGram(13, SOURCE, np.ones_like(SOURCE)),
        reference.EncoderNoRepeatNGramLogitsProcessor(13, torch.tensor(SOURCE)),
    ),
    "no 14-gram of the source": (
        processors.NoRepeatSourceNGram(14, SOURCE, np.ones_like(SOURCE)),
        reference.EncoderNoRepeatNGramLogitsProcessor(14, torch.tensor(SOURCE)),
    ),
    "bad words": (
        processors.NoBadWords(BAD_WORDS, EOS),
        reference.NoBadWordsLogitsProcessor(BAD_WORDS, EOS),
    ),
    "forced, at its place": (
        processors.ForcedTokens(LENGTH, EOS),
        reference.ForcedEOSTokenLogitsProcessor(LENGTH + 1, EOS),
    ),
    "forced, elsewhere": (
        processors.ForcedTokens(1, [9]),
        reference.ForcedBOSTokenLogitsProcessor(9),
    ),
    "normalised": (processors.LogNormalization(), reference.LogitNormalization()),
    "long enough": (processors.MinLength(11, EOS), reference.MinLengthLogitsProcessor(11, EOS)),
    "too short": (processors.MinLength(12, EOS), reference.MinLengthLogitsProcessor(12, EOS)),
    "no eos yet": (
        processors.MinLength(12, EOS),
        reference.MinNewTokensLengthLogitsProcessor(7, 5, EOS),
    ),
    "eos by now": (
        processors.MinLength(11, EOS),
        reference.MinNewTokensLengthLogitsProcessor(7, 4, EOS),
    ),
}


@pytest.mark.parametrize("kind", ["plain", "ties", "forbidden", "peaked", "one left"])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_transformers(name, kind):
    ours, theirs = PAIRS[name]
    scores = make_scores(kind)
    before = scores.copy()
    got = ours(IDS, scores)
    np.testing.assert_array_equal(scores, before)
    wanted = theirs(torch.tensor(IDS), torch.tensor(scores)).numpy()
    assert got.dtype == np.float32
    if kind == "ties":
        # Which of several equal scores stay is chance in torch; how many is not.
        got, wanted = np.sort(got, axis=1), np.sort(wanted, axis=1)
    np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted))
    # The same float32 operations: the last bit at most; sums of 53 exponentials a few.
    np.testing.assert_allclose(got, wanted, rtol=2e-6 if name == "normalised" else 2e-7)


def test_first_token_is_forced_after_one_token():
    ids, scores = IDS[:, :1], make_scores("plain")
    wanted = reference.ForcedBOSTokenLogitsProcessor(9)(torch.tensor(ids), torch.tensor(scores))
    np.testing.assert_array_equal(processors.ForcedTokens(1, [9])(ids, scores), wanted.numpy())


def test_ngrams_with_padding_of_the_source_do_not_count():
    source, mask = np.array([[5, 6, 3, 3]]), np.array([[1, 1, 0, 0]])
    process = processors.NoRepeatSourceNGram(2, source, mask)
    scores = np.zeros((1, 9), np.float32)
    forbidden = [np.flatnonzero(np.isinf(process(np.array([[i]]), scores))[0]) for i in (5, 6, 3)]
    assert [found.tolist() for found in forbidden] == [[6], [], []]


def test_top_p_removes_what_the_rest_reaches_exactly():
    scores = np.zeros((1, 4), np.float32)  # four times 1/4
    kept = processors.TopP(0.5)(IDS[:1], scores)
    assert np.isfinite(kept).sum() == 2
    wanted = reference.TopPLogitsWarper(0.5)(torch.tensor(IDS[:1]), torch.tensor(scores))
    assert torch.isfinite(wanted).sum() == 2


def test_draws_split_the_unit_interval():
    row = np.array([-np.inf, 1.0, -np.inf, 1.0, -1000.0], np.float32)
    drawn = [_draw(row, at) for at in (0.0, 0.49, 0.5, np.nextafter(1.0, 0.0))]
    assert drawn == [1, 1, 3, 3]


def test_ids_beyond_the_scores_are_ignored():
    ids = np.full((BATCH, LENGTH), VOCABULARY + 3)
    scores = make_scores("plain")
    for process in (processors.RepetitionPenalty(2.0, PADDING), processors.NoRepeatNGram(2)):
        np.testing.assert_array_equal(process(ids, scores), scores)


def test_order_is_that_of_transformers():
    config = GenerationConfig(
        do_sample=True,
        temperature=0.5,
        top_k=9,
        top_p=0.8,
        min_p=0.1,
        repetition_penalty=1.5,
        no_repeat_ngram_size=2,
        encoder_no_repeat_ngram_size=2,
        bad_words_ids=[[7]],
        min_new_tokens=3,
        forced_bos_token_id=8,
        forced_eos_token_id=2,
        renormalize_logits=True,
        num_beams=2,
        eos_token_id=EOS,
    )
    mask = np.ones((BATCH, LENGTH), np.int64)
    made = processors.build_processors(config, mask, 20, (SOURCE, np.ones_like(SOURCE)))
    penalties = ["RepetitionPenalty", "NoRepeatNGram", "NoRepeatSourceNGram"]
    constraints = ["NoBadWords", "MinLength", "ForcedTokens", "ForcedTokens"]
    warpers = ["Temperature", "TopK", "TopP", "MinP", "LogNormalization"]
    assert [type(process).__name__ for process in made] == [*penalties, *constraints, *warpers]
    assert [made[5].length, made[6].length, made[4].min_length] == [1, 19, LENGTH + 3]


def test_greedy_has_no_processor():
    assert processors.build_processors(GenerationConfig(), np.ones((1, 2)), 9) == []


def test_softmax():
    scores = make_scores("forbidden")
    wanted = torch.softmax(torch.tensor(scores), -1).numpy()
    np.testing.assert_allclose(processors.softmax(scores), wanted, rtol=2e-6)
    wanted = torch.log_softmax(torch.tensor(scores), -1).numpy()
    np.testing.assert_allclose(processors.log_softmax(scores), wanted, rtol=2e-6)
