"""T5's span corruption: the text can be put together again, and the lengths are the formula's."""

import numpy as np
import pytest

from keras_seqattn.errors import InputError
from keras_seqattn.training import corrupted_lengths, raw_length, span_corruption

pytestmark = pytest.mark.backend_free

SENTINEL, EOS = 1999, 1


def corrupt(tokens, seed=0, **options):
    rng = np.random.default_rng(seed)
    return span_corruption(tokens, rng, sentinel_id=SENTINEL, eos_token_id=EOS, **options)


def restore(inputs, labels):
    """Put each span of the labels where its sentinel stands in the inputs."""
    spans, current = {}, None
    for token in labels[:-1].tolist():
        if token > 1500:
            current = spans[token] = []
        else:
            current.append(token)
    assert inputs[-1] == labels[-1] == EOS
    parts = [spans.pop(token) if token > 1500 else [token] for token in inputs[:-1].tolist()]
    assert not spans
    return [token for part in parts for token in part]


@pytest.mark.parametrize("length", [2, 3, 7, 20, 113, 568])
def test_the_text_can_be_restored(length):
    tokens = np.random.default_rng(length).integers(2, 1500, length)
    for seed in range(5):
        inputs, labels = corrupt(tokens, seed)
        assert restore(inputs, labels) == tokens.tolist()
        assert (len(inputs), len(labels)) == corrupted_lengths(length)


def test_sentinels_descend_and_no_span_is_empty():
    inputs, labels = corrupt(np.arange(2, 102))
    expected = list(range(SENTINEL, SENTINEL - 5, -1))
    assert inputs[inputs > 1500].tolist() == expected == labels[labels > 1500].tolist()
    assert labels[0] == SENTINEL and np.all(np.diff(np.flatnonzero(labels > 1500)) > 1)
    assert inputs[0] < 1500 and np.all(np.diff(np.flatnonzero(inputs > 1500)) > 1)


def test_density_and_mean_span():
    for length, density, mean in ((800, 0.15, 3), (800, 0.5, 3), (800, 0.15, 8), (13, 0.15, 1)):
        _, labels = corrupt(np.arange(2, 2 + length), density=density, mean_span=mean)
        removed = int(np.sum(labels < 1500)) - 1
        assert removed == round(length * density)
        assert int(np.sum(labels > 1500)) == round(removed / mean)


def test_t5_lengths():
    # The numbers of T5's own pre-training on inputs of 512 tokens.
    assert raw_length(512) == 568 and corrupted_lengths(568) == (512, 114)
    for size in (3, 4, 10, 64, 511):
        n = raw_length(size)
        assert corrupted_lengths(n)[0] <= size < corrupted_lengths(n + 1)[0]


def test_every_way_to_place_spans_is_equally_likely():
    counts = np.zeros(12)
    for seed in range(3000):
        _, labels = corrupt(np.arange(100, 112), seed, density=0.25, mean_span=1)
        counts[labels[(labels >= 100) & (labels < 1500)] - 100] += 1
    # Three spans of one token: the last at the end, the others at two of nine places, not adjacent;
    # of the 28 ways 7 take the first or the last of these places, and 6 any other.
    shares = np.array([0, 7, 6, 6, 6, 6, 6, 6, 6, 7, 0, 28]) / 28
    # The deviation is 24 at most.
    np.testing.assert_allclose(counts, 3000 * shares, atol=110)


def test_the_seed_decides():
    tokens = np.arange(2, 102)
    np.testing.assert_array_equal(corrupt(tokens, 3)[0], corrupt(tokens, 3)[0])
    assert not np.array_equal(corrupt(tokens, 3)[0], corrupt(tokens, 4)[0])


def test_refuses_too_little_text_and_sentinels_in_it():
    with pytest.raises(InputError, match="at least 2 tokens"):
        corrupt([5])
    with pytest.raises(InputError, match="already holds sentinels"):
        corrupt([5, SENTINEL, 6])
