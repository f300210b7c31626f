"""The strided and fixed patterns of Child et al. 2019, against their definitions."""

import keras
import numpy as np
import pytest

from keras_seqattn.layers.mechanisms import Fixed, Strided
from keras_seqattn.ops.attention import attention
from tests.helpers import compiled_on_jax, to_numpy
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

    check_mechanism(mechanism, definition, (4, 5, 23) if causal else (23,), causal)


@pytest.mark.parametrize("mechanism", [Strided(1), Fixed(3, 3)])
def test_every_key(mechanism):
    """A stride of 1, and blocks summed up by all they have, leave nothing out."""
    q, k, v = heads(13)
    expected = attention(q, k, v)
    actual = compiled_on_jax(mechanism)(q, k, v)
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), atol=1e-5)


@pytest.mark.parametrize("mechanism", [Strided(4), Fixed(BLOCK, 1), Fixed(4, SUMMARY)])
def test_another_setting_does_not_pass(mechanism):
    pattern = PATTERNS[type(mechanism).__name__.lower()][1]

    def definition(q, k, v, mask):
        place = np.arange(q.shape[1])
        allowed = pattern(place[:, None], place[None]) & np.tri(len(place), dtype=bool)
        return softmax_attention(q, k, v, allowed & mask[:, None, None])

    with pytest.raises(AssertionError):
        check_mechanism(mechanism, definition, (23,), True)


@pytest.mark.parametrize(
    "cls, settings", [(Strided, {"stride": 5}), (Fixed, {"block_size": 5, "summary": 2})]
)
def test_configuration_and_half_precision(cls, settings):
    q, k, v = heads(11)
    mechanism = cls(**settings)
    config = mechanism.get_config()
    assert settings.items() <= config.items()
    assert cls.from_config(config).get_config() == config
    out = compiled_on_jax(cls(**settings, dtype="mixed_bfloat16"))(q, k, v)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    expected = to_numpy(compiled_on_jax(mechanism)(q, k, v))
    np.testing.assert_allclose(to_numpy(out), expected, atol=0.03)  # eight bits


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both sides"])
@pytest.mark.parametrize("mechanism", [Strided(32), Fixed(32, 3)], ids=["strided", "fixed"])
def test_export(mechanism, causal, tmp_path):
    check_export(mechanism, tmp_path, causal)


def test_refusals():
    q, k, v = heads(7)
    for mechanism in (Strided(3), Fixed(3, 1)):
        with pytest.raises(ValueError, match="has no state"):
            mechanism(q, k, v, state=(), causal=True)
        with pytest.raises(ValueError, match="7 queries, 5 keys"):
            mechanism(q, k[:, :5], v[:, :5])
    with pytest.raises(ValueError, match="stride must be a whole number from 1"):
        Strided(0)
    with pytest.raises(ValueError, match="between 1 and block_size"):
        Fixed(3, 4)
