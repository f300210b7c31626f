"""BART's noise: exact ratios, order kept, nothing invented, the seed decides."""

import numpy as np
import pytest

from keras_seqattn.errors import InputError
from keras_seqattn.training import (
    document_rotation,
    sentence_permutation,
    text_infilling,
    token_deletion,
    token_masking,
)

pytestmark = pytest.mark.backend_free

MASK = 4


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("length", [0, 1, 2, 13, 200])
def test_infilling_keeps_the_rest_in_order(length, ratio):
    tokens = np.arange(10, 10 + length)
    for seed in range(5):
        result = text_infilling(tokens, generator(seed), mask_token_id=MASK, ratio=ratio)
        kept = result[result != MASK]
        assert len(kept) == length - round(length * ratio)
        assert np.all(np.diff(kept) > 0) and set(kept) <= set(tokens)
        masked = result == MASK
        assert not np.any(masked[1:] & masked[:-1])


def test_infilling_spans_are_poisson():
    lengths = []
    for seed in range(200):
        result = text_infilling(np.arange(10, 510), generator(seed), mask_token_id=MASK)
        bounds = [9, *result.tolist(), 510]
        for i in np.flatnonzero(np.array(bounds) == MASK):
            lengths.append(bounds[i + 1] - bounds[i - 1] - 1)
    shares = np.bincount(lengths, minlength=4) / len(lengths)
    # 10 000 spans: a deviation of 0.005 at most; the last of a text is cut, 1 in 50.
    np.testing.assert_allclose(shares[:4], [0.050, 0.149, 0.224, 0.224], atol=0.02)
    assert abs(np.mean(lengths) - 3) < 0.1


def test_masking_and_deletion():
    tokens = np.arange(10, 110)
    masked = token_masking(tokens, generator(), mask_token_id=MASK, ratio=0.15)
    assert np.sum(masked == MASK) == 15 and np.all((masked == tokens) | (masked == MASK))
    shorter = token_deletion(tokens, generator(), ratio=0.15)
    assert len(shorter) == 85 and np.all(np.diff(shorter) > 0)
    assert np.array_equal(tokens, np.arange(10, 110))


def test_sentences_are_permuted_whole():
    sentences = [(11, 12, 2), (13, 2), (14, 15, 16, 3), (17, 18)]
    tokens = [token for sentence in sentences for token in sentence]
    orders = set()
    for seed in range(40):
        result = sentence_permutation(tokens, generator(seed), sentence_end_ids=[2, 3]).tolist()
        assert sorted(result) == sorted(tokens)
        places = sorted(range(4), key=lambda i: result.index(sentences[i][0]))
        assert [token for i in places for token in sentences[i]] == result
        orders.add(tuple(places))
    assert len(orders) > 10
    assert len(sentence_permutation([], generator(), sentence_end_ids=[2])) == 0


def test_rotation():
    tokens = np.arange(10, 21)
    starts = {int(document_rotation(tokens, generator(seed))[0]) for seed in range(100)}
    assert starts == set(tokens.tolist())
    rotated = document_rotation(tokens, generator(3))
    assert np.array_equal(np.roll(rotated, rotated[0] - 10), tokens)


def test_the_seed_decides():
    tokens = np.arange(10, 110)
    one, same, other = (text_infilling(tokens, generator(s), mask_token_id=MASK) for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_refuses_ratios_beyond_one():
    with pytest.raises(InputError, match="ratio"):
        text_infilling([5, 6], generator(), mask_token_id=MASK, ratio=1.2)
    with pytest.raises(InputError, match="ratio"):
        token_deletion([5, 6], generator(), ratio=-0.1)
