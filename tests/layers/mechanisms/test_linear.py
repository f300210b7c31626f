"""Linear attention against its O(n^2) definition, in all its forms, and in ONNX."""

import numpy as np
import pytest

from keras_seqattn.layers.mechanisms import Linear
from tests.mechanisms import check_export, check_mechanism, check_states

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


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_definition(causal):
    check_mechanism(Linear(), _definition(causal), LENGTHS, causal)


def test_definition_with_relu():
    definition = _definition(True, "relu")
    check_mechanism(Linear("relu"), definition, (131,), True)
