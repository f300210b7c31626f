"""Beam search against the enumeration of every answer of a tiny language."""

import itertools

import numpy as np
import pytest

from keras_seqattn.generation import GenerationConfig, beam_search, decode
from keras_seqattn.generation.beam import _top
from keras_seqattn.generation.processors import log_softmax

pytestmark = pytest.mark.backend_free

VOCABULARY, STEPS, EOS, PAD, START = 5, 3, 4, 0, 0
# Every running prefix of three steps and what may follow it.
WIDE = VOCABULARY ** (STEPS - 1) * VOCABULARY


class Table:
    """A language of its own for each row: the logits of a prefix are drawn by the prefix."""

    vocabulary_size = VOCABULARY

    def __init__(self, seeds):
        self.seeds = np.array(seeds)

    def logits(self, seed, prefix):
        return np.random.default_rng([seed, *prefix]).normal(0, 2, VOCABULARY).astype(np.float32)

    def start(self, batch_size, max_length):
        self.rows = [(int(seed), ()) for seed in self.seeds.repeat(batch_size // len(self.seeds))]

    def __call__(self, input_ids, attention_mask):
        self.rows = [
            (seed, (*prefix, *ids.tolist()))
            for (seed, prefix), ids in zip(self.rows, input_ids, strict=True)
        ]
        return np.stack([self.logits(*row) for row in self.rows])

    def reorder(self, rows):
        self.rows = [self.rows[i] for i in rows]

    def score(self, seed, tokens, length_penalty):
        """sum log p / length ** length_penalty, by definition."""
        prefixes = [(START, *tokens[:n]) for n in range(len(tokens))]
        pairs = zip(prefixes, tokens, strict=True)
        total = sum(log_softmax(self.logits(seed, prefix))[token] for prefix, token in pairs)
        return total / len(tokens) ** length_penalty


def answers():
    """Every answer: those that end with EOS, and those cut off after STEPS tokens."""
    others = [token for token in range(VOCABULARY) if token != EOS]
    for length in range(1, STEPS + 1):
        for head in itertools.product(others, repeat=length - 1):
            yield (*head, EOS)
    yield from itertools.product(others, repeat=STEPS)


def search(seeds, beams, length_penalty=1.0):
    """The best answer of each language as beam search finds it."""
    config = GenerationConfig(
        num_beams=beams, length_penalty=length_penalty, eos_token_id=EOS, pad_token_id=PAD
    )
    prompts = np.full((len(seeds), 1), START)
    ids, lengths = beam_search(Table(seeds), prompts, np.ones_like(prompts), config, STEPS)
    return [tuple(row[:n].tolist()) for row, n in zip(ids, lengths, strict=True)]


SEEDS = list(range(40))


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
def test_the_widest_beam_finds_the_optimum(length_penalty):
    table = Table(SEEDS)
    found = search(SEEDS, WIDE, length_penalty)
    for seed, answer in zip(SEEDS, found, strict=True):
        optimum = max(answers(), key=lambda tokens: table.score(seed, tokens, length_penalty))
        assert answer == optimum
    for beams in (1, 2, 3, 7):
        for seed, answer, narrow in zip(
            SEEDS, found, search(SEEDS, beams, length_penalty), strict=True
        ):
            best = table.score(seed, answer, length_penalty)
            # The same sums in another order.
            assert best >= table.score(seed, narrow, length_penalty) - 1e-5


def test_narrow_beams_miss_some_and_wider_ones_fewer():
    table = Table(SEEDS)
    means = []
    for beams in (1, 2, 4, WIDE):
        found = search(SEEDS, beams)
        means.append(np.mean([table.score(s, x, 1.0) for s, x in zip(SEEDS, found, strict=True)]))
    assert means == sorted(means) and means[0] < means[-1] - 0.01


@pytest.mark.parametrize("size", [1, 7, 64 * 14, 64 * 14 + 1, 64 * 15 - 1, 64 * 99 + 5])
def test_the_highest_of_many(size):
    scores = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
    scores[1, : size // 2] = -np.inf
    scores[2, -1] = 9
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(_top(scores, 7), wanted)


def test_one_beam_is_greedy_search():
    config = GenerationConfig(eos_token_id=EOS, pad_token_id=PAD)
    prompts = np.full((len(SEEDS), 1), START)
    steps = list(decode(Table(SEEDS), prompts, np.ones_like(prompts), config, STEPS))
    ids, active = (np.stack(part, axis=1) for part in zip(*steps, strict=True))
    greedy = [tuple(row[kept].tolist()) for row, kept in zip(ids, active, strict=True)]
    # Without a penalty a longer answer is never better, so that the first to end is the best.
    assert search(SEEDS, 1, length_penalty=0.0) == greedy
