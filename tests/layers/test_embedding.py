import numpy as np
import pytest

from keras_seqattn.layers import TokenEmbedding
from tests.helpers import check_layer, to_numpy

B, T, M, V = 2, 3, 5, 11


@pytest.mark.parametrize("tied", [True, False])
def test_forward_and_reverse(tied, tmp_path):
    layer = TokenEmbedding(V, M, tied=tied)
    ids = np.array([[1, 10, 0], [4, 4, 7]], "int32")
    layer(ids)
    table = layer.get_weights()[0]
    np.testing.assert_array_equal(to_numpy(layer(ids)), table[ids])
    x = np.random.default_rng(0).standard_normal((B, T, M)).astype("float32")
    matrix = table.T if tied else layer.get_weights()[1]
    logits = to_numpy(layer(x, reverse=True))
    np.testing.assert_allclose(logits, x @ matrix, rtol=0, atol=1e-5)
    assert len(layer.weights) == (1 if tied else 2)


def test_contract(tmp_path):
    layer = TokenEmbedding(V, M)
    check_layer(layer, {"inputs": np.array([[1, 10, 0], [4, 4, 7]], "int32")}, tmp_path)
    assert layer.get_config()["vocabulary_size"] == V
