"""FAVOR+ against its O(n^2) definition and against softmax, in all its forms, and in ONNX."""

import numpy as np
import pytest

from keras_seqattn.layers import MultiHeadAttention
from keras_seqattn.layers.mechanisms import Performer
from tests.helpers import to_numpy
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
