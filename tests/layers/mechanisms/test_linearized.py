"""Linear attention against its O(n^2) definition, in all its forms, and in ONNX."""

import numpy as np
import pytest

from keras_seqattn.layers.mechanisms import Linearized
from tests.helpers import to_numpy
from tests.mechanisms import check_export, check_mechanism, check_states, heads

# Below, at and not divisible by the chunks of 128.
LENGTHS = (5, 128, 259)


def _features(x, feature_map):
    return np.maximum(x, 0) if feature_map == "relu" else np.where(x > 0, x + 1, np.exp(x))


def _definition(causal, feature_map="elu"):
    def attend(q, k, v, mask):
        q, k = _features(q, feature_map), _features(k, feature_map)
        products = np.einsum("bthd,bshd->bhts", q, k) * mask[:, None, None]
        if causal:
            products = np.tril(products)
        total = products.sum(-1, keepdims=True)
        return np.einsum("bhts,bshe->bthe", products / np.where(total == 0, 1.0, total), v)

    return attend


def _wide(q, k, v):
    return [x.astype("float64") for x in (q, k.repeat(2, 2), v.repeat(2, 2))]


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_definition(causal):
    check_mechanism(Linearized(), _definition(causal), LENGTHS, causal)


def test_definition_with_relu():
    definition = _definition(True, "relu")
    check_mechanism(Linearized("relu"), definition, (131,), True)


def test_states():
    check_states(Linearized(), 135, (1, 3, 130, 1))


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_export(causal, tmp_path):
    check_export(Linearized(), tmp_path, causal)


def test_small_features_keep_their_digits():
    """elu(x) + 1 of -12 is 6e-6, of which a sum with 1 in float32 keeps two digits."""
    q, k, v = heads(7)
    q = q - 12.0
    mask = np.ones((4, 7), "int32")
    expected = _definition(False)(*_wide(q, k, v), mask)
    np.testing.assert_allclose(to_numpy(Linearized()(q, k, v)), expected, rtol=0, atol=1e-5)


def test_cross_attention():
    q, (_, k, v) = heads(5)[0], heads(7)
    expected = _definition(False)(*_wide(q, k, v), np.ones((4, 7), "int32"))
    np.testing.assert_allclose(to_numpy(Linearized()(q, k, v)), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="5 queries, 7 keys"):
        Linearized()(q, k, v, causal=True)


def test_configuration():
    copy = Linearized.from_config(Linearized("relu", name="mechanism").get_config())
    assert (copy.feature_map, copy.name) == ("relu", "mechanism")


def test_what_is_refused():
    q, k, v = heads(3)
    with pytest.raises(ValueError, match="feature_map must be one of elu, relu"):
        Linearized("gelu")
    with pytest.raises(ValueError, match="no scores to scale"):
        Linearized()(q, k, v, scale=0.5)
    state = (np.zeros((4, 2, 5, 8), "float32"),)
    with pytest.raises(ValueError, match="must be causal"):
        Linearized()(q, k, v, state=state)
