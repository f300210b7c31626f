import numpy as np
import pytest

from keras_seqattn.layers.mechanisms import Hierarchical
from tests.helpers import compiled_on_jax, to_numpy
from tests.mechanisms import check_export, check_mechanism, check_states, heads

SIZE = 4


def level(i, j, size, levels):
    """The lowest level at which the blocks of two positions touch; None beyond the last."""
    for number in range(levels + 1):
        span = size << number
        if abs(i // span - j // span) <= 1:
            return number
    return None


def definition(size, levels, causal):
    """The approximated matrix, entry by entry: the query with the mean key of the key's cell."""

    def attend(q, k, v, mask):
        out = np.zeros((*q.shape[:3], v.shape[3]))
        for row, real in enumerate(mask):
            positions = np.arange(len(real)) - real.argmax()
            for i in np.flatnonzero(real):
                scores, values = [], []
                for j in np.flatnonzero(real):
                    found = level(positions[i], positions[j], size, levels)
                    if found is None or (causal and j > i):
                        continue
                    cell = (positions >> found == positions[j] >> found) & real
                    scores.append((q[row, i] * k[row, cell].mean(0)).sum(-1))
                    values.append(v[row, j])
                weights = np.exp(np.array(scores) / q.shape[3] ** 0.5)
                weights /= weights.sum(0)
                out[row, i] = np.einsum("jh,jhe->he", weights, np.array(values))
        return out

    return attend


@pytest.mark.parametrize(
    ("levels", "causal", "lengths"),
    [(2, False, (3, 53)), (2, True, (8, 53)), (0, True, (13,))],
)
def test_definition(levels, causal, lengths):
    check_mechanism(Hierarchical(SIZE, levels), definition(SIZE, levels, causal), lengths, causal)


@pytest.mark.parametrize("changes", [{"size": 6}, {"levels": 1}])
def test_another_hierarchy_does_not_pass(changes):
    settings = {"size": SIZE, "levels": 2, "causal": True} | changes
    with pytest.raises(AssertionError):
        check_mechanism(Hierarchical(SIZE, 2), definition(**settings), (53,), causal=True)


def test_states():
    check_states(Hierarchical(SIZE, 2), 53, (5, 1, 30, 17))


@pytest.mark.parametrize("causal", [False, True])
def test_padding_on_the_left_moves_nothing(causal):
    mechanism, padded = Hierarchical(SIZE, 2), 3
    q, k, v = (x[:1] for x in heads(29))
    mask = np.arange(29)[None] >= padded
    run = compiled_on_jax(lambda q, k, v, **call: mechanism(q, k, v, causal=causal, **call))
    alone = to_numpy(run(*(x[:, padded:] for x in (q, k, v))))
    beside = to_numpy(run(q, k, v, mask=mask))[:, padded:]
    np.testing.assert_allclose(beside, alone, rtol=0, atol=1e-6)  # the same sums


def test_beyond_the_last_level_nothing_is_attended():
    q, k, v = heads(97)
    far = [x.copy() for x in (k, v)]
    for x in far:
        x[:, :48] += 1.0
    mechanism = Hierarchical(SIZE, 2)
    run = compiled_on_jax(lambda q, k, v: mechanism(q, k, v, causal=True))
    before, after = (to_numpy(run(q, *x)) for x in ((k, v), far))
    # Blocks at the last level have 16 tokens: the first 48 are out of reach from 64 on.
    assert np.array_equal(before[:, 64:], after[:, 64:])
    assert not np.array_equal(before[:, 63], after[:, 63])


@pytest.mark.parametrize("causal", [False, True])
def test_export(causal, tmp_path):
    check_export(Hierarchical(8, 3), tmp_path, causal)


def test_export_of_more_levels_than_there_are_blocks(tmp_path):
    check_export(Hierarchical(32, 21), tmp_path)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="block_size=3"):
        Hierarchical(3)
    q, k, v = heads(5)
    with pytest.raises(ValueError, match="one sequence"):
        Hierarchical()(q, k[:, :4], v[:, :4])
    shapes = Hierarchical(4, 1).state_shapes(4, 2, 5, 7)
    state = tuple(np.zeros((4, *shape), dtype) for shape, dtype in shapes.values())
    with pytest.raises(ValueError, match="only if it is causal"):
        Hierarchical(4, 1)(q, k, v, state=state)
