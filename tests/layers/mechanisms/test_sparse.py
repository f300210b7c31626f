"""The strided and fixed patterns of Child et al. 2019, against their definitions."""

import numpy as np
import pytest

from keras_seqattn.layers import DecoderBlock
from keras_seqattn.layers.mechanisms import Fixed, Strided
from tests.helpers import check_layer
from tests.mechanisms import check_export, check_mechanism, heads, softmax_attention

STRIDE, BLOCK, SUMMARY = 5, 5, 2


def strided(i, j):
    """The paper's two sets of keys: the last l ones, and those at multiples of l."""
    distance = abs(i - j)
    return (distance <= STRIDE) | (distance % STRIDE == 0)


def fixed(i, j):
    return (i // BLOCK == j // BLOCK) | (j % BLOCK >= BLOCK - SUMMARY)


PATTERNS = {
    "strided": (Strided(STRIDE), strided),
    "fixed": (Fixed(BLOCK, SUMMARY), fixed),
    "stride 1": (Strided(1), lambda i, j: np.ones((len(i), j.shape[1]), bool)),
    "whole summary": (Fixed(BLOCK, BLOCK), lambda i, j: np.ones((len(i), j.shape[1]), bool)),
}


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both sides"])
@pytest.mark.parametrize("name", PATTERNS)
def test_definition(name, causal):
    mechanism, pattern = PATTERNS[name]

    def definition(q, k, v, mask):
        place = np.arange(q.shape[1])
        i, j = place[:, None], place[None]
        allowed = pattern(i, j) & ((j <= i) | (not causal))
        return softmax_attention(q, k, v, allowed & mask[:, None, None])

    lengths = (4, 5, 23) if name in ("strided", "fixed") else (13,)
    check_mechanism(mechanism, definition, lengths, causal)


@pytest.mark.parametrize(
    "mechanism", [Strided(4), Strided(6), Fixed(BLOCK, 1), Fixed(4, SUMMARY)], ids=str
)
def test_another_setting_does_not_pass(mechanism):
    pattern = PATTERNS[type(mechanism).__name__.lower()][1]

    def definition(q, k, v, mask):
        place = np.arange(q.shape[1])
        allowed = pattern(place[:, None], place[None]) & np.tri(len(place), dtype=bool)
        return softmax_attention(q, k, v, allowed & mask[:, None, None])

    with pytest.raises(AssertionError):
        check_mechanism(mechanism, definition, (23,), True)


@pytest.mark.parametrize("mechanism", [Strided(STRIDE), Fixed(BLOCK, SUMMARY)])
def test_in_a_block(mechanism, tmp_path):
    x = np.random.default_rng(0).standard_normal((2, 17, 12)).astype("float32")
    check_layer(DecoderBlock(3, 4, 17, attention=mechanism, name="block"), {"x": x}, tmp_path)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both sides"])
@pytest.mark.parametrize("mechanism", [Strided(32), Fixed(32, 3)])
def test_export(mechanism, causal, tmp_path):
    check_export(mechanism, tmp_path, causal)


def test_refusals():
    q, k, v = heads(7)
    for mechanism in (Strided(3), Fixed(3, 1)):
        with pytest.raises(ValueError, match="has no state"):
            mechanism(q, k, v, state=(), causal=True)
        with pytest.raises(ValueError, match="7 queries, 5 keys"):
            mechanism(q, k[:, :5], v[:, :5])
    with pytest.raises(ValueError, match="stride must be 1 or more"):
        Strided(0)
    with pytest.raises(ValueError, match="between 1 and block_size"):
        Fixed(3, 4)
