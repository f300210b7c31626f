"""FAVOR+ against its O(n^2) definition and against softmax, in all its forms, and in ONNX."""

import numpy as np
import pytest

from keras_seqattn.layers import MultiHeadAttention
from keras_seqattn.layers.mechanisms import Performer
from keras_seqattn.ops.performer import orthogonal_features
from tests.helpers import randomise, to_numpy
from tests.mechanisms import (
    HEAD_DIM,
    check_export,
    check_mechanism,
    check_states,
    heads,
    softmax_attention,
)

# Below, at and not divisible by the chunks of 128.
LENGTHS = (5, 128, 259)


def _performer(num_features=29, seed=3):
    mechanism = Performer(num_features, seed)
    mechanism.build((None, None, 4, HEAD_DIM))
    return mechanism


def _definition(mechanism, causal, scale=HEAD_DIM**-0.5):
    projection = to_numpy(mechanism.projection.value).astype("float64")

    def features(x):
        x = x * scale**0.5
        squares = (x**2).sum(-1, keepdims=True) / 2
        return np.exp(x @ projection.T - squares) / len(projection) ** 0.5

    def attend(q, k, v, mask):
        products = np.einsum("bthm,bshm->bhts", features(q), features(k)) * mask[:, None, None]
        if causal:
            products = np.tril(products)
        total = products.sum(-1, keepdims=True)
        return np.einsum("bhts,bshe->bthe", products / np.where(total == 0, 1.0, total), v)

    return attend


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_definition(causal):
    mechanism = _performer()
    check_mechanism(mechanism, _definition(mechanism, causal), LENGTHS, causal)


def test_states():
    check_states(_performer(), 135, (1, 3, 130, 1))


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_export(causal, tmp_path):
    check_export(Performer(29, 3), tmp_path, causal)


@pytest.mark.parametrize("causal", [pytest.param(False, marks=pytest.mark.backend_free), True])
def test_features_out_of_the_range_of_float32(causal):
    """exp(w k - |k|^2 / 2) of long keys is far below the smallest float32."""
    mechanism = _performer()
    q, k, v = heads(131)
    k *= np.linspace(6, 12, 131, dtype="float32")[::-1, None, None]
    mask = np.ones((4, 131), "int32")
    wide = [x.astype("float64") for x in (q, k.repeat(2, 2), v.repeat(2, 2))]
    expected = _definition(mechanism, causal)(*wide, mask)
    actual = to_numpy(mechanism(q, k, v, causal=causal))
    # Exponents near 100 have five digits behind the point in float32.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.backend_free
def test_states_of_long_keys():
    """Zeros are no past, also where the scale of real keys is far below that of zero."""
    mechanism = _performer()
    q, k, v = heads(5)
    k *= 12
    expected = to_numpy(mechanism(q, k, v, causal=True))
    state = (np.zeros((4, 2, 29, 8), "float32"), np.zeros((4, 2), "float32"))
    out, state = mechanism(q[:, :2], k[:, :2], v[:, :2], state=state, causal=True)
    rest, _ = mechanism(q[:, 2:], k[:, 2:], v[:, 2:], state=state, causal=True)
    actual = np.concatenate([to_numpy(out), to_numpy(rest)], axis=1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.backend_free
def test_the_error_to_softmax_falls_with_the_features():
    """As 1 / sqrt(m): by 4 for 16 times the features; the bounds leave room for chance."""
    q, k, v = (0.4 * x for x in heads(23))
    exact = softmax_attention(q, k.repeat(2, 2), v.repeat(2, 2), True)
    errors = []
    for num_features in (16, 256, 4096):
        outs = [to_numpy(_performer(num_features, seed)(q, k, v)) for seed in range(4)]
        errors.append(np.sqrt(np.mean([(out - exact) ** 2 for out in outs])))
    assert errors[1] < errors[0] / 2.5
    assert errors[2] < errors[1] / 2.5
    assert errors[2] < 0.05 * exact.std()


@pytest.mark.backend_free
def test_orthogonal_features():
    features = orthogonal_features(4001, 7, seed=1)
    blocks = features[:3997].reshape(571, 7, 7)
    products = blocks @ blocks.transpose(0, 2, 1)
    off_diagonal = products * (1 - np.eye(7))
    assert np.abs(off_diagonal).max() < 1e-12
    # Of 4001 Gaussian vectors: mean 0, covariance 1, squared norms with mean 7 and variance 14.
    assert np.abs(features.mean(0)).max() < 0.07
    assert np.abs(features.T @ features / 4001 - np.eye(7)).max() < 0.1
    squares = (features**2).sum(1)
    assert abs(squares.mean() - 7) < 0.25 and abs(squares.var() - 14) < 2
    assert np.array_equal(features, orthogonal_features(4001, 7, seed=1))


def test_redraw():
    q, k, v = heads(5)
    mechanism, other = _performer(seed=3), _performer(seed=4)
    first = to_numpy(mechanism(q, k, v))
    assert not mechanism.trainable_variables
    assert not np.array_equal(first, to_numpy(other(q, k, v)))
    mechanism.redraw(4)
    assert np.array_equal(to_numpy(mechanism(q, k, v)), to_numpy(other(q, k, v)))
    mechanism.redraw(3)
    assert np.array_equal(to_numpy(mechanism(q, k, v)), first)


@pytest.mark.backend_free
def test_half_precision():
    """Features are exponentials, which half precision would change by whole percents."""
    x = np.random.default_rng(0).standard_normal((2, 7, 12)).astype("float32")
    outs, attention = [], Performer(11, seed=2)
    for dtype in ("float32", "mixed_bfloat16"):
        layer = MultiHeadAttention(6, 5, 3, causal=True, attention=attention, dtype=dtype)
        layer.build(x.shape)
        outs.append(to_numpy(randomise(layer)(x)))
        assert layer.mechanism.get_config()["num_features"] == 11
        assert [w.path for w in layer.non_trainable_variables] == [
            f"{layer.name}/mechanism/projection"
        ]
        assert layer.mechanism.projection.dtype == "float32"
    # bfloat16 has three digits; the projections sum a dozen products.
    np.testing.assert_allclose(outs[1], outs[0], rtol=0, atol=0.05 * np.abs(outs[0]).max())


def test_what_is_refused():
    q, k, v = heads(3)
    with pytest.raises(ValueError, match="scale must be 0 or more"):
        _performer()(q, k, v, scale=-1.0)
    state = (np.zeros((4, 2, 29, 8), "float32"), np.zeros((4, 2), "float32"))
    with pytest.raises(ValueError, match="must be causal"):
        _performer()(q, k, v, state=state)
