"""BigBird's block-sparse attention: both modes against their definitions, and its random blocks."""

import keras
import numpy as np
import pytest

from keras_seqattn.layers.mechanisms import BlockSparse
from keras_seqattn.ops import block_sparse_attention
from tests.helpers import compiled_on_jax, to_numpy
from tests.mechanisms import GROUPS, HEADS, check_export, check_mechanism, heads, softmax_attention

SIZE, RANDOM, SEED = 3, 2, 7
PRIME = 46337


def random_blocks(group, place, count):
    """The formula of the docstring, in whole numbers of any size."""
    shape = (4, 1, GROUPS, 1, RANDOM)
    coefficients = np.random.default_rng(SEED).integers(1, PRIME, shape)[:, 0, group, 0]
    for number in range(RANDOM):
        a, b, c, d = (int(x) for x in coefficients[:, number])
        drawn = (a * place**3 + b * place**2 + c * place + d) % PRIME
        yield (place + 2 + drawn % max(count - 3, 1)) % count


def attended(group, place, count):
    """The blocks that a block attends to, both counted from the first global one."""
    if place in (0, count - 1):
        return set(range(count))
    near = {place - 1, place, place + 1, 0, count - 1}
    return near | set(random_blocks(group, place, count))


def by_formula(q, k, v, mask):
    counts = np.zeros((len(q), HEADS, q.shape[1], q.shape[1]))
    for row in range(len(q)):
        real = np.flatnonzero(mask[row])
        if not len(real):
            continue
        first, last = real[0] // SIZE, real[-1] // SIZE
        for head in range(HEADS):
            for i in real:
                group = head // (HEADS // GROUPS)
                blocks = attended(group, i // SIZE - first, last - first + 1)
                counts[row, head, i] = [j // SIZE - first in blocks for j in range(q.shape[1])]
    return softmax_attention(q, k, v, counts * mask[:, None, None])


def by_transformers(q, k, v, mask):
    length = q.shape[1]
    blocks, place = -(-length // SIZE), np.arange(length) // SIZE
    i, j = place[:, None], place[None]
    ends = (i == 0) | (i == blocks - 1)
    counts = ends | (abs(i - j) <= 1) | (j == 0) | (j == blocks - 1)
    counts = counts + RANDOM * (~ends & (j == 0))
    if length <= (5 + 2 * RANDOM) * SIZE:
        counts = np.ones((length, length))
    return softmax_attention(q, k, v, counts * mask[:, None, None])


DEFINITIONS = {"random": by_formula, "transformers": by_transformers}


def mechanism(mode, **changes):
    return BlockSparse(**{"block_size": SIZE, "num_random_blocks": RANDOM, "seed": SEED} | changes,
                       mode=mode)  # fmt: skip


# 27 is the last length at which transformers attends to everything.
@pytest.mark.parametrize("mode", DEFINITIONS)
def test_definition(mode):
    lengths = {"random": (15, 43), "transformers": (27, 28)}
    check_mechanism(mechanism(mode), DEFINITIONS[mode], lengths[mode])


@pytest.mark.parametrize("change", [{"block_size": 4}, {"num_random_blocks": 3}, {"seed": 8}])
def test_another_setting_does_not_pass(change):
    with pytest.raises(AssertionError):
        check_mechanism(mechanism("random", **change), by_formula, (43,))


def test_without_random_blocks():
    q, k, v = heads(37)
    settings = {"block_size": 5, "num_random_blocks": 0}
    outs = [compiled_on_jax(BlockSparse(**settings, mode=mode))(q, k, v) for mode in DEFINITIONS]
    np.testing.assert_allclose(*(to_numpy(x) for x in outs), atol=1e-6)  # the order of the keys


def test_blocks_of_padding_change_nothing():
    q, k, v = heads(43)
    mask = np.ones((4, 43), "int32")
    mask[:, 40:] = 0
    run = compiled_on_jax(mechanism("random"))
    expected = to_numpy(run(q, k, v, mask=mask))
    before, behind = 2 * SIZE, 5 * SIZE
    sides = ((0, 0), (before, behind))
    padded = [np.pad(x, (*sides, (0, 0), (0, 0)), constant_values=9.0) for x in (q, k, v)]
    actual = to_numpy(run(*padded, mask=np.pad(mask, sides)))
    real = slice(before, before + 40)
    np.testing.assert_allclose(actual[:, real], expected[:, :40], atol=1e-6)  # sums of more zeros


def test_random_blocks_spread():
    """They fall outside the window, over all blocks, and differ between heads and seeds."""
    q, k = (np.zeros((1, 64, n, 1), "float32") for n in (1, 2))
    value = np.broadcast_to(np.eye(64, dtype="float32")[None, :, None], (1, 64, 2, 64))
    seen = []
    for seed in (0, 1):
        out = to_numpy(compiled_on_jax(BlockSparse(1, 3, seed))(np.repeat(q, 2, 2), k, value))
        seen += [out[0, 1:-1, head, 1:-1] > 0 for head in range(2)]
    for first in range(4):
        assert seen[first].sum() >= 62 * 3 + 0.9 * 62 * 3 - 4
        assert seen[first].any(0).all()
        assert all((seen[first] != seen[other]).any() for other in range(first))


def test_configuration():
    config = mechanism("transformers").get_config()
    expected = {"block_size": 3, "num_random_blocks": 2, "seed": 7, "mode": "transformers"}
    assert {name: config[name] for name in expected} == expected
    assert BlockSparse.from_config(config).get_config() == config


def test_half_precision():
    q, k, v = heads(29)
    expected = to_numpy(compiled_on_jax(mechanism("random"))(q, k, v))
    out = compiled_on_jax(mechanism("random", dtype="mixed_bfloat16"))(q, k, v)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    np.testing.assert_allclose(to_numpy(out), expected, atol=0.03)  # eight bits


@pytest.mark.parametrize("mode", DEFINITIONS)
def test_export(mode, tmp_path):
    check_export(mechanism(mode, block_size=16), tmp_path)


def test_refusals():
    q, k, v = heads(7)
    with pytest.raises(ValueError, match="cannot be causal; use Local"):
        BlockSparse()(q, k, v, causal=True)
    with pytest.raises(ValueError, match="has no state"):
        BlockSparse()(q, k, v, state=())
    with pytest.raises(ValueError, match="7 queries, 5 keys"):
        BlockSparse()(q, k[:, :5], v[:, :5])
    with pytest.raises(ValueError, match="block_size must be a whole number from 1"):
        BlockSparse(0)
    with pytest.raises(ValueError, match="mode must be one of random, transformers"):
        block_sparse_attention(q, k, v, mode="paper")
